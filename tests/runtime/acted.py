"""Who makes images and where they end up, acted: a builder and signer whose Jobs push, and a registry."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

from apiserver.samples import a_module, core, modules
from world import NAMESPACE

from kmm.catalog import Catalog, Plugin, build_catalog
from kmm.contract import (
    CERTIFICATE_ANNOTATION,
    INPUTS_ANNOTATION,
    BuildRequest,
    ImageInfo,
    Kind,
    Progress,
    SignRequest,
    State,
    Unavailable,
)
from kmm.loader import load_catalog

P = "kmm.node.kubernetes.io/"
HOST = "registry.example.com"
IMAGE = f"{HOST}/m:6.0.0"
TEMPORARY = f"{IMAGE}-{NAMESPACE}_m_kmm_unsigned"
DIGEST = "sha256:" + "0" * 64
JOB = Kind(api_version="batch/v1", kind="Job", plural="jobs")


def over(job: Mapping[str, Any], how: str = "Complete") -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any((each["type"], each["status"]) == (how, "True") for each in conditions)


def pushes(job: Mapping[str, Any]) -> str:
    """Return the image that a Job pushes."""
    return job["spec"]["template"]["spec"]["containers"][0]["args"][0]


class Maker:
    """Renders a Job that pushes an image; `params.outcome` says how it ends. `requests`: what it was asked for."""

    name = "maker"
    owns = (JOB,)
    requires = ()
    says = "it came to nothing"

    def __init__(self) -> None:
        self.requests: list[BuildRequest | SignRequest] = []

    def render(self, request):
        self.requests.append(request)
        if isinstance(request, BuildRequest):
            recorded = f"{INPUTS_ANNOTATION}={request.inputs}"
        else:
            recorded = f"{CERTIFICATE_ANNOTATION}={request.certificate}"
        pod = {
            "restartPolicy": "Never",
            "containers": [{"name": "make", "image": f"{HOST}/maker:1", "args": [request.image, recorded]}],
            "nodeSelector": dict(request.node_selector),
            "tolerations": list(request.tolerations),
        }
        annotations = {"controlplane/outcome": request.params.get("outcome", "")}
        template = {"metadata": {"annotations": annotations}, "spec": pod}
        return [{"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 0, "template": template}}]

    def observe(self, objects, pods):
        if any(map(over, objects)):
            return Progress(state=State.SUCCEEDED)
        if any(over(each, "Failed") for each in objects):
            return Progress(state=State.FAILED, message=self.says)
        return Progress(state=State.RUNNING)


def for_two_architectures(maker):
    """Let a maker render a Job for each of two architectures."""
    alone = maker.render

    def render(request):
        (one,) = alone(request)
        other = copy.deepcopy(one)
        other["spec"]["template"]["spec"]["containers"][0]["args"][0] += "-arm64"
        return [one, other]

    def observe(objects, _pods):
        ended = all(over(each) or over(each, "Failed") for each in objects)
        return Progress(state=State.SUCCEEDED if ended else State.RUNNING)

    maker.render, maker.observe = render, observe


class Registry:
    """Has what was put there, and what Jobs that succeeded have pushed. `mute`: it says nothing of the latter.

    `images`: what is recorded in each. `loses`: what is pushed is not there. `asked`: for which images.
    """

    name = "acted"
    hosts = (HOST,)

    def __init__(self) -> None:
        self.world: Any = None
        self.images: dict[str, dict[str, str]] = {}
        self.pushed: list[str] = []
        self.asked: list[str] = []
        self.mute = self.loses = False
        self._heard: set[str] = set()
        self._lock = threading.Lock()

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        with self._lock:
            self.asked.append(image)
            done = [each for each in self.world.jobs() if over(each) and each["metadata"]["uid"] not in self._heard]
            if self.mute and image in map(pushes, done):
                raise Unavailable("it is busy", retry_after_s=0.2)
            for job in () if self.loses else done:
                self._heard.add(job["metadata"]["uid"])
                made, recorded = job["spec"]["template"]["spec"]["containers"][0]["args"]
                self.pushed.append(made)
                self.images[made] = dict([recorded.split("=", 1)])
            if image not in self.images:
                return None
            return ImageInfo(digest=DIGEST, annotations=self.images[image])


def catalog(maker: Maker, registry: Registry) -> Catalog:
    """Return what is installed, with these in the place of other registries and builders."""
    plugin = Plugin(
        name="acted", distribution="acted", version="1", builders=(maker,), signers=(maker,), registries=(registry,)
    )
    # An installed one must not answer, nor build, in its place.
    others = [each for each in load_catalog().plugins if not (each.registries or each.builders or each.signers)]
    return build_catalog([*others, plugin])


# ── What the tests do in such a world ─────────────────────────────────────────────────────────────────────────


def dockerfile(world, text, name="d"):
    path = core(NAMESPACE, "configmaps")
    body = {"metadata": {"name": name}, "data": {"dockerfile": text}}
    if world.api.get(f"{path}/{name}").code == 200:
        assert world.api.patch(f"{path}/{name}", body).code == 200
    else:
        assert world.api.post(path, body).code == 201


def build(outcome="", **more):
    return {"build": {"dockerfileConfigMap": {"name": "d"}, "params": {"outcome": outcome}, **more}}


def sign(outcome="", **more):
    secrets = {"keySecret": {"name": "key"}, "certSecret": {"name": "cert"}}
    return {"sign": {**secrets, "params": {"outcome": outcome}, **more}}


def spec(**mapping):
    """Return a specification with one mapping for all kernels."""
    mapping = {"regexp": ".*", "containerImage": f"{HOST}/m:${{KERNEL_FULL_VERSION}}", **mapping}
    return {"moduleLoader": {"container": {"modprobe": {"moduleName": "m"}, "kernelMappings": [mapping]}}}


def post(world, name="m", **mapping):
    answer = world.api.post(modules(NAMESPACE), a_module(name, **spec(**mapping)))
    assert answer.code == 201, answer.body


def change(world, **mapping):
    answer = world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": spec(**mapping)})
    assert answer.code == 200, answer.body


def secret(world, name, data, kind="Opaque"):
    """Make a Secret, or give one other contents."""
    path = core(NAMESPACE, "secrets")
    body = {"metadata": {"name": name}, "stringData": data, "type": kind}
    if world.api.get(f"{path}/{name}").code == 200:
        assert world.api.patch(f"{path}/{name}", body).code == 200
    else:
        assert world.api.post(path, body).code == 201


def state(world):
    found = world.kernel("6.0.0")
    return found.get("reason"), found.get("attempts", 0)


def attempts(world):
    return sorted(each["metadata"]["annotations"][f"{P}attempt"] for each in world.jobs())


def nothing_left(world):
    """Neither tasks nor their pods: a bare delete of a Job would leave those."""
    return not world.jobs() and {each["metadata"]["labels"].get(f"{P}role") for each in world.pods()} <= {
        "module-loader"
    }
