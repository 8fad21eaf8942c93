"""The operator beside an embedded cluster, in one process."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import Any

import pytest
from apiserver.client import Api, eventually
from apiserver.samples import core
from world import NAMESPACE, World

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
QUICK = Options(
    terms=Terms(duration_s=3, renew_s=2, retry_s=0.2),
    pace=Pace(workers=4, node_every_s=0.05, status_every_s=0.05, taken_s=0.2),
)


class EmbeddedWorld(World):
    """An embedded cluster, and operators that run against it."""

    def __init__(self, cluster: Cluster, catalog: Any = None) -> None:
        super().__init__(Api(cluster.url, cluster.ca_file, cluster.admin_token))
        self.cluster, self.catalog = cluster, catalog or load_catalog()
        self.apps: list[App] = []

    def furnish(self, nodes: int = 3, kernels: int = 2) -> None:
        """Make our kinds, the operator's namespace and some nodes."""
        super().furnish()
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            self.api.post(core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": name}})
        for number in range(nodes):
            self.cluster.add_node(f"n{number}", f"6.{number % kernels}.0", labels={"a": "b"})

    def operator(self, options: Options = QUICK, user: str = "operator", start: bool = True) -> App:
        """Start an operator."""
        token = self.cluster.token(user)
        app = App(CONFIG, self.catalog, connect(self.cluster.kubeconfig(token)), options)
        self.apps.append(app)
        if start:
            app.start()
        return app

    def asked(self, since: int = 0, user: str = "operator") -> Counter[tuple[str, str]]:
        """Return the operator's requests but the lease's, by verb and resource."""
        return Counter(
            (each.verb, each.resource)
            for each in self.entries(since)
            if each.user == user and each.resource != "leases"
        )

    def entries(self, since: int = 0) -> list[Entry]:
        return self.cluster.log[since:]

    def quiet(self) -> None:
        """Wait until no operator has anything to do."""

        def settled() -> bool:
            before = len(self.cluster.log)
            eventually(lambda: all(not app.controller.queue.depth() for app in self.apps if not app.ended.is_set()))
            time.sleep(0.4)
            return not self.asked(before)

        eventually(settled, "nothing moves")


@pytest.fixture
def world(tmp_path) -> Any:
    """Make worlds; all of it is stopped when the test is over."""
    made: list[tuple[Cluster, EmbeddedWorld]] = []

    def make(*, nodes: int = 3, kernels: int = 2, catalog: Any = None, **options: Any) -> EmbeddedWorld:
        cluster = Cluster(
            **{
                "pace": KubeletPace(relist_s=0.05, back_off_s=0.2),
                "folder": tmp_path / f"world{len(made)}",
                **options,
            }
        )
        cluster.__enter__()
        found = EmbeddedWorld(cluster, catalog)
        made.append((cluster, found))
        found.furnish(nodes, kernels)
        return found

    yield make
    for cluster, found in made:
        for app in found.apps:
            if not app.ended.is_set() or app.failed:
                app.stop()
        cluster.__exit__(None, None, None)
