"""A client for one registry: the parts of the distribution API that reading and pushing images need.

A Client is for one piece of work: everything done with it is over `deadline_s` seconds after it was made, whatever
it takes (redirects, tokens, slow bodies). Making one costs nothing: what is worth keeping, connections and tokens,
is in the Session that clients share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote

from kmm.contract import Access, Unavailable
from kmm.oci import manifest as manifests
from kmm.oci import upload
from kmm.oci.blob import Blob
from kmm.oci.connection import Deadline
from kmm.oci.conversation import MISSING, Conversation, code_of
from kmm.oci.manifest import Descriptor, Index, ManifestError, Parsed
from kmm.oci.reference import Reference
from kmm.oci.session import Session

_HEAD_REFUSED = frozenset({400, 405, 501})


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a reference names. `manifest` and `data` (its bytes): where they were read, else None and empty."""

    digest: str
    media_type: str
    manifest: Parsed | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures of an index; empty for a single manifest, which counts for every one.

        An index without any image for Linux has `none`, so that it counts for no architecture.
        """
        if not isinstance(self.manifest, Index):
            return ()
        return self.manifest.architectures or ("none",)

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations of the manifest or index; empty where it was not read."""
        return self.manifest.annotations if self.manifest else {}


class Client:
    """Asks the registry at `host` (with its port, if any). Not for several threads at once.

    `access`: credentials in the order to try them, then none; TLS; further CAs. `deadline_s`: for everything.

    All its methods raise Unavailable where the registry could not say, and Forbidden where it refused to with
    every credential and without; the texts name the registry and hold neither secrets nor what it answered.
    """

    def __init__(self, host: str, access: Access, *, session: Session, deadline_s: float) -> None:
        self.host = host
        self._registry = Conversation(host, access, session, Deadline(deadline_s))

    def check_deadline(self) -> None:
        """Raise Unavailable where the time for everything is over, for who works on what was read."""
        if not self._registry.deadline.left_s():
            raise Unavailable(f"{self.host}: what it sent was not done with in {self._registry.deadline.seconds:g} s")

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def resolve(self, reference: Reference, *, annotations: bool = False) -> Image | None:
        """Return what `reference` names, or None where the registry says that it has no such thing.

        One HEAD, and a GET where it is an index, where HEAD is no use, or where `annotations` are wanted.
        """
        name, wanted = self._named(reference), reference.wanted
        path = f"/v2/{quote(name)}/manifests/{wanted}"
        answer = self._registry.ask("HEAD", path, name, headers={"Accept": manifests.ACCEPT})
        answer.done()
        if answer.status == HTTPStatus.NOT_FOUND:
            if answer.header("Docker-Distribution-Api-Version").startswith("registry/"):
                return None
            return self.manifest(reference)
        if answer.status not in _HEAD_REFUSED and answer.status != HTTPStatus.OK:
            raise self._registry.unexpected(answer)
        digest = answer.header("Docker-Content-Digest")
        kind = answer.header("Content-Type").partition(";")[0].strip().lower()
        if (
            answer.status != HTTPStatus.OK
            or not manifests.is_digest(digest)
            or (reference.digest and digest != reference.digest)
            or kind not in manifests.MANIFESTS | manifests.INDEXES
        ):
            return self.manifest(reference)
        if kind in manifests.MANIFESTS and not annotations:
            return Image(digest=digest, media_type=kind)
        found = self._manifest(name, digest)
        if found is None:
            raise Unavailable(f"{self.host}: the tag has moved while it was read, or its manifest cannot be read")
        return found

    def manifest(self, reference: Reference) -> Image | None:
        """Return the manifest or index that `reference` names, its digest verified; None as `resolve`."""
        return self._manifest(self._named(reference), reference.wanted)

    def blob(self, repository: str, descriptor: Descriptor) -> Blob:
        """Open a blob, to be read in a `with` block; `repository` is its name without the host.

        A connection that breaks off is taken up again where it ended.
        """
        return Blob(self._registry, repository, descriptor)

    def has_blob(self, repository: str, digest: str) -> bool:
        """Say whether the repository has the blob."""
        answer = self._registry.ask("HEAD", f"/v2/{quote(repository)}/blobs/{digest}", repository)
        answer.done()
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise self._registry.unexpected(answer)
        return answer.status == HTTPStatus.OK

    # ── Pushing ──────────────────────────────────────────────────────────────────────────────────────────────

    def mount(self, from_repository: str, to_repository: str, digest: str) -> bool:
        """Make a blob of one repository one of another without sending it; False where that is not to be had."""
        return upload.mount(self._registry, from_repository, to_repository, digest)

    def upload(
        self,
        repository: str,
        content: bytes | BinaryIO,
        *,
        digest: str = "",
        chunk_bytes: int = 0,
        size: int | None = None,
    ) -> str:
        """Upload a blob and return its digest, computed where it is not given.

        `content`: bytes, or a file that can be sought. `chunk_bytes`: send it in pieces of this size instead of at
        once. `size`: where it is known beside the digest, the content is read once only, and the registry is who
        checks it. What breaks off is taken up again; the upload is cancelled where it fails.
        """
        return upload.upload(self._registry, repository, content, digest, chunk_bytes, size)

    def push_manifest(self, repository: str, data: bytes, media_type: str, tag: str = "") -> str:
        """Push a manifest or index under `tag`, else under its digest alone, and return the digest."""
        digest = manifests.digest_of(data)
        path = f"/v2/{quote(repository)}/manifests/{quote(tag) or digest}"
        answer = self._registry.ask(
            "PUT", path, repository, push=True, headers={"Content-Type": media_type}, body=lambda: data
        )
        if answer.status not in (HTTPStatus.CREATED, HTTPStatus.OK):
            raise self._registry.unexpected(answer)
        answer.done()
        if answer.header("Docker-Content-Digest") not in ("", digest):
            raise Unavailable(f"{self.host}: says that it took another manifest than the one sent")
        return digest

    def _named(self, reference: Reference) -> str:
        if reference.registry != self.host:
            raise ValueError(f"a client for {self.host} cannot ask {reference.registry}")
        return reference.name

    def _manifest(self, name: str, wanted: str) -> Image | None:
        path = f"/v2/{quote(name)}/manifests/{wanted}"
        answer = self._registry.ask("GET", path, name, headers={"Accept": manifests.ACCEPT})
        if answer.status == HTTPStatus.NOT_FOUND:
            if code_of(answer) in MISSING:
                return None
            raise Unavailable(f"{self.host}: answered 404, but not as a registry does")
        if answer.status != HTTPStatus.OK:
            raise self._registry.unexpected(answer)
        data = answer.whole(manifests.SIZE_MOST)
        said = wanted if ":" in wanted else answer.header("Docker-Content-Digest")
        digest = manifests.digest_of(data, said.partition(":")[0] if manifests.is_digest(said) else "sha256")
        if said and said != digest:
            raise Unavailable(f"{self.host}: sent a manifest that does not have the digest it should")
        try:
            parsed = manifests.parse(data, answer.header("Content-Type"))
        except ManifestError as error:
            raise Unavailable(f"{self.host}: the manifest of {name} {error}") from None
        return Image(digest=digest, media_type=parsed.media_type, manifest=parsed, data=data)
