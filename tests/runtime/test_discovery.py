"""Which builder fits the cluster is asked of it; what it does not say changes nothing."""

from __future__ import annotations

import pytest
from apiserver.client import eventually
from apiserver.conftest import register
from apiserver.samples import a_module, core, modules
from runtime.conftest import ALONE, NAMESPACE

from kmm.catalog import Plugin, build_catalog
from kmm.contract import Kind as KubernetesKind
from kmm.contract import Progress, State
from kmm.core.view import Unknown
from kmm.embedded.fault import Fault, Kind
from kmm.loader import load_catalog
from kmm.runtime.discovery import Discovery, has_openshift_builds
from kmm.runtime.transport import Answer, ApiError, NotFound, Unreachable

BUILDS = "/apis/build.openshift.io/v1"
EMBEDDED = pytest.mark.embedded_only("faults are made in the embedded server, and another API group")


class Says:
    """A transport that gets these answers, one after another."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def ask(self, method, path, *, timeout_s):
        assert (method, path) == ("GET", BUILDS)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer(200, answer)


YES = b'{"kind": "APIResourceList", "groupVersion": "build.openshift.io/v1", "resources": []}'
NO = NotFound(404, "", "404 page not found")
AWAY = ApiError(503, "ServiceUnavailable", "the server is currently unable to handle the request")


@pytest.mark.parametrize(("answer", "said"), [(YES, True), (NO, False)])
def test_a_list_means_yes_and_not_found_means_no(answer, said):
    assert has_openshift_builds(Says(answer)) is said


@pytest.mark.parametrize(
    "answer",
    [
        AWAY,
        ApiError(403, "Forbidden", "forbidden"),
        ApiError(429, "TooManyRequests", "x" * 5000),
        Unreachable("it did not answer in time"),
        b"<html>please log in</html>",
        b"[]",
        b'"build.openshift.io/v1"',
        b'{"groupVersion": "apps/v1"}',
    ],
)
def test_anything_else_means_that_nobody_knows(answer):
    said = has_openshift_builds(Says(answer))
    assert isinstance(said, Unknown)
    assert 0 < len(said.message) <= 300


@pytest.mark.parametrize("answer", [YES, NO])
def test_what_is_answered_at_once_is_not_asked_again(answer):
    transport, learned = Says(answer), []
    discovery = Discovery(transport, lambda: learned.append(1))
    discovery.start()
    assert (discovery.said, transport.answers, learned) == (answer is YES, [], [])


def test_it_is_asked_until_it_is_answered():
    transport, learned = Says(AWAY, Unreachable("it is away"), AWAY, YES), []
    discovery = Discovery(transport, lambda: learned.append(discovery.said), retry_s=0.001)
    discovery.start()
    eventually(lambda: learned)
    assert (learned, transport.answers) == ([True], [])


def test_it_stops_asking_when_it_is_told_to():
    transport = Says(AWAY)
    discovery = Discovery(transport, lambda: None, retry_s=3600)
    discovery.start()
    discovery.stop()
    assert isinstance(discovery.said, Unknown)


class Builder:
    """Renders a Job that never ends."""

    owns = (KubernetesKind(api_version="batch/v1", kind="Job", plural="jobs"),)
    requires = ()

    def __init__(self, name):
        self.name = name

    def render(self, request):
        pod = {"containers": [{"name": self.name, "image": "registry.example.com/b:1", "args": ["run"]}]}
        template = {"spec": {"restartPolicy": "Never", **pod}}
        return [{"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template}}]

    def observe(self, objects, pods):
        return Progress(state=State.RUNNING, message=f"{self.name} says so")


class Registry:
    """Has nothing."""

    name = "empty"
    hosts = ("registry.example.com",)

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        return None


@pytest.fixture
def there(world):
    """Make a world with a Module that is to be built, and no operator."""
    installed = [each for each in load_catalog().plugins if not (each.registries or each.builders)]
    plugin = Plugin(
        name="tests",
        distribution="tests",
        version="1",
        builders=(Builder("kaniko"), Builder("buildah")),
        registries=(Registry(),),
    )
    found = world(nodes=1, kernels=1, catalog=build_catalog([*installed, plugin]))
    body = {"metadata": {"name": "d"}, "data": {"dockerfile": "FROM scratch"}}
    assert found.api.post(core(NAMESPACE, "configmaps"), body).code == 201
    mapping = {
        "regexp": ".*",
        "containerImage": "registry.example.com/m:${KERNEL_FULL_VERSION}",
        "build": {"dockerfileConfigMap": {"name": "d"}},
    }
    container = {"modprobe": {"moduleName": "m"}, "kernelMappings": [mapping]}
    answer = found.api.post(modules(NAMESPACE), a_module(moduleLoader={"container": container}))
    assert answer.code == 201, answer.body
    return found


def mute(world):
    """Let the API server say nothing of its builds from now on."""
    return world.cluster.faults.add(
        Fault(kind=Kind.REFUSE, verbs=("get",), resource=BUILDS, user=world.user, code=503, times=None)
    )


def makers(world):
    return {each["metadata"]["annotations"]["kmm.node.kubernetes.io/provider"] for each in world.jobs()}


def test_without_openshift_buildah_builds_and_that_is_kept(there):
    there.operator(ALONE)
    eventually(lambda: there.reasons() == {"Building"})
    assert makers(there) == {"buildah"}
    eventually(lambda: there.kernel("6.0.0").get("message") == "buildah says so")
    assert there.module()["status"]["builder"] == "buildah"


@EMBEDDED
def test_nothing_is_started_before_it_is_known_and_then_it_goes_on_by_itself(there):
    fault = mute(there)
    there.operator(ALONE)
    eventually(lambda: there.reasons() == {"BuilderUndecided"})
    said = there.condition("ImagesReady")
    assert "the API server did not say: the server is currently unable" in said["message"]
    assert not there.jobs()
    assert "builder" not in there.module()["status"]
    eventually(lambda: fault.struck > 1, "it is asked again")
    there.cluster.faults.clear()
    eventually(lambda: makers(there) == {"buildah"})


@EMBEDDED
def test_an_operator_that_cannot_ask_goes_on_with_what_was_chosen_before_it(there):
    first = there.operator(ALONE)
    eventually(lambda: there.module()["status"].get("builder") == "buildah")
    first.stop()
    mute(there)
    path = f"{core(NAMESPACE, 'configmaps')}/d"
    assert there.api.patch(path, {"data": {"dockerfile": "FROM scratch AS other"}}).code == 200
    (before,) = there.jobs()
    there.operator(ALONE)
    eventually(lambda: [each["metadata"]["uid"] for each in there.jobs()] not in ([], [before["metadata"]["uid"]]))
    assert makers(there) == {"buildah"}
    assert there.module()["status"]["builder"] == "buildah"


@EMBEDDED
def test_where_openshift_would_build_and_its_plugin_is_not_installed_it_is_told_what_is(there):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "builds", "singular": "build", "kind": "Build", "listKind": "BuildList"}
    register(
        there.api,
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "builds.build.openshift.io"},
            "spec": {"group": "build.openshift.io", "names": names, "scope": "Namespaced", "versions": [version]},
        },
    )
    there.operator(ALONE)
    eventually(lambda: there.reasons() == {"PluginMissing"})
    said = there.condition("PluginsAvailable")
    assert '"openshift-build" is what fits this cluster, and is not installed' in said["message"]
    assert "installed: buildah, kaniko; choose one by build.builder" in said["message"]
    assert not there.jobs()
    there.api.patch(
        f"{modules(NAMESPACE)}/m",
        {"spec": {"moduleLoader": {"container": {"build": {"dockerfileConfigMap": {}, "builder": "kaniko"}}}}},
    )
    eventually(lambda: makers(there) == {"kaniko"})
