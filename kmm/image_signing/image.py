"""An image, or an index of images, signed: read from one repository, pushed to another or the same.

Everything is signed before anything is pushed, and the tag comes last: what has the signed image's name is signed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kmm.contract import Forbidden, Unavailable
from kmm.image_signing import modules
from kmm.image_signing import record as records
from kmm.image_signing.errors import ImageError, NoModulesError
from kmm.image_signing.modules import SignedFile, SignedLayer
from kmm.image_signing.record import Record
from kmm.oci import addition, glob
from kmm.oci.client import Client, Image
from kmm.oci.layers import LayerError
from kmm.oci.manifest import DOCKER_MANIFEST, SIZE_MOST, Descriptor, Index, Manifest, ManifestError, digest_of
from kmm.oci.reference import Reference, parse
from kmm.oci.transfer import Place, transfer
from kmm.signing.signer import Signer

_CREATED_BY = "kmm sign-image"
# Buildkit's statements about an image are in its index.
_STATEMENT_OF = "vnd.docker.reference.digest"
_NOT_DISTRIBUTED = ("nondistributable", "foreign")
_TOLD_MOST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An image, and who may ask its registry."""

    client: Client
    reference: Reference

    @property
    def place(self) -> Place:
        """Its repository."""
        return Place(client=self.client, repository=self.reference.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`digest`: of the signed image; `already`: it was there, and nothing was done; `files`: by platform.

    A platform is such as `linux/amd64`, and empty where the image is no index.
    """

    digest: str
    already: bool = False
    files: Mapping[str, tuple[SignedFile, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """One image, ready to be pushed. `source`: what it was."""

    source: Manifest
    layer: SignedLayer
    configuration: bytes
    manifest: bytes


def sign(
    unsigned: Named,
    signed: Named | None,
    wanted: Sequence[str],
    signer: Signer,
    tell: Callable[[Sequence[str]], None] = lambda _: None,
    limit: int = modules.TOGETHER_MOST,
) -> Outcome:
    """Sign the modules of `unsigned` that `wanted` names (paths and patterns), and push the result as `signed`.

    Without `signed` nothing is pushed. Of an index each image for Linux that has such files is signed, and the others
    are as they were. What was signed so already is left alone. The directory for temporary files takes the modules.

    `tell`: is told, before anything is pushed, what was asked for and is signed nowhere, or not for all platforms.
    `limit`: bytes of all modules together, unpacked. The deadline of `unsigned`'s client is for the work too.

    Raises:
        ImageError: the image is not there, lacks a file that is named (of an index: all images do), or cannot be
            signed.
        Unavailable, Forbidden: a registry cannot say, or refuses.
        OSError: the temporary files.
        Whatever the signer raises.
    """
    try:
        image = unsigned.client.manifest(unsigned.reference)
        if image is None:
            raise ImageError("does not exist")  # noqa: TRY301
        record = Record(
            unsigned=image.digest,
            certificate=signer.certificate.fingerprint,
            how=records.how(wanted, signer.hash_name),
        )
        if signed and (there := _done(unsigned, signed, record)):
            tell([])
            return Outcome(digest=there, already=True)
        with tempfile.TemporaryDirectory(prefix="kmm-sign-image-") as folder:
            return _Work(unsigned, signed, wanted, signer, record, tell, limit, Path(folder)).go(image)
    except (ManifestError, LayerError, ImageError) as error:
        raise ImageError(f"{unsigned.reference}: {_why(error)}") from None


def _why(error: ManifestError | LayerError | ImageError) -> str:
    return f"{'a layer ' if isinstance(error, LayerError) else ''}{error}"


def _done(unsigned: Named, signed: Named, record: Record) -> str:
    """Return the digest of the signed image where it is there, made of the same and in the same way."""
    try:
        there = signed.client.manifest(signed.reference)
        if there is None or there.manifest is None:
            return ""
        said = _said(signed, there)
    except (Unavailable, Forbidden, ManifestError):
        return ""  # if that matters, pushing tells it
    parts = there.manifest.manifests if isinstance(there.manifest, Index) else there.manifest.layers
    content = records.content([each.digest for each in parts], index=isinstance(there.manifest, Index))
    in_place = (unsigned.place.name, unsigned.reference.wanted) == (signed.place.name, signed.reference.wanted)
    return there.digest if record.is_in(said, content, in_place=in_place) else ""


def _said(named: Named, image: Image) -> Mapping[str, str]:
    """Return the annotations of an image; of Docker's, which have none, the labels."""
    if image.media_type != DOCKER_MANIFEST or not isinstance(image.manifest, Manifest):
        return image.annotations
    return {**addition.labels_of(_whole(named.place, image.manifest.config)), **image.annotations}


def _whole(place: Place, descriptor: Descriptor) -> bytes:
    if descriptor.size > SIZE_MOST:
        raise ManifestError(f"has a configuration larger than {SIZE_MOST // 1024 // 1024} MiB")
    with place.client.blob(place.repository, descriptor) as blob:
        return b"".join(blob)


class _Work:
    """Signs one image or index. `folder`: an empty one for temporary files."""

    def __init__(
        self,
        unsigned: Named,
        signed: Named | None,
        wanted: Sequence[str],
        signer: Signer,
        record: Record,
        tell: Callable[[Sequence[str]], None],
        limit: int,
        folder: Path,
    ) -> None:
        self._unsigned, self._signed, self._wanted = unsigned, signed, wanted
        self._signer, self._record, self._tell, self._folder = signer, record, tell, folder
        self._allowance = modules.Allowance(most=limit, check=unsigned.client.check_deadline)

    def go(self, image: Image) -> Outcome:
        """Sign, then push."""
        if isinstance(image.manifest, Index):
            return self._index(image, image.manifest)
        made = self._one(image)
        self._tell(_judged(self._wanted, [("", made.layer)], []))
        if self._signed:
            self._push(self._signed, made)
            self._name(self._signed, made.manifest, made.source.media_type)
        return Outcome(digest=digest_of(made.manifest), files={"": made.layer.files})

    def _index(self, image: Image, index: Index) -> Outcome:
        made: dict[str, _Signed] = {}
        others: list[Image] = []
        unsigned: list[tuple[str, str]] = []
        for entry in index.manifests:
            if entry.digest in made or _STATEMENT_OF in entry.annotations:
                continue
            with _about(entry):
                child = self._child(entry)
                if entry.platform is None or entry.platform.os == "linux":
                    try:
                        made[entry.digest] = self._one(child)
                        continue
                    except NoModulesError as error:
                        unsigned.append((_platform(entry), str(error)))
            others.append(child)
        if not made:
            raise NoModulesError(unsigned[0][1] if unsigned else "is an index without an image for Linux")
        platforms = {each.digest: _platform(each) for each in index.manifests}
        signed = [(platforms[digest], each.layer) for digest, each in made.items()]
        self._tell(_judged(self._wanted, signed, unsigned))
        # Statements are about what an image was: those about one that is signed are no longer true.
        statements = [each for each in index.manifests if _STATEMENT_OF in each.annotations]
        without = frozenset(each.digest for each in statements if each.annotations[_STATEMENT_OF] in made)
        for each in statements:
            if each.digest not in without:
                with _about(each):
                    others.append(self._child(each))
        replaced = {digest: each.manifest for digest, each in made.items()}
        now = [
            digest_of(replaced[each.digest]) if each.digest in replaced else each.digest
            for each in index.manifests
            if each.digest not in without
        ]
        data = addition.replace_in_index(
            image.data,
            replaced,
            without=without,
            annotations=self._record.annotations(records.content(now, index=True)),
        )
        if self._signed:
            for one in made.values():
                self._push(self._signed, one)
                self._signed.client.push_manifest(self._signed.reference.name, one.manifest, one.source.media_type)
            for other in others:
                self._keep(self._signed, other)
            self._name(self._signed, data, index.media_type)
        return Outcome(
            digest=digest_of(data), files={platforms[digest]: each.layer.files for digest, each in made.items()}
        )

    def _child(self, entry: Descriptor) -> Image:
        found = self._unsigned.client.manifest(parse(f"{self._unsigned.reference.repository}@{entry.digest}"))
        if found is None:
            raise ImageError("is not there")
        if not isinstance(found.manifest, Manifest):
            raise ImageError("is an index in an index, which runtimes do not look into")
        return found

    def _one(self, image: Image) -> _Signed:
        """Sign one image."""
        source = image.manifest
        if not isinstance(source, Manifest):
            raise ImageError("is no image")
        place = self._unsigned.place
        configuration = _whole(place, source.config)
        openers = [partial(place.client.blob, place.repository, each) for each in source.layers]
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        layer = modules.sign(openers, self._wanted, self._signer, folder, self._allowance)
        number = len(layer.files)
        said = self._record.annotations(records.content([layer.layer.digest], index=False))
        configuration = addition.add_to_configuration(
            configuration,
            source,
            layer.layer,
            created_by=_CREATED_BY,
            comment=f"{number} kernel module{'s' * (number > 1)} signed with {self._signer.hash_name} by the "
            f"certificate {self._record.certificate}",
            labels=said if source.media_type == DOCKER_MANIFEST else {},
        )
        manifest = addition.add_to_manifest(image.data, source, configuration, layer.layer, annotations=said)
        return _Signed(source=source, layer=layer, configuration=configuration, manifest=manifest)

    def _push(self, target: Named, made: _Signed) -> None:
        """Push all that a signed image consists of, but for its manifest."""
        self._transfer(target, made.source.layers)
        with made.layer.content.open("rb") as stream:
            target.client.upload(
                target.reference.name, stream, digest=made.layer.layer.digest, size=made.layer.layer.size
            )
        target.client.upload(target.reference.name, made.configuration)

    def _keep(self, target: Named, image: Image) -> None:
        """Have an image of the index in the other repository as it is."""
        if target.place.name == self._unsigned.place.name or not isinstance(image.manifest, Manifest):
            return
        self._transfer(target, [image.manifest.config, *image.manifest.layers])
        target.client.push_manifest(target.reference.name, image.data, image.media_type)

    def _transfer(self, target: Named, blobs: Sequence[Descriptor]) -> None:
        for each in {each.digest: each for each in blobs}.values():
            if not any(word in each.media_type for word in _NOT_DISTRIBUTED):
                transfer(self._unsigned.place, target.place, each)

    def _name(self, target: Named, data: bytes, media_type: str) -> None:
        target.client.push_manifest(target.reference.name, data, media_type, target.reference.tag or "latest")


def _platform(entry: Descriptor) -> str:
    found = entry.platform
    return "/".join(filter(None, (found.os, found.architecture, found.variant))) if found else entry.digest


@contextmanager
def _about(entry: Descriptor) -> Iterator[None]:
    """Say of which image of an index an error is."""
    what = f"its image for {_platform(entry)}"
    try:
        yield
    except (ManifestError, LayerError, ImageError) as error:
        raise ImageError(f"{what} {_why(error)}") from None
    except Unavailable as error:
        raise Unavailable(f"{what}: {error}", error.retry_after_s) from None
    except Forbidden as error:
        raise Forbidden(f"{what}: {error}") from None


def _judged(
    wanted: Sequence[str], signed: Sequence[tuple[str, SignedLayer]], unsigned: Sequence[tuple[str, str]]
) -> list[str]:
    """Return what is to be told of an image, or of those of an index, with their platforms.

    `unsigned`: those without any of it, and why. Raises ImageError for a file that is named and in none of them: that
    only some have it may be as it should, as the paths of kernels differ.
    """
    nowhere = [each for each in modules.asked(wanted) if all(each in layer.absent for _, layer in signed)]
    if named := [each for each in nowhere if not glob.is_glob(each)]:
        platform, layer = signed[0]
        where = f"has no image with {modules.shown(named)}: its image for {platform} " if platform else ""
        raise ImageError(f"{where}{layer.why}")
    told = [f"nothing in it fits {modules.shown([each])}" for each in nowhere]
    told += [f"its image for {platform} is left unsigned: it {why}" for platform, why in unsigned]
    told += [
        f"its image for {platform} {layer.why}" for platform, layer in signed if set(layer.absent).difference(nowhere)
    ]
    more = len(told) - _TOLD_MOST
    return [*told[:_TOLD_MOST], f"and {more} more like that"] if more > 0 else told
