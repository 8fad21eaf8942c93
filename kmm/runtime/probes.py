"""Questions to registries, asked by plugins: one at a time for each image, in a pool of their own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kmm.catalog import Catalog
from kmm.contract import Access, Forbidden, Unavailable
from kmm.core.view import Answer, Denied, Missing, Present, Question, Subject, Unknown
from kmm.errors import PluginError
from kmm.oci import reference

DEADLINE_S = 20.0
_RETRY_S = 30.0
_LOG = logging.getLogger(__name__)


class Probes:
    """Asks registries. `answered` hears each answer, with the Module that wanted it."""

    def __init__(self, catalog: Catalog, answered: Callable[[Question, Answer, Subject], None]) -> None:
        self._catalog, self._answered = catalog, answered
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe")
        self._lock = threading.Lock()
        self._asked: dict[Question, list[Subject]] = {}

    def ask(self, question: Question, subject: Subject) -> None:
        """Ask, unless the same is being asked."""
        with self._lock:
            waiting = self._asked.get(question)
            if waiting is not None:
                if all(each.uid != subject.uid for each in waiting):
                    waiting.append(subject)
                return
            self._asked[question] = [subject]
        self._pool.submit(self._run, question)

    def stop(self) -> None:
        """Ask nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, question: Question) -> None:
        answer = self._inspect(question)
        with self._lock:
            subjects = self._asked.pop(question, [])
        for subject in subjects:
            self._answered(question, answer, subject)

    def _inspect(self, question: Question) -> Answer:
        try:
            host = reference.parse(question.image).host
            found = self._catalog.registry(host).inspect(question.image, Access(tls=question.tls), DEADLINE_S)
        except Forbidden as error:
            return Denied(message=str(error))
        except Unavailable as error:
            return Unknown(message=str(error), retry_at_s=time.time() + (error.retry_after_s or _RETRY_S))
        except (PluginError, reference.ReferenceError) as error:
            return Unknown(message=str(error), retry_at_s=time.time() + _RETRY_S)
        except Exception as error:  # a plugin may raise anything: that is no answer
            _LOG.exception("a registry plugin raised")
            return Unknown(
                message=f"the registry plugin raised {type(error).__name__}", retry_at_s=time.time() + _RETRY_S
            )
        if found is None:
            return Missing()
        return Present(digest=found.digest, architectures=tuple(found.architectures), annotations=found.annotations)
