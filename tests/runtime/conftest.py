"""The operator in this process, beside an embedded cluster, and with `make e2e` beside a real control plane too."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver import samples
from apiserver.client import Api, eventually
from apiserver.conftest import program
from apiserver.samples import a_module, core
from controlplane.controlplane import ControlPlane
from runtime import acted
from runtime.acted import Maker, Registry
from world import NAMESPACE, RealWorld, World

from kmm.catalog import Catalog
from kmm.config import Config
from kmm.embedded.cluster import Cluster
from kmm.embedded.kubelet import Pace as KubeletPace
from kmm.embedded.server import Entry
from kmm.loader import load_catalog
from kmm.runtime.app import App, Options
from kmm.runtime.controller import Pace
from kmm.runtime.lease import Terms
from kmm.runtime.transport import connect

CONFIG = dataclasses.replace(
    Config(), operator_namespace=NAMESPACE, metrics_address="127.0.0.1:0", health_address="127.0.0.1:0"
)
# The lease is not lost where the machine is too busy to renew it for a while: a process would be started again then.
QUICK = Options(
    terms=Terms(duration_s=60, renew_s=40, retry_s=0.2),
    pace=Pace(workers=4, node_every_s=0.05, status_every_s=0.05, taken_s=0.2),
)
# For one that comes after another: it need not wait for a lease that nobody has given back.
ALONE = dataclasses.replace(QUICK, elect=False)


class Operated(World):
    """A cluster, and operators that run against it in this process."""

    user = "operator"
    pause_s = 0.4  # as long a silence says that nobody has anything to do
    turns = 20  # in which all threads had a chance to say something, also where the machine stood still for a while

    def __init__(self, *world: Any) -> None:
        super().__init__(*world)
        self.catalog: Catalog = load_catalog()
        self.apps: list[App] = []

    def kubeconfig(self, user: str) -> Path:
        """Return what an operator that is known as `user` connects with."""
        raise NotImplementedError

    def entries(self, since: int = 0) -> list[Entry]:
        """Return this test's requests; on a real control plane, the operator's alone."""
        raise NotImplementedError

    def reach(self, node: str, *, reachable: bool) -> None:
        """Cut the kubelet of a node off from the cluster, or connect it again."""
        raise NotImplementedError

    def operator(
        self, options: Options | None = None, user: str = "", *, start: bool = True, config: Config = CONFIG
    ) -> App:
        """Start an operator. Only the first one seeks to lead, unless `options` say so."""
        options = options or (ALONE if self.apps else QUICK)
        app = App(config, self.catalog, connect(self.kubeconfig(user or self.user)), options)
        self.apps.append(app)
        if start:
            app.start()
        return app

    def mark(self) -> int:
        """Return where `entries` and `asked` are to begin to tell what is asked from now on."""
        return len(self.entries())

    def asked(self, since: int = 0, user: str = "") -> Counter[tuple[str, str]]:
        """Return the operator's requests but the lease's, by verb and resource."""
        return Counter(
            (each.verb, each.resource)
            for each in self.entries(since)
            if each.user == (user or self.user) and each.resource != "leases"
        )

    def quiet(self) -> None:
        """Wait until no operator has anything to do."""

        def settled() -> bool:
            before = self.mark()
            eventually(lambda: all(not app.controller.queue.depth() for app in self.apps if not app.ended.is_set()))
            for _ in range(self.turns):
                time.sleep(self.pause_s / self.turns)
            return not self.asked(before)

        eventually(settled, "nothing moves")

    def namespace(self, **labels: str) -> str:
        """Make a namespace beside the operator's."""
        body = {"metadata": {"generateName": "drivers-", "labels": labels}}
        name = self.api.post("/api/v1/namespaces", body).name
        eventually(lambda: self.api.get(f"{core(name, 'serviceaccounts')}/default").code == 200)
        return name

    def stop(self) -> None:
        """Stop the operators that run."""
        for app in self.apps:
            if not app.ended.is_set() or app.failed:
                app.stop()


class EmbeddedWorld(Operated):
    """An embedded cluster."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(Api(cluster.url, cluster.ca_file, cluster.admin_token))
        self.cluster = cluster
        self.furnish()
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            self.api.post(core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": name}})

    def kubeconfig(self, user: str) -> Path:
        return self.cluster.kubeconfig(self.cluster.token(user))

    def entries(self, since: int = 0) -> list[Entry]:
        return self.cluster.log[since:]

    def reach(self, node: str, *, reachable: bool) -> None:
        self.cluster.reach(node, reachable=reachable)


class PlaneWorld(RealWorld, Operated):
    """A real control plane, cleaned between tests; kwok acts the nodes, and runs nothing."""

    pause_s = 1.0

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        super().__init__(plane, folder)
        self._entries: list[Entry] = []
        self._told = 0
        self._kubeconfig = self.credentials("operator")

    def kubeconfig(self, user: str) -> Path:
        assert user == self.user, "its rights are that account's"
        return self._kubeconfig

    def entries(self, since: int = 0) -> list[Entry]:
        # A watch is told when it starts, as the embedded cluster does.
        told = {True: "ResponseStarted", False: "ResponseComplete"}
        lines = self.audit()
        self._entries += [
            _entry(each) for each in lines[self._told :] if each["stage"] == told[each["verb"] == "watch"]
        ]
        self._told = len(lines)
        return self._entries[since:]

    def denied(self) -> list[Entry]:
        """Return what the operator asked in this test and has no right to."""
        return [found for each in self.audit() if (found := _entry(each)).code in (401, 403)]

    def reach(self, node: str, *, reachable: bool) -> None:
        # kwok would heal the node at once: it stands still meanwhile, and its nodes live on for 50 s without it.
        if not reachable:
            self.plane.kill("kwok", signal.SIGSTOP)
            self._say_ready(f"/api/v1/nodes/{node}", "Unknown")
            return
        pods = self.api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node}").body["items"]
        for pod in pods:
            self._say_ready(f"{core(pod['metadata']['namespace'], 'pods')}/{pod['metadata']['name']}", "True")
        self.plane.kill("kwok", signal.SIGCONT)
        self._say_ready(f"/api/v1/nodes/{node}", "True")

    def _say_ready(self, path: str, value: str) -> None:
        conditions = self.api.get(path).body["status"]["conditions"]
        for each in conditions:
            if each["type"] in ("Ready", "ContainersReady"):
                each["status"] = value
        assert self.api.patch(f"{path}/status", {"status": {"conditions": conditions}}).code == 200

    def clear(self) -> None:
        """Take away what a test has left, so that the next one finds none of it."""
        self.plane.kill("kwok", signal.SIGCONT)
        self.stop()
        self.apps.clear()
        self.catalog = load_catalog()
        for path in (f"{samples.GROUP}/modules", "/apis/apps/v1/daemonsets", "/apis/batch/v1/jobs", "/api/v1/pods"):
            for each in self.api.get(path).body["items"]:
                self._take_away(path, each["metadata"])
        for plural in ("pods", "events", "configmaps", "secrets"):
            path = core(NAMESPACE, plural)
            self.api.delete(path, {"gracePeriodSeconds": 0})
        for each in self.api.get("/api/v1/namespaces").body["items"]:
            if each["metadata"]["name"].startswith("drivers-"):
                self.api.delete(f"/api/v1/namespaces/{each['metadata']['name']}")
        self.api.delete("/api/v1/nodes")
        self.api.delete(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases")
        for path in ("/apis/apps/v1/daemonsets", "/apis/batch/v1/jobs", "/api/v1/pods", "/api/v1/nodes"):
            eventually(lambda path=path: not self.api.get(path).body["items"], f"{path} are gone")
        self.audit().clear()
        self._entries.clear()
        self._told = 0

    def _take_away(self, path: str, meta: dict[str, Any]) -> None:
        base, _, plural = path.rpartition("/")
        path = f"{base}/namespaces/{meta['namespace']}/{plural}/{meta['name']}"
        if "finalizers" in meta:
            self.api.patch(path, {"metadata": {"finalizers": None}})
        self.api.delete(path, {"propagationPolicy": "Background", "gracePeriodSeconds": 0})


def _entry(said: dict[str, Any]) -> Entry:
    about = said.get("objectRef") or {}
    return Entry(
        user=said["user"]["username"],
        verb=said["verb"],
        resource=about.get("resource", ""),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        subresource=about.get("subresource", ""),
        code=said["responseStatus"]["code"],
        agent=said["userAgent"],
        at_s=0.0,
    )


def pytest_generate_tests(metafunc) -> None:
    """Let each scenario run on both clusters, but one that says why it can be on the embedded one alone."""
    if "world" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("embedded_only")
        real = [] if alone else [pytest.param("real", marks=pytest.mark.e2e)]
        metafunc.parametrize("world", ["embedded", *real], indirect=True)


@pytest.fixture(scope="session")
def plane(tmp_path_factory, programs) -> Iterator[PlaneWorld]:
    folder = tmp_path_factory.mktemp("plane")
    with ControlPlane(folder / "plane") as plane:
        yield PlaneWorld(plane, folder)


@pytest.fixture
def world(request, tmp_path) -> Iterator[Callable[..., Any]]:
    """Make worlds, each with some nodes; all of it is stopped when the test is over."""
    if request.param == "real":
        yield from _on_the_plane(request.getfixturevalue("plane"))
    else:
        yield from _embedded(tmp_path)


def _embedded(folder: Path) -> Iterator[Callable[..., EmbeddedWorld]]:
    made: list[EmbeddedWorld] = []

    def make(*, nodes: int = 3, kernels: int = 2, catalog: Catalog | None = None, **options: Any) -> EmbeddedWorld:
        defaults = {
            "pace": KubeletPace(relist_s=0.05, back_off_s=0.2),
            "program": program,
            "folder": folder / f"world{len(made)}",
        }
        cluster = Cluster(**{**defaults, **options})
        cluster.__enter__()
        found = EmbeddedWorld(cluster)
        made.append(found)
        found.catalog = catalog or found.catalog
        _join(found, nodes, kernels)
        return found

    yield make
    for each in made:
        each.stop()
        each.cluster.__exit__(None, None, None)


def _on_the_plane(world: PlaneWorld) -> Iterator[Callable[..., PlaneWorld]]:
    def make(*, nodes: int = 3, kernels: int = 2, catalog: Catalog | None = None) -> PlaneWorld:
        world.catalog = catalog or world.catalog
        world.grant(world.catalog)
        _join(world, nodes, kernels)
        return world

    try:
        yield make
        world.stop()
        assert not world.denied(), "its generated rights are enough"
    finally:
        world.clear()


def _join(world: Operated, nodes: int, kernels: int) -> None:
    for number in range(nodes):
        world.add_node(f"n{number}", f"6.{number % kernels}.0")


@pytest.fixture
def there(world) -> Callable[..., Any]:
    """Make a world with a Module that is loaded everywhere."""

    def make(*, nodes: int = 3, kernels: int = 2, module: dict[str, Any] | None = None, **options: Any) -> Any:
        found = world(nodes=nodes, kernels=kernels, **options)
        found.operator()
        answer = found.api.post(samples.modules(NAMESPACE), module or a_module())
        assert answer.code == 201, answer.body
        eventually(found.ready, "the Module is ready")
        return found

    return make


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def made(world, registry, maker) -> Callable[..., Any]:
    """Make a world with one kernel, a Dockerfile, signing Secrets, makers, and an operator."""
    catalog = acted.catalog(maker, registry)

    def make(*, config: Config = CONFIG, operated: Options = ALONE, **options: Any) -> Any:
        found = registry.world = world(**{"nodes": 2, "kernels": 1, "catalog": catalog, **options})
        acted.dockerfile(found, "FROM scratch")
        for name in ("key", "cert"):
            body = {"metadata": {"name": name}, "data": {name: "c2VjcmV0"}}
            assert found.api.post(core(NAMESPACE, "secrets"), body).code == 201
        found.operator(operated, config=config)
        return found

    return make
