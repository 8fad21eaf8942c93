"""Builds with kaniko for real: the operator renders a Job, and kaniko's executor runs as its pod says."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import os
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from apiserver.client import eventually
from apiserver.samples import jobs
from e2e.container import NAMESPACES, OWN_ROOT
from e2e.executor import Missing, executor
from e2e.site import WITHIN_S, Site, files_of
from registry.docker_registry import Missing as NoRegistry
from registry.docker_registry import program
from world import NAMESPACE

from kmm.contract import INPUTS_ANNOTATION
from kmm.embedded.image import digest_of
from kmm.embedded.program import Exit, Run, process

pytestmark = pytest.mark.kaniko

KERNEL = "6.1.0-18-amd64"
# What kaniko's image sets, as far as it matters.
IMAGE_ENV = {
    "PATH": "/usr/local/bin:/kaniko",
    "SSL_CERT_DIR": "/kaniko/ssl/certs",
    "DOCKER_CONFIG": "/kaniko/.docker/",
}
# What container runtimes give to whoever asks for nothing.
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
TOKEN = "the-licences-own-token"
HOSTILE = 'a\'b "c" $(id) `id` $$ ${HOME} \\'


async def contained(run: Run, program: Path, folder: Path) -> Exit:
    """Run kaniko in a root of its own, with the pod's volumes, capabilities and arguments."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary, "root")
        for each in ("kaniko/ssl/certs", "etc", "tmp"):
            (root / each).mkdir(parents=True)
        os.link(program, root / "kaniko/executor")
        asked = run.container["securityContext"]
        assert asked["seccompProfile"] == {"type": "RuntimeDefault"}
        kept = CAPABILITIES.keys() - set(asked["capabilities"]["drop"])
        read_only = {mount["mountPath"] for mount in run.container["volumeMounts"] if mount.get("readOnly")}
        told = {
            "root": str(root),
            "mounts": [[str(real), path, path in read_only] for path, real in run.mounts.items()],
            "capabilities": sorted(CAPABILITIES[each] for each in kept),
            "argv": ["/kaniko/executor", *run.argv],
            "env": IMAGE_ENV | dict(run.env),
        }
        spec = Path(temporary, "spec.json")
        await asyncio.to_thread(spec.write_text, json.dumps(told))
        argv = (*NAMESPACES, sys.executable, str(OWN_ROOT), str(spec))
        return await process(dataclasses.replace(run, argv=argv, env={}, mounts={}))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    lacking = "a root of its own needs root here, and busybox for it"
    try:
        if not os.geteuid() and Path("/usr/bin/busybox").exists():
            executor()
            program()
            lacking = ""
    except (Missing, NoRegistry) as missing:
        lacking = str(missing)
    if lacking:
        assert not os.environ.get("CI"), lacking
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("kaniko")
    # On the same file system as the roots that it is linked into.
    own = folder / "executor"
    own.write_bytes(executor().read_bytes())
    own.chmod(0o755)
    busybox = Path("/usr/bin/busybox")
    container = functools.partial(contained, program=own, folder=folder)
    with ExitStack() as stack:
        found = Site(folder, stack, release=KERNEL, busybox=busybox, builder="kaniko", container=container)
        found.secret("licence", token=TOKEN)
        yield found


def test_what_a_dockerfile_makes_of_arguments_and_secrets_is_pushed_found_and_loaded(site):
    site.apply(
        "driver",
        f"""
        FROM {site.host}/base/small:1 AS build
        ENV PATH=/bin
        ARG KERNEL_VERSION
        ARG MOD_NAME
        ARG ODD
        RUN mkdir -p /out && cat /run/secrets/licence/token | grep -q licence && env | grep ^ODD= >/out/odd
        RUN echo "$MOD_NAME for $KERNEL_VERSION" >/out/driver && id >/out/id
        FROM {site.host}/base/small:1
        ARG KERNEL_VERSION
        COPY --from=build /out /opt/lib/modules/$KERNEL_VERSION
        """,
        secrets=[{"name": "licence"}],
        buildArgs=[{"name": "ODD", "value": HOSTILE.replace("$", "$$")}, {"name": "KERNEL_VERSION", "value": "5"}],
    )
    said = site.loaded("driver")
    assert said["digest"] == digest_of(site.manifest("driver"))
    assert re.fullmatch("[0-9a-f]{64}", site.labels("driver")[INPUTS_ANNOTATION])
    layers = site.layers("driver")
    found = files_of(layers)
    folder = f"opt/lib/modules/{KERNEL}"
    assert found[f"{folder}/driver"] == f"driver for {KERNEL}\n".encode()
    assert found[f"{folder}/odd"].decode() == f"ODD={HOSTILE}\n"
    assert not any(TOKEN.encode() in each for each in layers), "secrets are in no layer"
    assert not any(name.startswith(("run/secrets/licence", "kaniko", "workspace")) for name in found)
    eventually(lambda: not site.api.get(jobs(NAMESPACE)).body["items"], "the Job is gone", WITHIN_S)


def test_a_run_that_fails_is_told_without_secrets_and_a_changed_argument_builds_at_once(site):
    site.apply(
        "fails",
        f"""
        FROM {site.host}/base/small:1
        ENV PATH=/bin
        ARG CODE
        RUN echo "no rule to make target" && cat /run/secrets/licence/token && exit $CODE
        """,
        secrets=[{"name": "licence"}],
        buildArgs=[{"name": "CODE", "value": "7"}],
    )
    message = site.fails("fails")
    assert message.startswith("kaniko ended with exit code 7: ")
    assert "no rule to make target" in message
    assert "exit status 7" in message
    assert TOKEN not in message
    assert "***" in message
    site.change("fails", secrets=[{"name": "licence"}], buildArgs=[{"name": "CODE", "value": "0"}])
    site.loaded("fails")


def test_a_wrong_password_is_told(site):
    site.apply("refused", f"FROM {site.host}/base/small:1", push="wrong")
    message = site.fails("refused")
    assert "error checking push permissions" in message
    assert "another-password" not in message
    site.remove("refused")


def test_a_base_image_that_is_missing_is_told(site):
    site.apply("baseless", f"FROM {site.host}/base/none:1\nRUN true")
    assert "base/none" in site.fails("baseless")
    site.remove("baseless")
