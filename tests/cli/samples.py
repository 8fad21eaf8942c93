"""What operators have written, as it were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from apiserver.samples import a_module, modules
from runtime.conftest import NAMESPACE

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
LEASE = "kmm.sigs.x-k8s.io"


def written(world, name="m", namespace=NAMESPACE, generation=1, **said):
    """Make a Module whose status an operator has written, as it were."""
    assert world.api.post(modules(namespace), a_module(name)).code == 201
    answer = world.api.patch(
        f"{modules(namespace)}/{name}/status", {"status": {"observedGeneration": generation, **said}}
    )
    assert answer.code == 200, answer.body


def condition(reason, *, holds=False, kind="Ready", message=""):
    value = "True" if holds else "False"
    return {"type": kind, "status": value, "reason": reason, "message": message, "observedGeneration": 1}


def kernel(name, reason, state="Failed", **more):
    return {"kernelVersion": name, "nodes": 2, "reason": reason, "state": state, **more}


def lease(world, *, ago_s=0.0, holder="somebody", namespace=NAMESPACE, duration_s=15, **more):
    at = (datetime.now(UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration_s, "renewTime": at, "acquireTime": at, **more}
    answer = world.api.post(LEASES.format(namespace), {"metadata": {"name": LEASE}, "spec": spec})
    assert answer.code == 201, answer.body
