"""The images that drivers are built in: what lists them is followed once a Dockerfile asks for one.

What an image's release file says is read once, for all Modules, and kept as long as the image is listed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kmm.catalog import Catalog
from kmm.contract import BaseImages
from kmm.core.base_images import newest_first, uses
from kmm.core.view import Answer, Listed, Present, Question, Unknown
from kmm.oci import reference
from kmm.runtime.kinds import path_of
from kmm.runtime.store import Item, Store
from kmm.runtime.transport import Transport
from kmm.runtime.watch import Source, Watch

_MOST = 1_000  # images of one list
_READ_MOST = 100  # of which release files are read, the newest first
_KERNELS_MOST = 20  # that one release file may name
_TEXT = 300  # what is kept of an error, or a word of a plugin's
_LOG = logging.getLogger(__name__)


class BaseImageLists:
    """What is known of base images. `changed` is called when it is more or other than before.

    `failed` hears of what goes wrong with a watch. In a cluster that does not have a list's kind, nothing is listed.
    """

    def __init__(
        self,
        transport: Transport,
        catalog: Catalog,
        lock: threading.RLock,
        changed: Callable[[], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._lock = lock
        self._lists = {
            argument: _List(offer, transport, lock, changed, failed)
            for argument, offer in catalog.base_images.items()
        }

    def plurals(self) -> list[str]:
        """Return the kinds that are followed where a Dockerfile asks for it."""
        listings = [each.offer.listing for each in self._lists.values()]
        return sorted({listing.kind.plural for listing in listings if listing})

    def follow(self, dockerfiles: Iterable[str]) -> None:
        """Follow, from now on, what lists the images that these Dockerfiles ask for."""
        waiting = [each for each in self._lists.values() if not each.followed]
        for text in dockerfiles if waiting else ():
            for each in waiting:
                if uses(text, each.offer.argument):
                    each.start()

    def known(self) -> Mapping[str, Listed | Unknown]:
        """Return what is known, by the build argument."""
        with self._lock:
            return {argument: each.known() for argument, each in self._lists.items()}

    def learn(self, question: Question, answer: Answer) -> None:
        """Learn what an image holds."""
        if not isinstance(answer, Present):
            return
        for each in self._lists.values():
            if each.offer.release_file in question.files:
                each.learn(question.image, answer.files.get(each.offer.release_file, b""))

    def stop(self) -> None:
        """Follow nothing any more."""
        for each in self._lists.values():
            each.stop()


class _List:
    """The images of one plugin."""

    def __init__(
        self,
        offer: BaseImages,
        transport: Transport,
        lock: threading.RLock,
        changed: Callable[[], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self.offer = offer
        self._lock, self._changed, self._told = lock, changed, failed
        self._known: Listed | None = None
        self._why = "it has not been read yet"
        self._kernels: dict[str, tuple[str, ...]] = {}  # by the image
        self._store: Store[Mapping[str, str] | Unknown] = Store(lock)
        self._store.heard.append(self._heard)
        self._store.on_sync.append(self._synced)
        self._watch: Watch[Mapping[str, str] | Unknown] | None = None
        self.followed = offer.listing is None
        if offer.listing is not None:
            path = path_of(offer.listing.kind, offer.listing.namespace)
            source = Source(path=path, name=offer.listing.name, trim=self._images, optional=True)
            self._watch = Watch(transport, source, self._store, self._failed)

    def start(self) -> None:
        with self._lock:
            if self._watch is not None and not self.followed:
                self.followed = True
                self._watch.start()

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def known(self) -> Listed | Unknown:
        """Return what is known. To be called under the lock."""
        if self._watch is not None and not self._store.synced.is_set():
            return Unknown(message=self._why)
        if self._known is None:
            items = self._store.items()
            listed = items[0].value if items else self._images(None)
            if isinstance(listed, Unknown):
                return listed
            images = [listed[version] for version in newest_first(listed)]
            self._kernels = {image: self._kernels[image] for image in images if image in self._kernels}
            found: dict[str, str] = {}
            for image in images:
                found |= {kernel: image for kernel in self._kernels.get(image, ()) if kernel not in found}
            unread = dict.fromkeys(image for image in images[:_READ_MOST] if image not in self._kernels)
            self._known = Listed(by_version=listed, by_kernel=found, unread=tuple(unread))
        return self._known

    def learn(self, image: str, release: bytes) -> None:
        """Learn the release file of an image; none where it has no such file."""
        try:
            kernels = tuple(str(each)[:_TEXT] for each in self.offer.kernels(release)[:_KERNELS_MOST])
        except Exception as error:  # a plugin may raise anything: it is told, and the image is for no kernel
            _LOG.error("%s cannot read the release file of %s: %s", self.offer.name, image, type(error).__name__)
            kernels = ()
        with self._lock:
            self._kernels[image] = kernels
            self._known = None

    def _images(self, listing: Mapping[str, Any] | None) -> Mapping[str, str] | Unknown:
        try:
            found = dict(list(self.offer.images(listing).items())[:_MOST])
            if not all(isinstance(each, str) for pair in found.items() for each in pair):
                raise TypeError("what is no text")  # noqa: TRY301 -- as what else a plugin may do wrong
            # A tag that is broken would be asked for, or built with, in vain.
            found = {version: image for version, image in found.items() if _is_image(image)}
        except Exception as error:  # a plugin may raise anything, and must not end the watch
            _LOG.error("%s cannot read its list: %s", self.offer.name, type(error).__name__)
            return Unknown(message=f"{self.offer.name} cannot read its list: {type(error).__name__}")
        return found

    def _heard(self, _before: Item[Any] | None, _after: Item[Any] | None) -> None:
        self._known = None
        if self._store.synced.is_set():
            self._changed()

    def _synced(self) -> None:
        self._changed()

    def _failed(self, kind: str, error: Exception) -> None:
        self._told(kind, error)
        why = f"the API server did not say: {error}"[:_TEXT]
        if not self._store.synced.is_set() and why != self._why:
            self._why = why
            self._changed()


def _is_image(text: str) -> bool:
    try:
        reference.parse(text)
    except reference.ReferenceError:
        return False
    return True
