"""Image references by the distribution project's grammar: never cut at the first colon.

`[registry[:port]/]path[:tag][@digest]`. The first part is a registry where it holds a dot or a colon, is
`localhost`, or has an upper-case letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

TAG_LONGEST = 128
_SHA256_LONG = len("sha256:") + 64
_PATH_LONGEST = 255
_HUB = "docker.io"
_HUB_NAMES = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})

_COMPONENT = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_DOMAIN = re.compile(rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[[A-Fa-f0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")


class ReferenceError(ValueError):  # noqa: A001 -- it is what it is, and Python's own is about weak references
    """A text that is no image reference; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A parsed reference. `domain` is empty where the reference names no registry."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The reference without tag and digest."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def host(self) -> str:
        """The registry's host, and its port where one is named."""
        return self.domain or _HUB

    @property
    def registry(self) -> str:
        """The host to ask, and its port where one is named: Docker Hub's is not the one in the names of images."""
        return "registry-1.docker.io" if self.host in _HUB_NAMES else self.host

    @property
    def name(self) -> str:
        """The repository's name at that host: `library/` is before the names of Docker Hub's own images."""
        return f"library/{self.path}" if self.host in _HUB_NAMES and "/" not in self.path else self.path

    @property
    def wanted(self) -> str:
        """What to ask that host for: the digest where there is one, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        """Return the reference as it is written."""
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_suffix(self, suffix: str) -> Reference:
        """Return the reference with `suffix` appended to its tag (the suffix alone where it has none).

        The digest, which would name the same image again, is left out. Raises ReferenceError where the tag
        becomes too long.
        """
        return parse(str(replace(self, tag=(self.tag + suffix) if self.tag else suffix.lstrip("-._"), digest="")))

    def with_tag(self, tag: str) -> Reference:
        """Return the reference with another tag, and without its digest, which would name the same image again.

        Raises ReferenceError where it is no tag.
        """
        if not _TAG.fullmatch(tag):
            raise ReferenceError(f'"{tag[:100]}" is no tag: letters, digits, _, . and -, not beginning with . or -')
        return parse(str(replace(self, tag=tag, digest="")))


def parse(text: str) -> Reference:
    """Parse an image reference. Raises ReferenceError."""
    shown = text[:100] + ("…" if len(text) > 100 else "")  # noqa: PLR2004
    rest, at, digest = text.partition("@")
    if at and (not _DIGEST.fullmatch(digest) or (digest.startswith("sha256:") and len(digest) != _SHA256_LONG)):
        raise ReferenceError(f'"{shown}" has a digest that is none: it must be such as sha256:<64 hex digits>')
    head, slash, _ = rest.partition("/")
    domain = ""
    if slash and (any(c in head for c in ".:[") or head == "localhost" or head.lower() != head):
        domain, rest = head, rest[len(head) + 1 :]
        if not _DOMAIN.fullmatch(domain):
            raise ReferenceError(f'"{shown}" has a registry that is no host name: "{domain[:100]}"')
    path, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise ReferenceError(
            f'"{shown}" has a tag that is none: letters, digits, _, . and -, not beginning with . or -'
        )
    if len(tag) > TAG_LONGEST:
        raise ReferenceError(f'"{shown}" has a tag of {len(tag)} characters, {TAG_LONGEST} are allowed')
    if not _PATH.fullmatch(path):
        raise ReferenceError(
            f'"{shown}" names no repository: lower-case letters and digits, with single separators between them'
        )
    if len(path) + len(domain) + 1 > _PATH_LONGEST:
        raise ReferenceError(f'"{shown}" has a repository of more than {_PATH_LONGEST} characters')
    return Reference(domain=domain, path=path, tag=tag, digest=digest)
