"""Builds with buildah for real: the operator renders a Job, and buildah runs as its containers say."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack

import pytest
import trustme
from apiserver.client import Api, eventually
from apiserver.samples import core, jobs
from controlplane.controlplane import ControlPlane
from e2e.container import contained, make_image
from e2e.site import MIXED, WITHIN_S, Site, files_of
from kmm_buildah import kmm_builders
from registry.client import Client
from registry.docker_registry import DockerRegistry
from registry.running import PASSWORDS, ROBOT
from world import NAMESPACE, PREFIX, SELECTED

from kmm.contract import INPUTS_ANNOTATION, BuildRequest, ModuleRef, SecretFiles, Settings, State
from kmm.embedded.image import digest_of
from kmm.embedded.program import Exit, Run

pytestmark = pytest.mark.e2e

LAYERED = {"storage": "layered"}  # a label of the node whose volumes are on an overlay
SOURCE = """\
#include <linux/module.h>
static int __init hello(void) { return 0; }
static void __exit bye(void) { }
module_init(hello);
module_exit(bye);
MODULE_LICENSE("GPL");
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, tools):
    folder = tmp_path_factory.mktemp("builds")
    image = make_image(folder / "image")

    async def container(run: Run) -> Exit:
        return await contained(run, image, layered=run.node == "layered")

    with ExitStack() as stack:
        found = Site(
            folder, stack, release=tools.kernel, busybox=tools.busybox, builder="buildah", container=container
        )
        found.cluster.add_node("layered", tools.kernel, labels=LAYERED)
        found.add_mixed_nodes()
        source = f"oci:{tools.layout}"
        _skopeo(found, "copy", "--quiet", source, f"docker://{found.host}/base/toolkit:1", end="dest-")
        yield found


@pytest.fixture(scope="module")
def plain(site, tmp_path_factory):
    """A registry without TLS and passwords; its host."""
    with DockerRegistry(tmp_path_factory.mktemp("plain")) as registry:
        client = Client(f"http://{registry.host}", "")
        assert client.push("base/small", "1", site.small).status == 201
        yield registry.host


@pytest.fixture(scope="module")
def plane(tmp_path_factory, programs):
    with ControlPlane(tmp_path_factory.mktemp("builds-plane")) as plane:
        yield Api(plane.url, plane.ca_file, plane.admin_token)


@pytest.fixture(scope="module")
def other(site, tmp_path_factory):
    """A registry with an authority of its own, which is in the ConfigMaps `other-ca` and, beside ours, `both-ca`."""
    authority = trustme.CA(organization_name="another")
    pem = authority.cert_pem.bytes().decode()
    site.config_map("other-ca", {"other.crt": pem})
    site.config_map("both-ca", {"other.crt": pem, "ours.crt": site.ca_file.read_text()})
    with DockerRegistry(tmp_path_factory.mktemp("other"), authority=authority) as registry:
        client = Client(f"https://{registry.host}", pem)
        assert client.push("base/small", "1", site.small).status == 201
        yield registry.host


def _skopeo(site: Site, verb: str, *arguments: str, end: str = "") -> str:
    command = ["skopeo", verb, *site.access(end), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_driver_is_built_from_its_dockerfile_pushed_and_loaded(site):
    lines = " ".join(f"'{line}'" for line in SOURCE.splitlines())
    site.apply(
        "driver",
        f"""
        ARG BASE={site.host}/base/toolkit
        FROM ${{BASE}}:1 AS build
        ARG KERNEL_VERSION
        WORKDIR /src
        RUN printf '%s\\n' {lines} >hello.c && echo 'obj-m := hello.o' >Makefile
        RUN make -C "/lib/modules/$KERNEL_VERSION/build" M=/src modules
        FROM {site.host}/base/small:1
        ARG KERNEL_VERSION
        COPY --from=build /src/hello.ko /opt/lib/modules/$KERNEL_VERSION/
        """,
    )
    said = site.loaded("driver")
    reference = f"docker://{site.loaders_image('driver')}"
    found = json.loads(_skopeo(site, "inspect", reference))
    assert found["Digest"] == said["digest"]
    assert re.fullmatch("[0-9a-f]{64}", found["Labels"][INPUTS_ANNOTATION])
    pulled = site.folder / "pulled"
    _skopeo(site, "copy", "--quiet", reference, f"dir:{pulled}", end="src-")
    digests = [each["digest"] for each in json.loads((pulled / "manifest.json").read_text())["layers"]]
    files = files_of(gzip.decompress((pulled / each.removeprefix("sha256:")).read_bytes()) for each in digests)
    (pulled / "hello.ko").write_bytes(files[f"opt/lib/modules/{site.release}/hello.ko"])
    command = ["modinfo", "-F", "vermagic", pulled / "hello.ko"]
    magic = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert magic.split()[0] == site.release
    eventually(lambda: not site.api.get(jobs(NAMESPACE)).body["items"], "the Job is gone", WITHIN_S)


# As much as a RUN can find of what it should not: whatever it may read is in the image. Who may change his root
# leaves any: from a folder that is outside of the new one, `..` goes up to the container's.
LOOK = """\
RUN (env; cat /proc/mounts; find / -name '*docker*' -o -name 'auth.json' -o -path '*kmm/*' -o -path '*/secrets/*'; \\
  for each in /proc/[0-9]*; do \\
    tr '\\0' '\\n' <$each/environ; ls -l $each/fd; cat $each/root/kmm/credentials/.d*; \\
  done; cat /kmm/credentials/.d*) >/seen 2>/dev/null; true
RUN (exec 9</; chroot /proc /self/fd/9/bin/busybox sh -c 'cd -P /self/fd/9; \\
    for each in 1 2 3 4 5 6 7 8 9; do cd -P ..; done; \\
    echo reached: kmm/*; read -r line <kmm/credentials/.dockerconfigjson; echo "$line"'; \\
  grep ^Cap /proc/self/status) >/escaped 2>&1
"""
SYS_CHROOT = 1 << 18


def no_credentials(files: Mapping[str, bytes]) -> None:
    seen, escaped = files["seen"], files["escaped"].decode()
    assert "reached" not in escaped
    assert "Operation not permitted" in escaped, "it did try"
    held = re.findall(r"^Cap\w+:\s*([0-9a-f]+)$", escaped, re.MULTILINE)
    assert len(held) == 5, "the bounding one too: what a file's capabilities may give"
    assert not any(int(each, 16) & SYS_CHROOT for each in held)
    assert b"PATH=" in seen
    assert b" /proc " in seen, "it did look"
    for each in (PASSWORDS[ROBOT], base64.b64encode(f"{ROBOT}:{PASSWORDS[ROBOT]}".encode()).decode(), "kmm/cred"):
        assert each.encode() not in seen


def test_what_a_dockerfile_runs_sees_its_secrets_and_not_the_credentials(site):
    site.secret("token", t="open sesame")
    site.secret("keys", **{"a.pem": "key a", "b": "key b"})
    site.apply(
        "secrets",
        f"""
        FROM {site.host}/base/small:1
        RUN --mount=type=secret,id=token cat /run/secrets/token >/token
        RUN --mount=type=secret,id=keys.a.pem,target=/key cat /key /run/secrets/keys/b >/keys
        {LOOK}
        RUN cat /run/secrets/keys/a.pem >>/keys
        """,
        secrets=[{"name": "token"}, {"name": "keys"}],
    )
    site.loaded("secrets")
    found = site.files("secrets")
    assert (found["token"], found["keys"]) == (b"open sesame", b"key akey bkey a")
    assert not any(name.startswith("run/secrets") for name in found), "no more than they copy stays in the image"
    no_credentials(found)
    assert b"/run/secrets/keys/b" in found["seen"], "where there is something it is found"


def test_a_cache_in_the_registry_is_used_and_its_credentials_are_not_seen(site):
    dockerfile = f"""
        FROM {site.host}/base/small:1
        RUN cat /proc/sys/kernel/random/uuid >/random
        {LOOK}
        """
    found = []
    for name in ("filling", "filled"):
        site.apply(name, dockerfile, params={"cache": f"{site.host}/cache/layers"})
        site.loaded(name)
        found.append(site.files(name))
    no_credentials(found[0])
    assert found[0]["random"] == found[1]["random"], "it was not run again"


def test_a_run_that_fails_says_why_without_what_its_secret_holds(site):
    site.secret("quoted", word="open barley")
    site.apply(
        "failing",
        f"""
        FROM {site.host}/base/small:1
        RUN echo no rule to make target: $(cat /run/secrets/quoted/word); exit 7
        """,
        secrets=[{"name": "quoted"}],
    )
    message = site.fails("failing")
    assert message.startswith("build ended with exit code 7: ")
    assert "no rule to make target: ***" in message
    assert "exit status 7" in message
    assert "open barley" in site.output("failing"), "it was said"
    eventually(lambda: site.condition("Ready", "failing").get("reason") == "BuildFailed", "Ready says so", WITHIN_S)
    for text in (json.dumps(site.module("failing")), json.dumps(site.events())):
        assert "open barley" not in text
    site.remove("failing")


def test_a_wrong_password_fails_the_push_and_says_so(site, plain):
    dockerfile = f"FROM {plain}/base/small:1\nRUN ls"
    site.apply("stranger", dockerfile, push="wrong", baseImageRegistryTLS={"insecure": True})
    message = site.fails("stranger")
    assert message.startswith("push ended with exit code 125: ")
    assert "authentication required" in message
    site.remove("stranger")


def test_the_registries_of_base_and_target_are_trusted_apart(site, other):
    dockerfile = f"FROM {other}/base/small:1\nRUN ls"
    site.apply("trusting", dockerfile)
    message = site.fails("trusting")
    assert "certificate signed by unknown authority" in message
    assert f"{other}/base/small" in message
    site.change("trusting", params={"caConfigMap": "both-ca"})
    site.loaded("trusting")
    skipping = {"insecureSkipTLSVerify": True}
    site.apply("skipping", dockerfile, params={"caConfigMap": "other-ca"}, baseImageRegistryTLS=skipping)
    message = site.fails("skipping")
    assert message.startswith("push ended with exit code 125: ")
    assert "certificate signed by unknown authority" in message
    site.remove("skipping")


def test_nodes_of_two_architectures_get_an_index_of_what_was_built_on_each(site):
    site.apply("mixed", f"FROM {site.host}/base/small:1\nRUN ls >/seen", nodes=MIXED)
    said = site.loaded("mixed")
    reference = f"docker://{site.loaders_image('mixed')}"
    raw = _skopeo(site, "inspect", "--raw", reference)
    assert digest_of(raw.encode()) == said["digest"]
    pulled = site.folder / "mixed"
    _skopeo(site, "copy", "--quiet", "--all", reference, f"dir:{pulled}", end="src-")
    digests = {each["platform"]["architecture"]: each["digest"] for each in json.loads(raw)["manifests"]}
    assert digests.keys() == {"amd64", "arm64"}
    assert len(set(digests.values())) == 2, "each was built"


def test_a_base_image_that_is_missing_is_named(site):
    site.apply("baseless", f"FROM {site.host}/base/nothing:1\nRUN ls")
    message = site.fails("baseless")
    assert f"{site.host}/base/nothing" in message
    assert "with imageRepoSecret: " in message
    assert "manifest unknown" in message
    site.remove("baseless")


def test_a_changed_argument_builds_again_at_once_and_arguments_arrive_as_they_are(site):
    raw = """a  b $(HOME) $HOME $$ `ls` "q" 'q' \\n ; * ü , = --x"""
    dockerfile = f"""
        FROM {site.host}/base/small:1
        ARG FLAVOUR
        ARG RAW
        RUN echo "$FLAVOUR" | grep -x good && echo "$RAW" >/raw
        """
    # In the Module itself, $$ is one dollar.
    args = [{"name": "RAW", "value": raw.replace("$", "$$")}]
    site.apply("changing", dockerfile, buildArgs=[*args, {"name": "FLAVOUR", "value": "bad"}])
    site.fails("changing")
    site.change("changing", buildArgs=[*args, {"name": "FLAVOUR", "value": "good"}])
    site.loaded("changing")
    assert site.files("changing")["raw"].decode() == f"{raw}\n"


def test_where_overlay_cannot_be_used_vfs_is(site):
    site.apply("layered", f"FROM {site.host}/base/small:1\nRUN ls >/seen", selector=LAYERED)
    site.loaded("layered")
    assert "vfs it is" in site.output("layered")
    assert "seen" in site.files("layered")


@pytest.mark.parametrize(
    ("name", "options", "ends"),
    [("root", {}, ""), ("nodes-root", {"hostUsers": False}, "this cluster has ignored hostUsers: false")],
)
def test_root_builds_too_and_not_where_it_would_be_the_nodes_against_the_configuration(site, name, options, ends):
    site.config_map(name, {"dockerfile": f"FROM {site.host}/base/small:1\nRUN id"})
    request = BuildRequest(
        module=ModuleRef(namespace=NAMESPACE, name=name),
        kernel=site.release,
        architecture="amd64",
        dockerfile=f"FROM {site.host}/base/small:1",
        dockerfile_config_map=name,
        dockerfile_key="dockerfile",
        image=f"{site.host}/drivers/{name}:{site.release}",
        push_secret="push",
        node_selector=SELECTED,
        params={"caConfigMap": "registry-ca"},
    )
    (builder,) = kmm_builders(Settings(options={"privileged": True, **options}))
    (job,) = builder.render(request)
    job["metadata"] = {"name": f"{name}-build-1"}
    job["spec"]["template"]["metadata"] = {"labels": {f"{PREFIX}job-type": "build"}}
    assert site.api.post(jobs(NAMESPACE), job).code == 201

    def over() -> dict:
        found = site.api.get(f"{jobs(NAMESPACE)}/{name}-build-1").body
        pods = site.api.get(core(NAMESPACE, "pods"), labelSelector=f"job-name={name}-build-1").body["items"]
        progress = builder.observe([found], pods)
        return progress.state in (State.SUCCEEDED, State.FAILED) and progress

    found = eventually(over, "the Job ends", WITHIN_S)
    site.api.delete(f"{jobs(NAMESPACE)}/{name}-build-1", {"propagationPolicy": "Background"})
    assert ends in site.output(name)
    assert found.state is (State.FAILED if ends else State.SUCCEEDED), site.output(name)


@pytest.mark.parametrize("options", [{}, {"privileged": True, "hostUsers": False, "seLinuxType": "spc_t"}])
def test_a_real_api_server_takes_every_field_of_the_job(plane, options):
    request = BuildRequest(
        module=ModuleRef(namespace="default", name="m"),
        kernel="6.1.0",
        architecture="amd64",
        dockerfile="FROM registry.example.com/base",
        dockerfile_config_map="d",
        dockerfile_key="dockerfile",
        image="registry.example.com/m:6.1.0",
        secrets=(SecretFiles(name="s", keys=("k",)),),
        push_secret="p",
        tolerations=({"operator": "Exists"},),
        params={"caConfigMap": "ca", "resources": {"limits": {"memory": "4Gi"}}},
    )
    for builder in kmm_builders(Settings(options=options)):
        (job,) = builder.render(request)
        answer = plane.post(
            jobs("default"), {**job, "metadata": {"name": "j"}}, dryRun="All", fieldValidation="Strict"
        )
        assert (answer.code, answer.warnings) == (201, ()), answer.body
