"""What an API server does with objects: create, update, patch and delete them, with all that goes with it.

Everyone writes through here: requests, controllers and the kubelet.
"""

from __future__ import annotations

import random
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import jsonpatch
import jsonpointer

from kmm.embedded import builtin
from kmm.embedded.failure import (
    Cause,
    Failure,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
    refused,
    wrong,
)
from kmm.embedded.resource import Resource
from kmm.embedded.storage import Record, Storage, encode

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
MAX_BYTES = 3 * 1024 * 1024
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
_CONDITIONAL = ("Lease", "CustomResourceDefinition")  # no update without a version
_MADE_BY_UPDATE = ("Lease", "Event")
KEPT_NAMESPACES = ("default", "kube-system", "kube-public")
_SYSTEM_META = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
)


@dataclass(slots=True, kw_only=True)
class Options:
    """How a write is meant. `field_validation`: Ignore, Warn or Strict; `warnings` collects what is to be told."""

    field_validation: str = "Warn"
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A request to delete. `grace_s`: `None` asks for the object's own; `policy`: Background, Foreground, Orphan."""

    uid: str | None = None
    version: str | None = None
    grace_s: int | None = None
    policy: str | None = None
    dry_run: bool = False


def now_text(*, after_s: float = 0) -> str:
    """Return a point in time as Kubernetes writes it."""
    return (datetime.now(UTC) + timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """The objects of a cluster, and the resources it serves."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.announced: deque[tuple[str, str]] = deque()  # the events of controllers, the oldest first
        self.resources: dict[tuple[str, str], Resource] = {each.key: each for each in builtin.RESOURCES}

    @staticmethod
    def resource(kind: str) -> Resource:
        """Return one of Kubernetes' own resources by its kind."""
        return builtin.BY_KIND[kind]

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        """Return an object.

        Raises:
            Failure: 404.
        """
        record = self.storage.get(resource, namespace, name)
        if record is None:
            raise not_found(resource, name)
        return record

    def create(
        self, resource: Resource, namespace: str, body: dict[str, Any], options: Options | None = None
    ) -> Record:
        """Store a new object.

        Raises:
            Failure: why not.
        """
        options = options or Options()
        meta = self._checked_meta(resource, namespace, body)
        if meta.get("resourceVersion"):
            raise Failure(500, "", "resourceVersion should not be set on objects to be created")
        body = self._typed(resource, body, None, options)
        meta = body["metadata"]
        if not meta.get("name") and meta.get("generateName"):
            # Five characters that spell nothing; the other side retries nothing, so neither do we.
            suffix = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))  # noqa: S311
            meta["name"] = f"{meta['generateName'][:58]}{suffix}"
        for key in _SYSTEM_META:
            meta.pop(key, None)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now_text()}
        if resource.generation:
            meta["generation"] = 1
        if resource.status and not resource.born_with_status:
            body.pop("status", None)
        self._admit(resource, namespace, body)
        self._judge(resource, body, None)
        name = body["metadata"]["name"]
        if self.storage.get(resource, namespace, name) is not None:
            raise already_exists(resource, name)
        if options.dry_run:
            return self.storage.draft(resource, body)
        return self.storage.write(resource, body)

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: dict[str, Any],
        subresource: str = "",
        options: Options | None = None,
        *,
        patched: bool = False,
    ) -> Record:
        """Replace an object, or its status.

        Raises:
            Failure: why not.
        """
        options = options or Options()
        meta = self._checked_meta(resource, namespace, body)
        if meta.get("name") != name:
            said = meta.get("name") or ""
            raise bad_request(
                f"the name of the object ({said}) does not match the name on the URL ({name})"
                if said
                else "name must be provided"
            )
        record = self.get(resource, namespace, name)
        old = record.read()
        version = meta.get("resourceVersion")
        if version and version != str(record.version):
            raise conflict(resource, name)
        if not version and not patched and (resource.custom or resource.kind in _CONDITIONAL):
            cause = wrong("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid(resource, name, [cause])
        if meta.get("uid") and meta["uid"] != record.uid:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {record.uid}"
            raise conflict(resource, name, f"StorageError: invalid object, Code: 4, Key: , ResourceVersion: 0, {why}")
        body = self._typed(resource, self._merged(resource, body, old, subresource), old, options)
        self._judge(resource, body, old)
        return self._replace(resource, record, old, body, dry_run=options.dry_run)

    def put(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: dict[str, Any],
        subresource: str,
        options: Options,
    ) -> tuple[Record, bool]:
        """Update an object, or create it where its kind allows that; return it, and whether it is new.

        Raises:
            Failure: why not.
        """
        if resource.kind in _MADE_BY_UPDATE and self.storage.get(resource, namespace, name) is None:
            return self.create(resource, namespace, body, options), True
        return self.update(resource, namespace, name, body, subresource, options), False

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        media_type: str,
        subresource: str = "",
        options: Options | None = None,
    ) -> Record:
        """Change an object by a JSON patch or a merge patch.

        Raises:
            Failure: why not; 422 where a `test` fails.
        """
        body = self.get(resource, namespace, name).read()
        changed = _json_patched(body, patch) if media_type == JSON_PATCH else _merge_patched(body, patch)
        if not isinstance(changed, dict):
            raise bad_request("a patch has to leave an object")
        return self.update(resource, namespace, name, changed, subresource, options, patched=True)

    def set_status(self, record: Record, status: Mapping[str, Any]) -> Record | None:
        """Write an object's status as its controller does; `None` where the object is gone."""
        current = self.storage.by_uid(record.uid)
        if current is None:
            return None
        body = current.read()
        body["status"] = dict(status)
        return self._replace(record.resource, current, current.read(), body)

    def amend(self, record: Record, meta: Mapping[str, Any]) -> Record | None:
        """Change an object's metadata (finalizers, owners); `None` where it is gone."""
        current = self.storage.by_uid(record.uid)
        if current is None:
            return None
        body = current.read()
        for key, value in meta.items():
            if value:
                body["metadata"][key] = value
            else:
                body["metadata"].pop(key, None)
        return self._replace(record.resource, current, current.read(), body)

    def release(self, record: Record, finalizer: str) -> None:
        """Take a finalizer off an object: the end of one that is being deleted and has no other."""
        finalizers = _list(record.read(), "finalizers")
        if finalizer in finalizers:
            self.amend(record, {"finalizers": [each for each in finalizers if each != finalizer]})

    def delete(self, record: Record, how: Deletion | None = None) -> Record | None:
        """Delete an object, or mark it: finalizers and a pod's grace period put off the end.

        Returns: what the object is now; `None` where it is gone.

        Raises:
            Failure: a precondition does not hold.
        """
        how = how or Deletion()
        resource, name = record.resource, record.name
        if how.uid is not None and how.uid != record.uid:
            why = f"the UID in the precondition ({how.uid}) does not match the UID in record ({record.uid})."
            raise conflict(resource, name, f"{why} The object might have been deleted and then recreated")
        if how.version is not None and how.version != str(record.version):
            why = f"the ResourceVersion in the precondition ({how.version}) does not match the ResourceVersion in "
            raise conflict(resource, name, f"{why}record ({record.version}). The object might have been modified")
        if resource.key == ("", "namespaces") and name in KEPT_NAMESPACES:
            raise forbidden(resource, name, "this namespace may not be deleted")
        body = record.read()
        meta = body["metadata"]
        finalizers = self._finalizers(record, body, how)
        grace_s = _grace_s(resource, body, how)
        if how.dry_run:
            return record
        waits = bool(finalizers) or grace_s > 0 or resource.key == ("", "namespaces")
        if not waits:
            self.storage.remove(resource, body)
            return None
        if "deletionTimestamp" in meta:
            left = meta.get("deletionGracePeriodSeconds", 0)
            if grace_s >= left and finalizers == meta.get("finalizers", []):
                return record
            grace_s = min(grace_s, left)
        elif resource.generation:
            meta["generation"] = meta.get("generation", 0) + 1
        meta["deletionTimestamp"] = now_text(after_s=grace_s)
        meta["deletionGracePeriodSeconds"] = grace_s
        if finalizers:
            meta["finalizers"] = finalizers
        if resource.key == ("", "namespaces"):
            body["status"] = {**body.get("status", {}), "phase": "Terminating"}
            meta.pop("deletionGracePeriodSeconds")
        return self.storage.write(resource, body)

    def _finalizers(self, record: Record, body: Mapping[str, Any], how: Deletion) -> list[str]:
        found = [each for each in body["metadata"].get("finalizers", ()) if each not in (ORPHAN, FOREGROUND)]
        policy = how.policy
        if policy is None:
            policy = (
                "Orphan" if record.resource.key == ("batch", "jobs") or ORPHAN in _list(body, "finalizers") else None
            )
            if FOREGROUND in _list(body, "finalizers"):
                policy = "Foreground"
        if policy == "Orphan":
            found.append(ORPHAN)
        elif policy == "Foreground":
            found.append(FOREGROUND)
        return found

    def _checked_meta(self, resource: Resource, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the metadata of an object that a request carries, once it is what the path says."""
        for key, wanted in (("kind", resource.kind), ("apiVersion", resource.api_version)):
            said = body.get(key)
            if not said and resource.custom:
                raise bad_request(f"Object '{'Kind' if key == 'kind' else 'apiVersion'}' is missing")
            if said and said != wanted and resource.custom and key == "kind":
                cause = wrong("kind", said, f"must be {wanted}")
                raise invalid(resource, (body.get("metadata") or {}).get("name", ""), [cause], kind=said)
            if said and said != wanted:
                raise bad_request(
                    f"the API version in the data ({said}) does not match the expected API version ({wanted})"
                    if key == "apiVersion"
                    else f"the kind in the data ({said}) does not match the expected kind ({wanted})"
                )
            body[key] = wanted
        meta = body.get("metadata")
        if meta is None:
            meta = body["metadata"] = {}
        if not isinstance(meta, dict):
            raise bad_request("metadata has to be an object")
        if namespace and meta.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if namespace:
            meta["namespace"] = namespace
        else:
            meta.pop("namespace", None)
        meta.pop("managedFields", None)
        return meta

    def _admit(self, resource: Resource, namespace: str, body: dict[str, Any]) -> None:
        """Refuse what the state of other objects forbids to create."""
        name = body["metadata"].get("name", "")
        if namespace:
            found = self.storage.get(self.resource("Namespace"), "", namespace)
            if found is None:
                raise not_found(self.resource("Namespace"), namespace)
            if found.deleting:
                why = f"unable to create new content in namespace {namespace} because it is being terminated"
                cause = Cause(
                    "metadata.namespace", "NamespaceTerminating", f"namespace {namespace} is being terminated"
                )
                raise forbidden(resource, name, why, [cause])
        if resource.key == ("", "pods"):
            spec = body.get("spec") or {}
            account = spec.get("serviceAccountName") or "default"
            if self.storage.get(self.resource("ServiceAccount"), namespace, account) is None:
                why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
                raise forbidden(resource, name or body["metadata"].get("generateName", ""), why)

    @staticmethod
    def _typed(
        resource: Resource, body: dict[str, Any], old: dict[str, Any] | None, options: Options
    ) -> dict[str, Any]:
        """Return the object pruned and with the defaults of its schema.

        Raises:
            Failure: a field is unknown, and that is not allowed; or is of another type.
        """
        body, unknown, mistyped = resource.structure.settle(body, old)
        name = body["metadata"].get("name") or body["metadata"].get("generateName") or ""
        if unknown and options.field_validation == "Strict":
            every = ", ".join(f'unknown field "{path}"' for path in unknown)
            error = f"strict decoding error: {every}"
            if old is not None:
                raise Failure(422, "Invalid", f'{resource.kind} "{name}" is invalid: patch: {error}')
            handled = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise bad_request(f"{handled}: {error}")
        if options.field_validation == "Warn":
            options.warnings += [f'unknown field "{path}"' for path in unknown]
        types = [cause for cause in mistyped if cause.reason != "FieldValueRequired"]
        if types and (not resource.custom or types[0].field.startswith("metadata")):
            cause = types[0]
            kind = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise bad_request(f"{kind}: json: cannot unmarshal {cause.field}: {cause.message}")
        if mistyped:
            raise invalid(resource, name, mistyped)
        return body

    @staticmethod
    def _judge(resource: Resource, body: dict[str, Any], old: dict[str, Any] | None) -> None:
        """Write its kind's defaults into an object, and look whether it may be so.

        Raises:
            Failure: it may not.
        """
        builtin.default(resource, body, old)
        causes = [*builtin.objections(resource, body, old), *resource.structure.judge(body, old)]
        if causes:
            raise invalid(resource, body["metadata"].get("name") or "", causes)
        if len(encode(body)) > MAX_BYTES:
            raise Failure(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BYTES}")

    def _merged(
        self, resource: Resource, body: dict[str, Any], old: dict[str, Any], subresource: str
    ) -> dict[str, Any]:
        """Return what an update may change of what it carries, over what stays."""
        if subresource == "status":
            merged = {**old, "status": body.get("status")}
            if not resource.custom:
                merged["metadata"] = body["metadata"]
        elif subresource == "finalize":
            merged = {**old, "spec": {"finalizers": (body.get("spec") or {}).get("finalizers") or []}}
        else:
            merged = dict(body)
            if resource.status:
                merged["status"] = old.get("status")
            if resource.kind == "Namespace":
                merged["spec"] = old.get("spec")
        if merged.get("status") is None:
            merged.pop("status", None)
        meta = merged["metadata"] = dict(merged["metadata"])
        for key in _SYSTEM_META:
            meta.pop(key, None)
            if key in old["metadata"]:
                meta[key] = old["metadata"][key]
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        if "deletionTimestamp" in meta:
            new = [each for each in _list(merged, "finalizers") if each not in _list(old, "finalizers")]
            if new:
                detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {new}"
                raise invalid(resource, meta["name"], [refused("metadata.finalizers", detail)])
        return merged

    def _replace(
        self,
        resource: Resource,
        record: Record,
        old: dict[str, Any],
        body: dict[str, Any],
        *,
        dry_run: bool = False,
    ) -> Record:
        if resource.generation and _specified(body, custom=resource.custom) != _specified(
            old, custom=resource.custom
        ):
            body["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if body == old:
            return record  # nothing changed: no new version, no event
        if dry_run:
            return self.storage.draft(resource, body)
        meta = body["metadata"]
        ended = "deletionTimestamp" in meta and not meta.get("finalizers")
        if ended and resource.key == ("", "pods"):
            ended = meta.get("deletionGracePeriodSeconds", 0) == 0
        if ended and resource.key == ("", "namespaces"):
            ended = not (body.get("spec") or {}).get("finalizers")
        return (self.storage.remove if ended else self.storage.write)(resource, body)


def _specified(body: Mapping[str, Any], *, custom: bool) -> Any:
    if custom:
        return {key: value for key, value in body.items() if key not in ("metadata", "status")}
    return body.get("spec")


def _list(body: Mapping[str, Any], key: str) -> list[Any]:
    return body["metadata"].get(key) or []


def _grace_s(resource: Resource, body: Mapping[str, Any], how: Deletion) -> int:
    if resource.key != ("", "pods"):
        return 0
    spec = body.get("spec") or {}
    if not spec.get("nodeName") or (body.get("status") or {}).get("phase") in builtin.ENDED:
        return 0  # there is nothing to stop
    own: int = spec.get("terminationGracePeriodSeconds", 30)
    return own if how.grace_s is None else how.grace_s


class _Replace(jsonpatch.ReplaceOperation):
    """Kubernetes adds what is not there to be replaced, where the place for it is."""

    def apply(self, obj: Any) -> Any:
        parent, key = self.pointer.to_last(obj)
        if isinstance(parent, dict) and key is not None:
            parent[key] = self.operation["value"]
            return obj
        return super().apply(obj)


class _JsonPatch(jsonpatch.JsonPatch):
    operations = MappingProxyType({**jsonpatch.JsonPatch.operations, "replace": _Replace})


def _json_patched(body: Any, patch: Any) -> Any:
    if not isinstance(patch, list):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    try:
        return _JsonPatch(patch).apply(body)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"error decoding patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        # Kubernetes says no more than the first sentence; the second one helps.
        message = f"the server rejected our request due to an error in our request: {str(error)[:300]}"
        raise Failure(422, "Invalid", message) from error


def _merge_patched(body: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(body) if isinstance(body, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_patched(merged.get(key), value)
    return merged
