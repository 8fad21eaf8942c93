"""What Prometheus is told: the metrics that the Go operator has, and how long things take."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kmm.core import names
from kmm.core.images import BUILD, SIGN
from kmm.runtime.cluster import Cluster

_HOSTS, _OTHERS = 100, "others"  # hosts are users' words
_OURS = "kmm_"
_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15)


class Metrics:
    """The operator's metrics. What can be counted from what is known is counted when it is asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "kmm_seconds",
            "How long plans and actions take",
            ["what"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._failures = Counter(
            "kmm_watch_failures", "Watches that ended otherwise than by time", ["kind"], registry=self.registry
        )

        self._unobserved = Counter(
            "kmm_observe_failures",
            "Records that plugins were not told, or raised at, and metrics of theirs that could not be read",
            ["why"],
            registry=self.registry,
        )
        self._probes = Histogram(
            "kmm_registry_seconds",
            "How long questions to registries take, and how they end",
            ["registry", "outcome"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._hosts: set[str] = set()

    def of(self, cluster: Cluster) -> None:
        """Count what is known of a cluster whenever it is asked."""
        self.registry.register(_Known(cluster))

    def reconcile(self, controller: str) -> AbstractContextManager[None]:
        """Time one reconcile."""
        return self._timed(f"reconcile {controller}")

    def action(self, name: str) -> AbstractContextManager[None]:
        """Time one action."""
        return self._timed(f"action {name}")

    def watch_failed(self, kind: str) -> None:
        """Count a watch that ended."""
        self._failures.labels(kind).inc()

    def not_observed(self, why: str) -> None:
        """Count a record that a plugin was not told, or raised at."""
        self._unobserved.labels(why).inc()

    def probed(self, registry: str, outcome: str, seconds: float) -> None:
        """Count a question to a registry, by its host: of images there are too many."""
        self._hosts.add(registry if len(self._hosts) < _HOSTS else _OTHERS)
        self._probes.labels(registry if registry in self._hosts else _OTHERS, outcome).observe(seconds)

    def text(self) -> bytes:
        """Return all of it, and what plugins and this process tell of themselves, as Prometheus reads it."""
        others = b"".join(self._others())
        return generate_latest(self.registry) + others

    def _others(self) -> Iterator[bytes]:
        """Yield what is in the registry that everybody uses: what of it cannot be read is left out, and counted."""
        families = iter(REGISTRY.collect())
        while True:
            try:
                family = next(families)
                text = b"" if family.name.startswith(_OURS) else generate_latest(_Alone(family))
            except StopIteration:
                return
            except Exception:  # a plugin's collector may raise anything
                self.not_observed("unreadable")
                continue
            yield text

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        with self._seconds.labels(what).time():
            yield


class _Alone(Collector):
    """One family of metrics."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


class _Known:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def collect(self) -> Iterable[Any]:
        subjects = [
            each for item in self._cluster.modules.items() if (each := self._cluster.subject(*item.key)) is not None
        ]
        yield GaugeMetricFamily("kmm_module_num", "Number of Modules", len(subjects))
        for name, job_type in (("build", BUILD), ("sign", SIGN)):
            found = sum(self._tasks(job_type))
            yield GaugeMetricFamily(f"kmm_in_cluster_{name}_num", f"Number of {name} tasks", found)
        plugins = sum(
            item.value.daemon_set is not None and item.value.daemon_set.role == names.DEVICE_PLUGIN
            for item in self._cluster.daemon_sets.items()
        )
        yield GaugeMetricFamily("kmm_device_plugin_num", "Number of device plugin DaemonSets", plugins)
        yield GaugeMetricFamily("kmm_preflight_num", "Number of preflight validations", 0)
        arguments = GaugeMetricFamily(
            "kmm_modprobe_args", "Arguments of modprobe, by Module", labels=["name", "namespace", "modprobeArgs"]
        )
        for subject in subjects:
            loader = subject.spec.module_loader if subject.spec else None
            modprobe = loader.container.modprobe if loader and loader.container else None
            if modprobe:
                said = modprobe.args.load if modprobe.args and modprobe.args.load else modprobe.parameters
                arguments.add_metric([subject.ref.name, subject.ref.namespace, shlex.join(said)], 1)
        yield arguments

    def _tasks(self, job_type: str) -> Iterator[bool]:
        for store in self._cluster.tasks.values():
            for item in store.items():
                labels = ((item.value.manifest or {}).get("metadata") or {}).get("labels") or {}
                yield labels.get(names.JOB_TYPE) == job_type
