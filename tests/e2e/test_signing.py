"""Signatures for real: kmm-sign-file renders a Job, and the process of its container is `kmm sign-image`."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
from contextlib import ExitStack
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, core, modules
from controlplane.controlplane import ControlPlane
from e2e.container import contained, make_image
from e2e.site import MIXED, WITHIN_S, Site, signs
from signing.golden import MODULE, PASSPHRASE, golden
from world import NAMESPACE, PREFIX, RealWorld

from kmm.embedded.image import image
from kmm.embedded.program import Exit, Run
from kmm.embedded.volume import expanded
from kmm.signing import certificate
from kmm.signing.verification import Verification, verify

pytestmark = pytest.mark.e2e

SELF = {"key": golden("self.key.pem").decode(), "cert": golden("self.pem").decode()}
ISSUED = {
    "key": golden("issued.key.pem").decode(),
    "cert": golden("issued.pem").decode(),
    "passphrase": PASSPHRASE.decode(),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory, tools):
    folder = tmp_path_factory.mktemp("signing")
    buildahs = make_image(folder / "image")

    async def container(run: Run) -> Exit:
        return await contained(run, buildahs)

    with ExitStack() as stack:
        found = Site(
            folder, stack, release=tools.kernel, busybox=tools.busybox, builder="buildah", container=container
        )
        found.add_mixed_nodes()
        driver = image([{"/acme.ko": MODULE}])
        assert found.client.push("base/driver", "1", driver).status == 201
        yield found


def pair(site: Site, name: str, contents: dict[str, str]) -> dict:
    """Make the Secret of a Module; return its `sign`."""
    site.secret(name, **contents)
    return {"keySecret": {"name": name}, "certSecret": {"name": name}}


def dockerfile(site: Site) -> str:
    return f"""
        FROM {site.host}/base/driver:1 AS build
        FROM {site.host}/base/small:1
        ARG KERNEL_VERSION
        COPY --from=build /acme.ko /opt/lib/modules/$KERNEL_VERSION/
        RUN cat /proc/sys/kernel/random/uuid >/random
        """


def path(site: Site) -> str:
    return f"opt/lib/modules/{site.release}/acme.ko"


def push_unsigned(site: Site, name: str) -> str:
    """Push a pre-built image with a module and more; return its name."""
    made = image([{"/usr/share/firmware": b"firmware"}, {f"/{path(site)}": MODULE}])
    assert site.client.push(f"prebuilt/{name}", "1", made).status == 201
    return f"{site.host}/prebuilt/{name}:1"


def verified(site: Site, name: str, contents: dict[str, str], reference: str = "") -> Verification:
    module = site.files(name, reference)[path(site)]
    return verify(BytesIO(module), certificate.load(contents["cert"].encode()))


def temporary(site: Site, name: str) -> str:
    return f"{site.release}-{NAMESPACE}_{name}_kmm_unsigned"


def nothing_runs(site: Site) -> None:
    """Wait until the tasks are gone, and their pods: a bare delete of a Job would leave those."""
    tasks = lambda: any(f"{PREFIX}job-type" in each["metadata"]["labels"] for each in site.pods())  # noqa: E731
    eventually(lambda: not site.jobs() and not tasks(), "tasks are gone", WITHIN_S)


def test_an_image_that_somebody_built_is_signed_loaded_and_read_by_others(site):
    sign = {**pair(site, "there-pair", SELF), "unsignedImage": push_unsigned(site, "there")}
    site.apply_unbuilt("there", sign=sign)
    said = site.loaded("there")
    pulled = site.folder / "pulled"
    source = f"docker://{site.loaders_image('there')}"
    command = ["skopeo", "copy", "--quiet", "--preserve-digests", *site.access("src-"), source, f"dir:{pulled}"]
    subprocess.run(command, check=True, capture_output=True)
    assert verified(site, "there", SELF).verified
    assert site.files("there")["usr/share/firmware"] == b"firmware"
    assert site.pushed("there") == [site.release], "once"
    assert said["digest"] == site.client.manifest("drivers/there", site.release).headers["Docker-Content-Digest"]
    assert site.ran("there", "sign") == 1
    assert site.ran("there", "build") == 0
    nothing_runs(site)


def test_what_is_built_has_the_final_name_once_it_is_signed_and_a_rotated_key_signs_it_again(site):
    site.apply("built", dockerfile(site), sign=pair(site, "built-pair", SELF))
    site.loaded("built")
    assert verified(site, "built", SELF).verified
    assert site.pushed("built") == [temporary(site, "built"), site.release]
    unsigned = site.files("built", temporary(site, "built"))
    assert unsigned[path(site)] == MODULE
    nothing_runs(site)
    site.change_secret("built-pair", **ISSUED)
    eventually(lambda: verified(site, "built", ISSUED).verified, "it is signed again", WITHIN_S)
    nothing_runs(site)
    eventually(lambda: site.ready("built"), "what is signed anew is loaded", WITHIN_S)
    assert verified(site, "built", ISSUED).below == 0, "the first signature is gone"
    assert site.files("built")["random"] == unsigned["random"]
    assert (site.ran("built", "build"), site.ran("built", "sign")) == (1, 2)
    assert site.pushed("built") == [temporary(site, "built"), site.release, site.release]


WRONG = {
    "passphrase": ({**ISSUED, "passphrase": "another"}, "the passphrase is wrong"),
    "pair": ({"key": SELF["key"], "cert": ISSUED["cert"]}, "they are not of one pair"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_signature_that_fails_says_why_pushes_nothing_and_builds_nothing_again(site, name):
    contents, why = WRONG[name]
    site.apply(name, dockerfile(site), sign=pair(site, f"{name}-pair", contents))
    message = site.fails(name, "SignFailed")
    assert why in message
    assert message.startswith("sign-file ended with exit code 2: ")
    eventually(lambda: why in site.condition("Ready", name).get("message", ""), "Ready says so", WITHIN_S)
    eventually(lambda: "SignFailed" in site.events(), "and an event does", WITHIN_S)
    assert site.pushed(name) == [temporary(site, name)]
    right = ISSUED if name == "passphrase" else SELF
    site.change_secret(f"{name}-pair", **right)
    # What has failed begins anew where its inputs have changed.
    eventually(lambda: site.ready(name), "it is signed", WITHIN_S)
    assert verified(site, name, right).verified
    assert site.pushed(name) == [temporary(site, name), site.release]
    assert site.ran(name, "build") == 1
    assert "PRIVATE KEY" not in json.dumps([site.module(name), site.output(name, "sign")])
    nothing_runs(site)


def test_what_kernels_may_not_take_is_told_once_it_is_signed(site):
    contents = {"key": golden("ec.key.pem").decode(), "cert": golden("ec.pem").decode()}
    sign = {**pair(site, "ec-pair", contents), "unsignedImage": push_unsigned(site, "ec")}
    site.apply_unbuilt("ec", sign=sign)
    site.loaded("ec")
    told = lambda: site.events().get("SignWarning", {"message": ""})["message"]  # noqa: E731
    eventually(lambda: "the key is an EC key" in told(), "an event tells it", WITHIN_S)
    nothing_runs(site)


def test_a_file_that_is_not_in_the_image_is_named_with_what_is_near(site):
    files = [f"/opt/lib/modules/{site.release}/extra/acme.ko"]
    sign = {**pair(site, "lost-pair", SELF), "unsignedImage": push_unsigned(site, "lost"), "filesToSign": files}
    site.apply_unbuilt("lost", sign=sign)
    message = site.fails("lost", "SignFailed")
    assert f"has no {files[0]}; what is near: /{path(site)}" in message
    assert not site.pushed("lost")
    site.remove("lost")


def test_of_an_index_each_platforms_image_is_signed(site):
    site.apply("mixed", dockerfile(site), nodes=MIXED, sign=pair(site, "mixed-pair", SELF))
    site.loaded("mixed")
    digests = {
        each["platform"]["architecture"]: each["digest"] for each in json.loads(site.manifest("mixed"))["manifests"]
    }
    assert digests.keys() == {"amd64", "arm64"}
    for digest in digests.values():
        assert verified(site, "mixed", SELF, digest).verified
    assert site.pushed("mixed")[-1:] == [site.release]
    assert site.pushed("mixed").count(site.release) == 1
    assert site.ran("mixed", "sign") == 1
    nothing_runs(site)


# ── On a real control plane ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def world(site, tmp_path, programs):
    """A real control plane, and an operator with the generated rights that uses the registry of the site."""
    with ControlPlane(tmp_path / "plane") as plane, ExitStack() as stack:
        made = RealWorld(plane, tmp_path)
        made.add_node("n0", site.release)
        for plural, name in (("configmaps", "registry-ca"), ("secrets", "push")):
            found = site.api.get(f"{core(NAMESPACE, plural)}/{name}").body
            body = {**found, "metadata": {"name": name}}
            assert made.api.post(core(NAMESPACE, plural), body).code == 201
        site.operate(made.credentials("operator"), stack)
        yield made


def carry_out(world: RealWorld, pod: dict, folder: Path) -> Exit:
    """Do what a kubelet does for a pod of one container, whose process is that of this virtualenv."""
    (container,) = pod["spec"]["containers"]
    for volume in pod["spec"]["volumes"]:
        (folder / volume["name"]).mkdir()
        for kind, plural, name in (("secret", "secrets", "secretName"), ("configMap", "configmaps", "name")):
            if kind in volume:
                data = world.api.get(f"{core(NAMESPACE, plural)}/{volume[kind][name]}").body["data"]
                for item in volume[kind].get("items", [{"key": key, "path": key} for key in data]):
                    if item["key"] in data:
                        text = data[item["key"]]
                        contents = base64.b64decode(text) if kind == "secret" else text.encode()
                        (folder / volume["name"] / item["path"]).write_bytes(contents)
    run = Run(
        pod=pod,
        container=container,
        node="n0",
        kernel="",
        argv=tuple(expanded(each, {}) for each in [*container["command"], *container["args"]]),
        env={each["name"]: each["value"] for each in container["env"]},
        mounts={
            **{each["mountPath"]: folder / each["name"] for each in container["volumeMounts"]},
            "/dev/termination-log": folder / "termination-log",
        },
    )
    done = asyncio.run(signs(run))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"exitCode": done.code, "reason": "Completed", "startedAt": now, "finishedAt": now}
    status = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False}
    body = {
        "phase": "Failed" if done.code else "Succeeded",
        "containerStatuses": [{**status, "restartCount": 0, "state": {"terminated": ended}}],
    }
    path = f"{core(NAMESPACE, 'pods')}/{pod['metadata']['name']}/status"
    assert world.api.patch(path, {"status": body}).code == 200
    return done


def test_on_a_real_control_plane_the_job_signs_an_image_which_is_then_loaded(site, world, tmp_path):
    data = {key: base64.b64encode(value.encode()).decode() for key, value in ISSUED.items()}
    assert world.api.post(core(NAMESPACE, "secrets"), {"metadata": {"name": "pair"}, "data": data}).code == 201
    mapping = {
        "regexp": ".",
        "containerImage": f"{site.host}/drivers/plane:${{KERNEL_FULL_VERSION}}",
        "sign": {
            "keySecret": {"name": "pair"},
            "certSecret": {"name": "pair"},
            "unsignedImage": push_unsigned(site, "plane"),
        },
    }
    container = {"modprobe": {"moduleName": "acme"}, "kernelMappings": [mapping]}
    body = a_module("plane", moduleLoader={"container": container}, imageRepoSecret={"name": "push"})
    # kwok would have the Job's pod succeed at once: it stands still while we are the kubelet.
    world.plane.kill("kwok", signal.SIGSTOP)
    try:
        assert world.api.post(modules(NAMESPACE), body).code == 201

        def scheduled() -> list[dict]:
            return [each for each in world.pods() if each["spec"].get("nodeName")]

        (pod,) = eventually(scheduled, "the Job has a pod on a node", WITHIN_S)
        (job,) = world.jobs()
        assert pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
        done = carry_out(world, pod, tmp_path)
    finally:
        world.plane.kill("kwok", signal.SIGCONT)
    assert done.code == 0, done.output
    eventually(lambda: world.ready("plane"), "the signed image is loaded", WITHIN_S)
    assert verified(site, "plane", ISSUED).verified
    assert site.pushed("plane") == [site.release]
    eventually(lambda: not world.jobs(), "the Job is gone", WITHIN_S)
    roles = lambda: {each["metadata"]["labels"].get(f"{PREFIX}role") for each in world.pods()}  # noqa: E731
    eventually(lambda: roles() == {"module-loader"}, "and its pod", WITHIN_S)
    refused = [each for each in world.audit() if each["responseStatus"]["code"] in (401, 403)]
    assert not refused, "its generated rights are enough"
