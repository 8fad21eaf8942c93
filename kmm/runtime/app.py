"""The operator, put together: started, led, stopped."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kmm import __version__
from kmm.catalog import Catalog
from kmm.config import Config
from kmm.core.view import Answer, Operator, Question, Subject
from kmm.errors import ConfigError, KmmError
from kmm.runtime.advice import advice
from kmm.runtime.announce import Announcer
from kmm.runtime.base_images import BaseImageLists
from kmm.runtime.carry_out import Hands
from kmm.runtime.cluster import Cluster
from kmm.runtime.controller import Controller, Pace
from kmm.runtime.credentials import Credentials
from kmm.runtime.discovery import Discovery
from kmm.runtime.health import Endpoint
from kmm.runtime.leader import LEASE_NAME, written
from kmm.runtime.lease import Elector, Terms
from kmm.runtime.masking import Masks
from kmm.runtime.metrics import Metrics
from kmm.runtime.observers import Observers
from kmm.runtime.probes import Patience, Probes
from kmm.runtime.references import References
from kmm.runtime.secret import read_secret
from kmm.runtime.transport import ApiError, Transport
from kmm.runtime.unloads import Unloads
from kmm.runtime.watch import Source, Watch

_STOP_S = 8.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What tests set otherwise."""

    terms: Terms = field(default_factory=Terms)
    pace: Pace = field(default_factory=Pace)
    patience: Patience = field(default_factory=Patience)
    elect: bool = True


class App:
    """One operator. `start` returns at once; `ended` is set when it has stopped leading, or was stopped."""

    def __init__(
        self, config: Config, catalog: Catalog, transport: Transport, options: Options | None = None
    ) -> None:
        options = options or Options(terms=Terms.lasting(max(3, config.lease_duration_seconds)))
        transport.write_timeout_s = options.terms.write_s
        self._options = options
        self._config, self._catalog, self.transport = config, catalog, transport
        self.ended = threading.Event()
        self.failed = False
        self.metrics = Metrics()
        self._discovery = Discovery(transport, self._discovered)
        self.cluster = Cluster(
            catalog, operator_of(config, transport), lambda: self._discovery.said, slots=config.max_builds
        )
        self._announcer = Announcer(transport)
        self._observers = Observers(catalog, self.metrics)
        self._references = References(
            transport, self.cluster.operator, catalog, self.cluster.lock, self._changed_in, self._watch_failed
        )
        self._base_images = BaseImageLists(
            transport, catalog, self.cluster.lock, self._discovered, self._watch_failed
        )
        self._unloads = Unloads(transport, self.cluster, self._announcer.tell, self._watch_failed)
        credentials = Credentials(config, transport, self._references)
        self._probes = Probes(catalog, credentials.access, self._answered, self.metrics, options.patience)
        hands = Hands(transport, self.cluster, self._probes.ask, self._announcer.tell)
        self.controller = Controller(
            self.cluster,
            hands,
            self._references,
            self._base_images,
            self._unloads,
            Masks(transport),
            partial(read_secret, transport),
            self._observers,
            self.metrics,
            options.pace,
        )
        self.metrics.of(self.cluster)
        self.controller.forgetters.append(self._probes.forget)
        self._watches = [
            Watch(transport, source, store, partial(self._not_followed, source))
            for source, store in self.cluster.followed
        ]
        identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        self.elector = Elector(
            transport,
            config.namespace,
            LEASE_NAME,
            identity,
            self.controller.start,
            self._lost,
            options.terms,
            written(identity, catalog.refusals),
        )
        if options.elect:
            transport.guard = self.elector.guard
        self._endpoints = [
            Endpoint(config.metrics_address, {"/metrics": lambda: (True, self.metrics.text())}),
            Endpoint(config.health_address, {"/healthz": self._alive, "/readyz": self._ready}),
        ]

    def start(self) -> None:
        """Watch, serve, and seek to lead."""
        _LOG.info("starting kmm %s against %s", __version__, self.transport.host)
        _LOG.info("metrics at %s, health at %s", *(endpoint.address for endpoint in self._endpoints))
        for refusal in self._catalog.refusals:
            _LOG.warning("plugin %s is not used: %s: %s", refusal.name, refusal.reason, refusal.message)
        for plugin in self._catalog.plugins:
            for each in plugin.deprecated:
                _LOG.warning("plugin %s uses what will go: %s", plugin.name, each)
        for controller, watched in self.controller.watched().items():
            _LOG.info("controller %s watches %s", controller, ", ".join(watched))
        for endpoint in self._endpoints:
            endpoint.start()
        if not self._config.builder:  # else it decides nothing
            self._discovery.start()
        self._announcer.start()
        self._probes.start()
        self._observers.start()
        for watch in self._watches:
            watch.start()
        if self._options.elect:
            self.elector.start()
        else:
            self.controller.start()

    def stop(self) -> None:
        """Finish what is under way, give the lease back, and stop: within 10 s, whatever hangs."""
        _LOG.info("stopping")
        until = time.monotonic() + _STOP_S

        def left_s(most_s: float) -> float:
            return max(0.1, min(most_s, until - time.monotonic()))

        self._discovery.stop()
        self.controller.stop(left_s(_STOP_S / 2))
        self._probes.stop()
        self._observers.stop()
        self._announcer.stop(left_s(_STOP_S / 4))
        for watch in self._watches:
            watch.stop()
        self._references.stop()
        self._base_images.stop()
        self._unloads.stop()
        if self._options.elect:
            self.elector.release(left_s(_STOP_S))
        for endpoint in self._endpoints:
            endpoint.stop()
        _LOG.info("stopped")
        self.ended.set()

    def _alive(self) -> tuple[bool, bytes]:
        dead = [f"the watch of {each.source.plural} has ended" for each in self._watches if not each.is_alive()]
        return not dead, ("\n".join(dead or ["ok"]) + "\n").encode()

    def _ready(self) -> tuple[bool, bytes]:
        unsynced = [*self.cluster.unsynced(), *self._references.unsynced()]
        lines = [f"not synced: {each}" for each in unsynced]
        # Only who needs them waits for these.
        lines += [f"not listed: {kind.plural}: {why}" for kind, why in self.cluster.unlisted().items()]
        lines += [f"plugin refused: {each.name}: {each.reason}" for each in self._catalog.refusals]
        return not unsynced, ("\n".join([*lines, "ready" if not unsynced else "not ready"]) + "\n").encode()

    def _watch_failed(self, kind: str, error: Exception) -> None:
        self.metrics.watch_failed(kind)
        level = logging.WARNING if isinstance(error, ApiError) else logging.INFO
        _LOG.log(level, "watch of %s: %s", kind, advice(error, self.transport.host))

    def _not_followed(self, source: Source[Any], kind: str, error: Exception) -> None:
        self._watch_failed(kind, error)
        if self.cluster.not_listed(source, error):
            self.controller.reconsider()

    def _answered(self, question: Question, answer: Answer, subject: Subject, fresh_s: float) -> None:
        self.controller.answered(question, answer, subject, fresh_s)

    def _discovered(self) -> None:
        self.controller.reconsider()

    def _changed_in(self, namespace: str) -> None:
        self.controller.changed_in(namespace)

    def _lost(self) -> None:
        # Another one may lead by now: nothing but a fresh start is safe.
        self.failed = True
        self.ended.set()


def operator_of(config: Config, transport: Transport) -> Operator:
    """Return what the configuration and the cluster say.

    Raises:
        ConfigError: the API server cannot be reached, or refuses.
    """
    try:
        groups = transport.ask("GET", "/apis", timeout_s=10).read()["groups"]
    except KmmError as error:
        raise ConfigError(advice(error, transport.host)) from None
    except (KeyError, TypeError):
        raise ConfigError(f"{transport.host} does not answer as an API server does: is the address right?") from None
    found = {each["name"] for each in groups}
    return Operator(
        namespace=config.namespace,
        openshift="security.openshift.io" in found,
        privileged_namespaces=frozenset(config.privileged_namespaces),
        denied_means_missing=frozenset(
            host for host, registry in config.registries.items() if registry.denied_means_missing
        ),
        max_unavailable=_number_or_percent(config.max_unavailable),
        builder=config.builder,
        signer=config.signer,
        device_plugin=config.device_plugin or "daemonset",
    )


def _number_or_percent(text: str | None) -> int | str:
    text = text or "1"
    if text.isdecimal():
        return int(text)
    if text.endswith("%") and text[:-1].isdecimal():
        return text
    raise ConfigError(f'maxUnavailable: "{text}" must be a number, such as 1, or a percentage, such as 10%')
