"""A registry's refusals: a status, and errors as the distribution protocol writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_MESSAGES = {
    "BLOB_UNKNOWN": (404, "blob unknown to registry"),
    "BLOB_UPLOAD_INVALID": (404, "blob upload invalid"),
    "BLOB_UPLOAD_UNKNOWN": (404, "blob upload unknown to registry"),
    "DENIED": (403, "requested access to the resource is denied"),
    "DIGEST_INVALID": (400, "provided digest did not match uploaded content"),
    "MANIFEST_BLOB_UNKNOWN": (400, "blob unknown to registry"),
    "MANIFEST_INVALID": (400, "manifest invalid"),
    "MANIFEST_UNKNOWN": (404, "manifest unknown"),
    "NAME_UNKNOWN": (404, "repository name not known to registry"),
    "PAGINATION_NUMBER_INVALID": (400, "invalid number of results requested"),
    "RANGE_INVALID": (416, "invalid content range"),
    "SIZE_INVALID": (400, "provided length did not match content length"),
    "TOOMANYREQUESTS": (429, "too many requests"),
    "UNAUTHORIZED": (401, "authentication required"),
    "UNAVAILABLE": (503, "service unavailable"),
    "UNKNOWN": (500, "unknown error"),
}


class Refusal(Exception):
    """A request that is refused. `codes`: of the errors, each with its detail; the first one gives the status."""

    def __init__(
        self,
        *codes: tuple[str, Any],
        status: int = 0,
        message: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status or _MESSAGES[codes[0][0]][0]
        self.headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        self.body = errors(codes, message)
        super().__init__(self.status)


class NoPage(Exception):
    """A path, or a method, that the protocol does not know: no error of its own, but plain text."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self.status = 405 if allowed else 404
        self.headers = {"Content-Type": "text/plain; charset=utf-8"}
        if allowed:
            self.headers["Allow"] = ", ".join(allowed)
        self.body = b"Method not allowed\n" if allowed else b"404 page not found\n"
        super().__init__(self.status)


def errors(codes: Sequence[tuple[str, Any]], message: str = "") -> bytes:
    """Return the body of a refusal; `message` in place of the usual ones."""
    said = []
    for code, detail in codes:
        error = {"code": code, "message": message or _MESSAGES[code][1]}
        said.append(error if detail is None else {**error, "detail": detail})
    return msgspec.json.encode({"errors": said}) + b"\n"
