"""Images come from registries, in each way in which these are met."""

from __future__ import annotations

import asyncio

import pytest
from apiserver.client import eventually
from apiserver.samples import core

from kmm.contract import Access, Credential, Tls
from kmm.embedded.account import Account
from kmm.embedded.kubelet import PullError
from kmm.embedded.pull import from_registry
from kmm.embedded.registry import Registry
from kmm.embedded.registry_fault import RegistryFault, Trouble

PODS = core("default", "pods")


ASKING = [pytest.param(("basic", True), id="basic"), pytest.param(("bearer", True), id="bearer")]


@pytest.fixture(params=[pytest.param(("none", False), id="http"), *ASKING])
def registry(request):
    auth, tls = request.param
    users = {"node": Account(password="hidden", pull=("team/*",)), "nobody": Account(password="hidden", pull=())}
    with Registry(auth=auth, tls=tls, users=users) as found:
        yield found


def access(registry, user="node", wrong="") -> dict[str, Access]:
    credentials = (Credential(username=user, password=wrong or "hidden"),) if registry.ca_pem else ()
    tls = Tls(insecure=not registry.ca_pem)
    return {registry.host: Access(credentials=credentials, tls=tls, ca_pem=registry.ca_pem or None)}


def said(image, *known, **options) -> str:
    """Return why an image cannot be pulled."""
    with pytest.raises(PullError) as error:
        asyncio.run(from_registry(*known, **options)(image, {}))
    assert "hidden" not in str(error.value)
    return str(error.value)


def test_a_kubelet_finds_what_is_there_and_says_what_is_not(start, registry):
    digest = registry.push_image("team/there:1", {"/a": b"a"})
    registry.push_index("team/index:1", {"amd64": registry.push_image("team/index", {"/a": b"a"})})
    _, api = start(pull=from_registry(access(registry)))

    def state(name) -> dict:
        statuses = api.get(f"{PODS}/{name}").body["status"].get("containerStatuses")
        return statuses[0] if statuses else {"ready": False, "state": {}}

    images = {"tag": "there:1", "digest": f"there@{digest}", "index": "index:1", "missing": "missing:1"}
    for name, image in images.items():
        container = {"name": "c", "image": f"{registry.host}/team/{image}"}
        body = {"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": [container]}}
        assert api.post(PODS, body).code == 201
    for name in ("tag", "digest", "index"):
        eventually(lambda name=name: state(name)["ready"], name)
    message = eventually(lambda: state("missing")["state"].get("waiting", {}).get("message"))
    assert f"{registry.host}/team/missing:1: not found" in message


@pytest.mark.parametrize("registry", ASKING, indirect=True)
def test_whom_a_registry_does_not_know_it_denies(registry):
    registry.push_image("team/there:1", {"/a": b"a"})
    image = f"{registry.host}/team/there:1"
    for known in (access(registry, wrong="wr0ng"), access(registry, user="nobody")):
        denied = said(image, known)
        assert "pull access denied, repository does not exist or may require authorization" in denied
        assert "wr0ng" not in denied
    assert "failed to do request" in said(image), "its authority is nobody's"


def test_what_cannot_be_asked_is_not_said_to_be_missing(registry):
    image = f"{registry.host}/team/there:1"
    registry.faults.add(RegistryFault(kind=Trouble.REFUSE, code=503, on=("manifest",), times=None))
    assert "failed to do request" in said(image, access(registry))
    registry.faults.clear()
    registry.faults.add(RegistryFault(kind=Trouble.HANG, times=None))
    assert "failed to do request" in said(image, access(registry), timeout_s=0.2)
    with registry.down():
        assert "failed to do request" in said(image, access(registry))


def test_what_is_no_reference_is_not_asked_for():
    assert "failed to resolve image" in said("UPPER/case")
