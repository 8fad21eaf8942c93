"""Modules on OpenShift, end to end: Builds, and the driver toolkit that the ImageStream lists."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import replace

import openshift
import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, core, modules
from openshift import NEW, OLD, TOOLKIT
from runtime.conftest import CONFIG, NAMESPACE, QUICK
from runtime.test_identity import page

from kmm.catalog import Plugin, build_catalog
from kmm.contract import INPUTS_ANNOTATION, Forbidden, ImageInfo
from kmm.embedded.fault import Fault, Kind
from kmm.loader import load_catalog

ALONE = replace(QUICK, elect=False)
DIGEST = "sha256:" + "0" * 64
FAULTS = pytest.mark.embedded_only("faults are made in the embedded server")
DTK = "ARG DTK_AUTO\nFROM ${DTK_AUTO}"
RHEL = "Red Hat Enterprise Linux 9.4 (Plow)"
KERNEL = "6.0.0"


class Registry:
    """Has what Builds have pushed, and toolkits whose release files name `kernels`. `opened`: those that it read."""

    name = "acted"
    hosts = ("*",)

    def __init__(self):
        self.images: dict[str, str] = {}
        self.kernels: dict[str, str] = {}
        self.opened: list[str] = []
        self.refuses = False
        self.lock = threading.Lock()

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        with self.lock:
            if not files:
                inputs = self.images.get(image)
                return ImageInfo(digest=DIGEST, annotations={INPUTS_ANNOTATION: inputs}) if inputs else None
            self.opened.append(image)
            if self.refuses:
                raise Forbidden("it is refused")
            if image not in self.kernels:
                return ImageInfo(digest=DIGEST)
            release = json.dumps({"KERNEL_VERSION": self.kernels[image]}).encode()
            return ImageInfo(digest=DIGEST, files=dict.fromkeys(files, release))


@pytest.fixture
def images():
    return Registry()


@pytest.fixture
def there(world, images):
    """Make a world that is OpenShift as far as is asked, with nodes of that operating system."""
    made = []

    def make(
        *, builds=True, streams=True, os_image=f"Red Hat Enterprise Linux CoreOS {OLD}", toolkits=None, **options
    ):
        installed = [each for each in load_catalog().plugins if not each.registries]
        plugin = Plugin(name="acted", distribution="acted", version="1", registries=(images,))
        found = world(**{"nodes": 1, "kernels": 1, "catalog": build_catalog([*installed, plugin]), **options})
        made.append(found)
        if builds:
            openshift.add_builds(found.api)
        if streams:
            openshift.add_image_streams(found.api)
            openshift.set_toolkits(found.api, {OLD: f"{TOOLKIT}old"} if toolkits is None else toolkits)
        for each in found.api.get("/api/v1/nodes").body["items"]:
            says(found, each["metadata"]["name"], os_image)
        return found

    yield make
    for each in made:
        each.stop()
        openshift.remove(each.api)


def says(world, node, os_image):
    """Let a node say which operating system it runs."""
    patch = {"status": {"nodeInfo": {"osImage": os_image}}}
    assert world.api.patch(f"/api/v1/nodes/{node}/status", patch).code == 200


def apply(world, name="m", dockerfile=DTK, registry="registry.example.com", **build):
    body = {"metadata": {"name": f"{name}-d"}, "data": {"dockerfile": dockerfile}}
    assert world.api.post(core(NAMESPACE, "configmaps"), body).code == 201
    mapping = {
        "regexp": ".*",
        "containerImage": f"{registry}/{name}:${{KERNEL_FULL_VERSION}}",
        "build": {"dockerfileConfigMap": {"name": f"{name}-d"}, **build},
    }
    container = {"modprobe": {"moduleName": name}, "kernelMappings": [mapping]}
    answer = world.api.post(modules(NAMESPACE), a_module(name, moduleLoader={"container": container}))
    assert answer.code == 201, answer.body


def builds(world):
    return world.api.get(openshift.builds(NAMESPACE)).body["items"]


def found(world, fits):
    return next(filter(fits, builds(world)), None)


def build(world):
    """Wait for the one Build there is."""

    def one():
        every = builds(world)
        return every[0] if len(every) == 1 else None

    return eventually(one, "a Build")


def arguments(made):
    return {each["name"]: each["value"] for each in made["spec"]["strategy"]["dockerStrategy"]["buildArgs"]}


def toolkit(made):
    return arguments(made)["DTK_AUTO"].removeprefix(TOOLKIT)


def complete(world, images, made):
    """Let a Build push what it was asked to, and end."""
    output = made["spec"]["output"]
    with images.lock:
        images.images[output["to"]["name"]] = output["imageLabels"][0]["value"]
    openshift.say(world.api, made, "Complete", completionTimestamp="2026-01-01T00:00:00Z")


# ── Builds ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_openshift_builds_a_module_becomes_a_build_and_is_loaded(there, images):
    world = there()
    world.operator(ALONE)
    apply(world)
    made = build(world)
    assert made["metadata"]["labels"]["kmm.node.kubernetes.io/job-type"] == "build"
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("Module", True, True)
    eventually(lambda: world.module()["status"]["builder"] == "openshift-build")
    openshift.say(world.api, made, "Running")
    complete(world, images, made)
    eventually(world.ready, "the Module is ready")
    eventually(lambda: not builds(world), "what has built it is gone")


def test_a_build_has_no_field_that_openshift_does_not_know(there):
    world = there()
    for name, kind, key in (
        ("push", "kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
        ("build-secret", "Opaque", "token"),
    ):
        body = {"metadata": {"name": name}, "type": kind, "data": {key: "e30="}}
        assert world.api.post(core(NAMESPACE, "secrets"), body).code == 201
    world.operator(ALONE)
    apply(world, secrets=[{"name": "build-secret"}], params={"resources": {"limits": {"memory": "4Gi"}}})
    patch = {"spec": {"imageRepoSecret": {"name": "push"}}}
    assert world.api.patch(f"{modules(NAMESPACE)}/m", patch).code == 200
    made = eventually(lambda: found(world, lambda each: "pushSecret" in each["spec"]["output"]))
    again = {**made, "metadata": {"name": "again"}}
    answer = world.api.post(openshift.builds(NAMESPACE), again, fieldValidation="Strict", dryRun="All")
    assert answer.code == 201, answer.body
    # What the cluster has kept is what was rendered: nothing of it was dropped.
    (volume,) = made["spec"]["strategy"]["dockerStrategy"]["volumes"]
    assert volume["mounts"] == [{"destinationPath": "/run/secrets/build-secret"}]


@pytest.mark.parametrize(
    ("phase", "status", "says"),
    [
        ("Failed", {"reason": "DockerBuildFailed", "message": "it failed.", "logSnippet": "a\nno make"}, "no make"),
        ("Error", {"reason": "BuildPodDeleted", "message": "the pod is gone"}, "the pod is gone"),
        ("Cancelled", {}, "somebody cancelled the build"),
    ],
)
def test_each_way_to_fail_is_told_and_tried_again_later(there, phase, status, says):
    world = there()
    world.operator(ALONE)
    apply(world)
    openshift.say(world.api, build(world), phase, completionTimestamp="2126-01-01T00:00:00Z", **status)
    eventually(lambda: world.reasons() == {"BuildFailed"})
    said = world.kernel(KERNEL)
    assert says in said["message"]
    assert said["attempts"] == 1
    assert len(builds(world)) == 1


def test_what_a_build_has_no_means_for_is_a_condition(there):
    world = there()
    world.operator(ALONE)
    apply(world, baseImageRegistryTLS={"insecure": True})
    build(world)
    said = eventually(lambda: world.condition("FieldsIgnored"))
    assert (said["status"], said["reason"]) == ("True", "FieldsIgnored")
    assert "openshift-build has no means for build.baseImageRegistryTLS" in said["message"]
    eventually(lambda: world.events()["FieldsIgnored"]["type"] == "Warning")
    mapping = world.module()["spec"]["moduleLoader"]["container"]["kernelMappings"][0]
    del mapping["build"]["baseImageRegistryTLS"]
    patch = {"spec": {"moduleLoader": {"container": {"kernelMappings": [mapping]}}}}
    assert world.api.patch(f"{modules(NAMESPACE)}/m", patch).code == 200
    eventually(lambda: not world.condition("FieldsIgnored"), "it is taken back")


@pytest.mark.parametrize(("registry", "pulls"), [("registry.example.com", True), ("quay.io/acme", False)])
def test_the_toolkit_is_pulled_with_the_clusters_credentials_from_the_registry_that_is_pushed_to(
    there, registry, pulls
):
    world = there()
    body = {"metadata": {"name": "push"}, "type": "kubernetes.io/dockerconfigjson"}
    body["data"] = {".dockerconfigjson": "eyJhdXRocyI6IHt9fQ=="}
    assert world.api.post(core(NAMESPACE, "secrets"), body).code == 201
    apply(world, registry=registry)
    patch = {"spec": {"imageRepoSecret": {"name": "push"}}}
    assert world.api.patch(f"{modules(NAMESPACE)}/m", patch).code == 200
    world.operator(ALONE)
    spec = build(world)["spec"]
    assert spec["output"]["pushSecret"] == {"name": "push"}
    assert ("pullSecret" in spec["strategy"]["dockerStrategy"]) is pulls


# ── Who builds ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("has_builds", [True, False])
def test_without_a_wish_openshift_builds_where_it_can_and_buildah_elsewhere(there, has_builds):
    world = there(builds=has_builds)
    world.operator(ALONE)
    apply(world, dockerfile="FROM scratch")
    eventually(lambda: world.reasons() == {"Building"})
    assert world.module()["status"]["builder"] == ("openshift-build" if has_builds else "buildah")
    assert len(world.jobs()) == (0 if has_builds else 1)
    assert not has_builds or len(builds(world)) == 1


def test_the_modules_wish_and_the_configurations_come_first(there):
    world = there()
    world.operator(ALONE, config=replace(CONFIG, builder="buildah"))
    apply(world, "configured", dockerfile="FROM scratch")
    apply(world, "named", dockerfile="FROM scratch", builder="openshift-build")
    apply(world, "other", dockerfile="FROM scratch", builder="kaniko")
    made = build(world)
    assert made["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"] == "named"
    eventually(lambda: len(world.jobs()) == 2)
    assert {
        each["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"]: each["metadata"]["annotations"][
            "kmm.node.kubernetes.io/provider"
        ]
        for each in world.jobs()
    } == {"configured": "buildah", "other": "kaniko"}


# ── The driver toolkit ────────────────────────────────────────────────────────────────────────────────────────


def test_a_dockerfile_that_uses_it_is_built_in_the_toolkit_of_its_nodes_release(there):
    world = there(toolkits={OLD: f"{TOOLKIT}old", NEW: f"{TOOLKIT}new"})
    world.operator(ALONE)
    apply(world)
    assert toolkit(build(world)) == "old"


def test_without_a_toolkit_it_is_told_which_there_are_and_a_new_one_is_built_with_at_once(there):
    world = there(os_image=f"Red Hat Enterprise Linux CoreOS {NEW} (Plow)")
    world.operator(ALONE)
    apply(world)
    eventually(lambda: world.reasons() == {"BaseImageMissing"})
    message = world.condition("ImagesReady")["message"]
    assert f"no image for {NEW}" in message
    assert message.endswith(f"it has {OLD}")
    assert not builds(world)
    openshift.set_toolkits(world.api, {OLD: f"{TOOLKIT}old", NEW: f"{TOOLKIT}new"})
    assert toolkit(build(world)) == "new"


def test_a_node_that_is_upgraded_to_a_release_with_the_same_kernel_brings_its_toolkit(there):
    world = there(toolkits={NEW: f"{TOOLKIT}new"})
    world.operator(ALONE)
    apply(world)
    eventually(lambda: world.reasons() == {"BaseImageMissing"})
    says(world, "n0", f"Red Hat Enterprise Linux CoreOS {NEW}")
    assert toolkit(build(world)) == "new"


def test_a_toolkit_that_changes_restarts_what_is_under_way_and_never_what_is_there(there, images):
    world = there()
    world.operator(ALONE)
    apply(world)
    first = build(world)
    openshift.set_toolkits(world.api, {OLD: f"{TOOLKIT}other"})
    made = eventually(lambda: found(world, lambda each: toolkit(each) == "other"))
    assert made["metadata"]["uid"] != first["metadata"]["uid"]
    complete(world, images, made)
    eventually(lambda: world.ready() and not builds(world))
    openshift.set_toolkits(world.api, {OLD: f"{TOOLKIT}third"})
    world.quiet()
    assert not builds(world)
    assert world.ready()


def test_where_nodes_name_no_release_the_toolkits_are_looked_into_once_for_all_modules(there, images):
    images.kernels = {f"{TOOLKIT}new": "5.0.0", f"{TOOLKIT}old": KERNEL}
    world = there(os_image=RHEL, toolkits={OLD: f"{TOOLKIT}old", NEW: f"{TOOLKIT}new"})
    world.operator(ALONE)
    apply(world)
    assert toolkit(build(world)) == "old"
    eventually(lambda: sorted(images.opened) == [f"{TOOLKIT}new", f"{TOOLKIT}old"])
    world.quiet()
    apply(world, "second")
    eventually(lambda: len(builds(world)) == 2)
    assert {toolkit(each) for each in builds(world)} == {"old"}
    assert len(images.opened) == 2


def test_toolkits_that_are_for_other_kernels_are_named(there, images):
    images.kernels = {f"{TOOLKIT}old": "5.0.0"}
    world = there(os_image=RHEL)
    world.operator(ALONE)
    apply(world)
    eventually(lambda: world.reasons() == {"BaseImageMissing"})
    assert f"it has {OLD}" in world.kernel(KERNEL)["message"]


@pytest.mark.parametrize("image", ["", "no image", "a\nRUN b", "A:b:c", "x" * 5000, "127.0.0.1/a@sha256:1"])
def test_what_is_listed_and_is_no_image_counts_for_nothing(there, images, image):
    images.kernels = {f"{TOOLKIT}old": "5.0.0"}
    world = there(os_image=RHEL, toolkits={OLD: f"{TOOLKIT}old", NEW: image})
    world.operator(ALONE)
    apply(world)
    eventually(lambda: world.reasons() == {"BaseImageMissing"})
    assert world.kernel(KERNEL)["message"].endswith(f"it has {OLD}")


def test_toolkits_that_may_not_be_read_are_no_reason_to_give_up(there, images):
    images.refuses = True
    world = there(os_image=RHEL)
    world.operator(ALONE)
    apply(world)
    eventually(lambda: "it is refused" in world.kernel(KERNEL).get("message", ""))
    assert world.reasons() == {"BaseImageUndecided"}


def test_on_plain_kubernetes_nothing_is_asked_until_a_dockerfile_asks_and_then_there_is_none(there):
    world = there(builds=False, streams=False)
    world.operator(ALONE)
    apply(world, "plain", dockerfile="FROM scratch")
    eventually(lambda: world.reasons("plain") == {"Building"})
    assert not [
        each for each in world.entries() if "imagestreams" in each.resource or "image.openshift.io" in each.resource
    ]
    apply(world)
    eventually(lambda: world.reasons() == {"BaseImageMissing"})
    assert "openshift/driver-toolkit is not there" in world.kernel(KERNEL)["message"]


def test_an_argument_that_the_module_sets_is_its_own(there):
    world = there(streams=False)
    world.operator(ALONE)
    apply(world, buildArgs=[{"name": "DTK_AUTO", "value": "registry.example.com/mine:1"}])
    assert arguments(build(world))["DTK_AUTO"] == "registry.example.com/mine:1"


@contextmanager
def mute(world):
    """Let the API server say nothing of ImageStreams meanwhile."""
    world.cluster.faults.add(Fault(kind=Kind.REFUSE, resource="imagestreams", user=world.user, code=503, times=None))
    yield
    world.cluster.faults.clear()


@FAULTS
def test_an_api_that_does_not_answer_is_never_an_empty_one(there):
    world = there()
    with mute(world):
        world.operator(ALONE)
        apply(world)
        apply(world, "plain", dockerfile="FROM scratch")
        eventually(lambda: world.reasons() == {"BaseImageUndecided"})
        eventually(lambda: "the API server did not say" in world.kernel(KERNEL)["message"])
        # It is in nobody else's way.
        assert build(world)["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"] == "plain"
    eventually(lambda: len(builds(world)) == 2)


@FAULTS
def test_a_build_goes_on_while_an_operator_cannot_ask(there):
    world = there()
    first = world.operator(ALONE)
    apply(world)
    made = build(world)
    first.stop()
    with mute(world):
        world.operator(ALONE)
        eventually(lambda: world.reasons() == {"BaseImageUndecided"})
        assert build(world)["metadata"]["uid"] == made["metadata"]["uid"]
    eventually(lambda: world.reasons() == {"Building"})
    assert build(world)["metadata"]["uid"] == made["metadata"]["uid"]


# ── OpenShift's API servers away, while Kubernetes' is there ──────────────────────────────────────────────────


@contextmanager
def away(world, kind=Kind.REFUSE):
    """Let the API server say nothing of the group that has Builds meanwhile."""
    for resource in ("builds", openshift.BUILDS):
        fault = Fault(kind=kind, verbs=("get", "list"), resource=resource, user=world.user, code=503, times=None)
        world.cluster.faults.add(fault)
    yield
    world.cluster.faults.clear()


@FAULTS
@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.HANG])
def test_a_group_that_does_not_answer_is_in_the_way_of_nobody_who_does_not_need_it(there, kind):
    world = there()
    with away(world, kind):
        world.operator(replace(ALONE, pace=replace(QUICK.pace, listing_s=0.2)))
        apply(world, dockerfile="FROM scratch")
        apply(world, "named", dockerfile="FROM scratch", builder="openshift-build")
        apply(world, "other", dockerfile="FROM scratch", builder="buildah")
        assert world.api.post(modules(NAMESPACE), a_module("bought")).code == 201
        eventually(lambda: world.ready("bought"), "what is not built is loaded")
        eventually(lambda: world.reasons("other") == {"Building"}, "what another builder builds is built")
        eventually(lambda: world.reasons() == {"BuilderUndecided"})
        eventually(lambda: world.reasons("named") == {"TasksUnknown"})
        assert "builds" in world.condition("ImagesReady", "named")["message"]
        assert not builds(world)
        assert len(world.jobs()) == 1
    eventually(lambda: len(builds(world)) == 2, "both are built once it answers", 90)


@FAULTS
def test_a_build_that_cannot_be_seen_is_not_begun_again_by_whatever_builder(there):
    world = there()
    first = world.operator(ALONE)
    apply(world, dockerfile="FROM scratch")
    made = build(world)
    eventually(lambda: world.reasons() == {"Building"})
    first.stop()
    with away(world):
        second = world.operator(ALONE)
        said = eventually(
            lambda: world.condition("ImagesReady").get("reason") == "TasksUnknown" and world.kernel(KERNEL)
        )
        assert "the API server did not say: the server is currently unable" in said["message"]
        second.stop()
        # Nor does one begin that is told to build otherwise: both would push the same image.
        world.operator(ALONE, config=replace(CONFIG, builder="buildah"))
        apply(world, "other", dockerfile="FROM scratch")
        eventually(lambda: world.reasons("other") == {"Building"})
        assert world.reasons() == {"TasksUnknown"}
    eventually(lambda: not builds(world) and len(world.jobs()) == 2, "it is seen, and replaced")
    assert made["metadata"]["uid"] not in {each["metadata"]["uid"] for each in builds(world)}


@FAULTS
def test_an_operator_is_ready_while_a_group_is_away_that_it_can_do_without(there):
    world = there()
    with away(world):
        app = world.operator(ALONE)
        eventually(lambda: page(app, "/readyz")[0] == 200)
        assert "not listed: builds: the API server did not say" in page(app, "/readyz")[1]
    eventually(lambda: "not listed" not in page(app, "/readyz")[1])


@FAULTS
def test_a_group_that_goes_away_later_is_told_by_whoever_needs_it(there):
    world = there()
    world.operator(ALONE)
    apply(world, "plain", dockerfile="FROM scratch")
    build(world)
    refusal = Fault(kind=Kind.REFUSE, verbs=("create",), resource="builds", user=world.user, code=503, times=None)
    world.cluster.faults.add(refusal)
    apply(world, dockerfile="FROM scratch")
    eventually(lambda: world.reasons() == {"WriteRefused"})
    assert "the server is currently unable to handle the request" in world.condition("ImagesReady")["message"]
    assert "WriteRefused" not in world.events()
    world.cluster.faults.clear()
    eventually(lambda: len(builds(world)) == 2)
    eventually(lambda: world.reasons() == {"Building"})
