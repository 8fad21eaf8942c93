"""What the API server says of itself: discovery, and OpenAPI as far as kubectl reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from kmm.embedded.resource import Resource
from kmm.embedded.storage import encode
from kmm.embedded.structure import definitions

_READ = ["get", "list", "watch"]
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def versions() -> dict[str, Any]:
    """Return what `/api` answers."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(resources: Iterable[Resource]) -> list[dict[str, Any]]:
    """Return the APIGroups but the core."""
    found: dict[str, str] = {each.group: each.version for each in resources if each.group}
    return [_group(name, version) for name, version in found.items()]


def _group(name: str, version: str) -> dict[str, Any]:
    said = {"groupVersion": f"{name}/{version}", "version": version}
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [said], "preferredVersion": said}


def resource_list(api_version: str, resources: Iterable[Resource]) -> dict[str, Any]:
    """Return an APIResourceList."""
    found = []
    for each in resources:
        entry: dict[str, Any] = {
            "name": each.plural,
            "singularName": each.singular,
            "namespaced": each.namespaced,
            "kind": each.kind,
            "verbs": _VERBS,
        }
        if each.short_names:
            entry["shortNames"] = list(each.short_names)
        if each.categories:
            entry["categories"] = list(each.categories)
        found.append(entry)
        if each.status:
            found.append(
                {
                    "name": f"{each.plural}/status",
                    "singularName": "",
                    "namespaced": each.namespaced,
                    "kind": each.kind,
                    "verbs": ["get", "patch", "update"],
                }
            )
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def root(api_version: str) -> str:
    """Return the path of a group's version."""
    return f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"


def index(resources: Iterable[Resource]) -> dict[str, Any]:
    """Return what `/openapi/v3` answers."""
    by_version: dict[str, list[Resource]] = {}
    for each in resources:
        by_version.setdefault(each.api_version, []).append(each)
    paths = {}
    for version, served in by_version.items():
        digest = hashlib.sha256(encode([each.structure.schema for each in served])).hexdigest()[:32].upper()
        paths[root(version)] = {"serverRelativeURL": f"/openapi/v3/{root(version)}?hash={digest}"}
    return {"paths": paths}


def document(api_version: str, resources: Iterable[Resource]) -> dict[str, Any]:
    """Return the OpenAPI v3 document of a group's version."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for each in resources:
        gvk = {"group": each.group, "version": each.version, "kind": each.kind}
        name = f"{each.group or 'core'}.{each.version}.{each.kind}"
        schema = _relative(each.structure.schema)
        if each.custom:
            meta = {
                "allOf": [{"$ref": "#/components/schemas/ObjectMeta"}],
                "description": "Standard object's metadata",
            }
            schema = {**schema, "properties": {**schema.get("properties", {}), "metadata": meta}}
        schemas[name] = {**schema, "x-kubernetes-group-version-kind": [gvk]}
        _gather({"$ref": "ObjectMeta"} if each.custom else each.structure.schema, schemas)
        here = f"/{root(api_version)}/{'namespaces/{namespace}/' if each.namespaced else ''}{each.plural}"
        for path, verbs in ((here, ("get", "post")), (f"{here}/{{name}}", ("get", "put", "patch", "delete"))):
            paths[path] = {verb: _operation(verb, gvk, name) for verb in verbs}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "embedded"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(verb: str, gvk: Mapping[str, str], schema: str) -> dict[str, Any]:
    said: dict[str, Any] = {
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": gvk,
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
            }
        },
    }
    if verb in ("post", "put", "patch"):
        said["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in ("dryRun", "fieldValidation")
        ]
    return said


def _relative(schema: Any) -> Any:
    """Return a schema whose references are those of the document."""
    if isinstance(schema, list):
        return [_relative(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    if isinstance(schema.get("$ref"), str):
        reference = {"$ref": f"#/components/schemas/{schema['$ref']}"}
        return {"allOf": [reference], "description": schema["description"]} if "description" in schema else reference
    return {key: _relative(value) for key, value in schema.items()}


def _gather(schema: Any, found: dict[str, Any]) -> None:
    """Add to `found` every type that a schema refers to."""
    if isinstance(schema, list):
        for each in schema:
            _gather(each, found)
    elif isinstance(schema, Mapping):
        name = schema.get("$ref")
        if isinstance(name, str) and name not in found:
            found[name] = _relative(definitions()[name])
            _gather(definitions()[name], found)
        for each in schema.values():
            _gather(each, found)
