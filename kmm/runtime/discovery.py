"""Whether the API server has OpenShift's builds: asked until it has said, and never again."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping

from kmm.core.view import Unknown
from kmm.errors import KmmError
from kmm.runtime.transport import NotFound, Transport

_BUILDS = "build.openshift.io/v1"
_TIMEOUT_S = 5.0
_RETRY_S, _RETRY_MOST_S = 1.0, 60.0
_TEXT = 300  # what is kept of the API server's words
_LOG = logging.getLogger(__name__)


class Discovery:
    """Asks at once, and while that is not answered again, later and later, in a thread of its own.

    `said`: whether it has them, or why that is not known. `learned` is called once, when it comes to be known late.
    `retry_s`: the first delay, doubled each time.
    """

    def __init__(self, transport: Transport, learned: Callable[[], None], *, retry_s: float = _RETRY_S) -> None:
        self._transport, self._learned, self._retry_s = transport, learned, retry_s
        self._stopping = threading.Event()
        self.said: bool | Unknown = Unknown(message="it has not been asked")

    def start(self) -> None:
        """Ask, and where there is no answer go on asking in the background."""
        self.said = has_openshift_builds(self._transport)
        if isinstance(self.said, Unknown):
            threading.Thread(target=self._run, name="discovery", daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()

    def _run(self) -> None:
        delay_s = self._retry_s
        while isinstance(self.said, Unknown):
            _LOG.warning("whether the API server has %s is not known: %s", _BUILDS, self.said.message)
            # Not in step with other operators.
            if self._stopping.wait(delay_s * random.uniform(0.8, 1.2)):  # noqa: S311 -- nothing is to be guessed
                return
            delay_s = min(delay_s * 2, _RETRY_MOST_S)
            self.said = has_openshift_builds(self._transport)
        _LOG.info("the API server %s", f"has {_BUILDS}" if self.said else f"does not have {_BUILDS}")
        self._learned()


def has_openshift_builds(transport: Transport) -> bool | Unknown:
    """Ask once. Only a list of resources means yes, and only "not found" means no."""
    try:
        found = transport.ask("GET", f"/apis/{_BUILDS}", timeout_s=_TIMEOUT_S).read()
    except NotFound:
        return False
    except KmmError as error:
        return Unknown(message=str(error)[:_TEXT])
    if isinstance(found, Mapping) and found.get("groupVersion") == _BUILDS:
        return True
    return Unknown(message="its answer is no list of resources")
