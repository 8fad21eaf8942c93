"""What the API server answers when it refuses: a Status, with the words and codes of Kubernetes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmm.embedded.resource import Resource


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with an object: where, of what kind (`FieldValueRequired`, …) and the words for people."""

    field: str
    reason: str
    message: str


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def wrong(field: str, value: Any, detail: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")


def refused(field: str, detail: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def shown(value: Any) -> str:
    """Return a value as error messages quote it; objects and lists only by their kind."""
    if isinstance(value, dict):
        return '"object"'
    if isinstance(value, list):
        return '"array"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else "null" if value is None else str(value)


class Failure(Exception):
    """An answer other than success. `headers` go with it (`Retry-After`)."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details, self.headers = details, headers or {}

    def status(self) -> dict[str, Any]:
        """Return the Status object."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body


def bad_request(message: str) -> Failure:
    return Failure(400, "BadRequest", message)


def not_found(resource: Resource, name: str) -> Failure:
    return Failure(404, "NotFound", f'{resource.qualified} "{name}" not found', _of(resource, name))


def already_exists(resource: Resource, name: str) -> Failure:
    return Failure(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _of(resource, name))


def forbidden(resource: Resource, name: str, why: str, causes: Sequence[Cause] = ()) -> Failure:
    details = _of(resource, name) | ({"causes": [_said(each) for each in causes]} if causes else {})
    return Failure(403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: {why}', details)


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(resource: Resource, name: str, why: str = MODIFIED) -> Failure:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return Failure(409, "Conflict", message, _of(resource, name))


def expired(message: str) -> Failure:
    return Failure(410, "Expired", message)


def unsupported_media(accepted: str, lacks: str) -> Failure:
    message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    message += f" (the embedded API server has {lacks})"
    return Failure(415, "UnsupportedMediaType", message)


def invalid(resource: Resource, name: str, causes: Sequence[Cause], kind: str = "") -> Failure:
    kind = kind or resource.kind
    qualified = f"{kind}.{resource.group}" if resource.group else kind
    each = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = each[0] if len(each) == 1 else f"[{', '.join(each)}]"
    details = _of(resource, name) | {"kind": kind, "causes": [_said(cause) for cause in causes]}
    return Failure(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', details)


def _said(cause: Cause) -> dict[str, str]:
    return {"reason": cause.reason, "message": cause.message, "field": cause.field}


def _of(resource: Resource, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "kind": resource.plural}
    return found | ({"group": resource.group} if resource.group else {})
