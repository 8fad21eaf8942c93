"""One suite for two servers: the embedded one, and a real control plane with `make e2e`."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apiserver import samples
from apiserver.client import Api, eventually
from apiserver.samples import core
from controlplane.controlplane import ControlPlane

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KINDS
from kmm.embedded.cluster import Cluster
from kmm.embedded.kubelet import Pace
from kmm.embedded.program import Exit, Run, idle

RESULT = "controlplane/outcome"  # as kwok's stages know it


@dataclass(frozen=True)
class Server:
    """A server under test. `api`: as an administrator."""

    name: str
    api: Api
    anonymous: Api
    stranger: Api
    user: str
    kubeconfig: Path
    forget: Callable[[], None]

    @property
    def embedded(self) -> bool:
        return self.name == "embedded"


async def program(run: Run) -> Exit:
    """Let a container end as its pod's annotation asks for, as kwok's stages do."""
    wanted = run.pod["metadata"].get("annotations", {}).get(RESULT)
    if wanted == "fail" and not run.hook:
        return Exit(code=1)
    if wanted == "run" and not run.hook:
        await run.stopped.wait()
        return Exit(code=143)
    return await idle(run)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory) -> Iterator[Server]:
    with Cluster(
        program=program, pace=Pace(relist_s=0.05, back_off_s=0.1), folder=tmp_path_factory.mktemp("embedded")
    ) as cluster:
        ca = cluster.ca_file
        yield Server(
            name="embedded",
            api=Api(cluster.url, ca, cluster.admin_token),
            anonymous=Api(cluster.url, ca, None),
            stranger=Api(cluster.url, ca, "wrong"),
            user="admin",
            kubeconfig=cluster.kubeconfig(),
            forget=cluster.compact,
        )


@pytest.fixture(scope="session")
def real(tmp_path_factory, programs) -> Iterator[Server]:
    with ControlPlane(tmp_path_factory.mktemp("controlplane")) as plane:
        yield Server(
            name="real",
            api=Api(plane.url, plane.ca_file, plane.admin_token),
            anonymous=Api(plane.url, plane.ca_file, None),
            stranger=Api(plane.url, plane.ca_file, "wrong"),
            user="admin",
            kubeconfig=plane.kubeconfig(),
            forget=lambda: plane.restart("kube-apiserver"),
        )


@pytest.fixture(scope="session", params=["embedded", pytest.param("real", marks=pytest.mark.e2e)])
def server(request) -> Server:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def api(server) -> Api:
    return server.api


@pytest.fixture(scope="session")
def definitions(api) -> None:
    """Our own kinds are there."""
    for kind in KINDS:
        register(api, custom_resource_definition(kind))


def register(api: Api, definition: dict[str, Any]) -> None:
    """Register a definition, and wait until its objects can be listed."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made = api.post(path, definition)
    assert made.code in (201, 409), made.body
    assert not made.warnings, made.warnings
    spec = definition["spec"]
    name = definition["metadata"]["name"]
    eventually(
        lambda: any(
            each["type"] == "Established" and each["status"] == "True"
            for each in api.get(f"{path}/{name}").body["status"].get("conditions") or ()
        ),
        f"{name} established",
    )
    listed = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    eventually(lambda: api.get(listed).code == 200, listed)


@pytest.fixture
def namespace(api) -> Iterator[str]:
    """A namespace of its own, furnished; it goes when the test is over, and nobody waits for that."""
    name = api.post("/api/v1/namespaces", {"metadata": {"generateName": "t-"}}).name
    eventually(lambda: api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default").code == 200)
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def maps(namespace) -> str:
    return core(namespace, "configmaps")


@pytest.fixture
def modules(definitions, namespace) -> str:
    return samples.modules(namespace)


_numbers = itertools.count()


@pytest.fixture
def node(api) -> Iterator[Callable[..., dict[str, Any]]]:
    """Make nodes that carry the label `lab=<value>`, of this test alone, beside others."""
    made = []
    lab = secrets.token_hex(4)

    def join(**labels: str) -> dict[str, Any]:
        name = f"n{next(_numbers)}-{lab}"
        body = samples.a_node(name, {"lab": lab, "kubernetes.io/hostname": name, **labels})
        answer = api.post("/api/v1/nodes", body)
        assert answer.code == 201, answer.body
        made.append(name)
        eventually(lambda: "taints" not in api.get(f"/api/v1/nodes/{name}").body["spec"], "taints gone")
        return answer.body

    join.lab = lab  # type: ignore[attr-defined]
    yield join
    for name in made:
        api.delete(f"/api/v1/nodes/{name}")
