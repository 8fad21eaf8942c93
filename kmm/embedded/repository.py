"""What a registry stores: repositories with manifests and tags in memory, blobs in files."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kmm.embedded.manifest import Manifest


@dataclass(slots=True)
class Repository:
    """One repository. `tagged`: whether it ever had a tag; `blobs`: the digests that may be read through it."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tagged: bool = False
    blobs: set[str] = field(default_factory=set)

    def find(self, reference: str) -> Manifest | None:
        """Return a manifest by tag or digest."""
        return self.manifests.get(self.tags.get(reference, reference))

    def add(self, manifest: Manifest, tag: str = "") -> None:
        """Store a manifest; under a tag, where there is one."""
        self.manifests[manifest.digest] = manifest
        if tag:
            self.tags[tag] = manifest.digest
            self.tagged = True

    def remove(self, digest: str) -> None:
        """Delete a manifest, and the tags that name it."""
        del self.manifests[digest]
        for tag in [tag for tag, named in self.tags.items() if named == digest]:
            del self.tags[tag]


class Upload:
    """A blob that is on its way."""

    def __init__(self, folder: Path, repository: str) -> None:
        self.id = str(uuid.uuid4())
        self.repository = repository
        self.size = 0
        self.ended = False
        self.path = folder / self.id
        self._hash = hashlib.sha256()
        self._file = self.path.open("wb")

    def write(self, content: bytes) -> None:
        """Add to it, unless it was cancelled meanwhile."""
        if self.ended:
            return
        self._file.write(content)
        self._hash.update(content)
        self.size += len(content)

    def close(self) -> str:
        """Write it out; return the digest of what came."""
        self.ended = True
        self._file.close()
        return "sha256:" + self._hash.hexdigest()


class Repositories:
    """All repositories of a registry, by name; `folder` holds the blobs."""

    def __init__(self, folder: Path) -> None:
        self._blobs, self._uploading = folder / "blobs", folder / "uploads"
        for each in (self._blobs, self._uploading):
            each.mkdir(parents=True, exist_ok=True)
        self._repositories: dict[str, Repository] = {}
        self.uploads: dict[str, Upload] = {}

    def __iter__(self) -> Iterator[tuple[str, Repository]]:
        """Yield names and repositories that hold manifests, by name."""
        return iter(sorted((name, each) for name, each in self._repositories.items() if each.manifests))

    def get(self, name: str) -> Repository | None:
        return self._repositories.get(name)

    def make(self, name: str) -> Repository:
        """Return a repository; it comes to be with what is first stored in it."""
        return self._repositories.setdefault(name, Repository())

    def blob(self, name: str, digest: str) -> Path | None:
        """Return the file of a blob that this repository has."""
        repository = self._repositories.get(name)
        return self._file(digest) if repository and digest in repository.blobs else None

    def add_blob(self, name: str, content: bytes) -> str:
        """Store a blob; return its digest."""
        upload = self.begin(name)
        upload.write(content)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.finish(upload, digest)
        return digest

    def begin(self, name: str) -> Upload:
        upload = Upload(self._uploading, name)
        self.uploads[upload.id] = upload
        return upload

    def finish(self, upload: Upload, digest: str) -> bool:
        """Make a blob of an upload; where that is not its digest, return false and forget it."""
        del self.uploads[upload.id]
        if upload.close() != digest:
            upload.path.unlink()
            return False
        upload.path.replace(self._file(digest))
        self.make(upload.repository).blobs.add(digest)
        return True

    def cancel(self, upload: Upload) -> None:
        del self.uploads[upload.id]
        upload.close()
        upload.path.unlink()

    def remove_blob(self, name: str, digest: str) -> None:
        """Take a blob out of a repository; its file goes with the last one that has it."""
        self.make(name).blobs.remove(digest)
        if not any(digest in each.blobs for each in self._repositories.values()):
            self._file(digest).unlink()

    def close(self) -> None:
        """Cancel what is on its way."""
        for upload in list(self.uploads.values()):
            self.cancel(upload)

    def _file(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")
