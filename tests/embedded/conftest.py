"""A cluster of its own for each test: they are cheap."""

from __future__ import annotations

import pytest
from apiserver.client import Api, eventually

from kmm.embedded.cluster import Cluster
from kmm.embedded.kubelet import Pace

QUICK = Pace(relist_s=0.05, back_off_s=0.1)


@pytest.fixture
def start(tmp_path):
    """Start clusters, with a client each; they are stopped when the test is over."""
    running = []

    def begin(**options):
        cluster = Cluster(**{"pace": QUICK, "folder": tmp_path / f"cluster{len(running)}", **options})
        cluster.__enter__()
        running.append(cluster)
        cluster.add_node("n1", "6.1.0")
        api = Api(cluster.url, cluster.ca_file if cluster.url.startswith("https") else None, cluster.admin_token)
        eventually(lambda: api.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200)
        return cluster, api

    yield begin
    for cluster in running:
        cluster.__exit__(None, None, None)
