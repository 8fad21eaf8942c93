"""The script that the containers run, with a buildah of the test's own."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "kmm_buildah/step.sh"
BUILDAH = """\
#!/bin/sh
printf '%s\\n' "$@" >>"$CALLS"
case "$*" in
*"--storage-driver overlay"*info) [ -z "${NO_OVERLAY-}" ] || { echo "overlay is unsupported" >&2; exit 1; } ;;
*info) [ -z "${NO_VFS-}" ] || { echo "cannot clone: Operation not permitted" >&2; exit 1; } ;;
*fail*) echo "Error: it failed" >&2; exit 125 ;;
*"$REFUSED"*) [ -n "${RECOVERS-}" ] && [ -e "$CALLS.slept" ] || { echo "$SAYS" >&2; exit 125; } ;;
esac
cat "${REGISTRY_AUTH_FILE-/dev/null}" >>"$CALLS.auth"
"""
SLEEP = """\
#!/bin/sh
echo "$1" >>"$CALLS.slept"
"""


class Container:
    """Containers of one pod: they share the storage. Paths below /kmm are below a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.homes = folder, 0
        for name in ("storage", "bin", "credentials", "pulled"):
            (folder / name).mkdir()
        for name, text in (("buildah", BUILDAH), ("sleep", SLEEP)):
            program = folder / "bin" / name
            program.write_text(text)
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run(self, *args: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        self.homes += 1
        home = self.folder / f"home{self.homes}"
        home.mkdir()
        self.calls = home / "calls"
        given = {
            "HOME": str(home),
            "CALLS": str(self.calls),
            "REGISTRIES": "registries",
            "REFUSED": "fail",
            "SAYS": "Error: it failed",
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            **env,
        }
        script = SCRIPT.read_text().replace("/kmm/", f"{self.folder}/")
        ran = subprocess.run(
            ["/bin/sh", "-c", script, "kmm", *args], env=given, capture_output=True, text=True, check=False
        )
        assert ran.returncode == code, ran.stderr
        return ran

    def every_call(self) -> list[list[str]]:
        """Return the arguments of each call, after those that all have."""
        calls = [each.splitlines() for each in f"\n{self.calls.read_text()}".split("\n--root\n")[1:]]
        return [words[words.index("--registries-conf") + 2 :] for words in calls]

    def called(self) -> list[str]:
        """Return the arguments of the last call."""
        return self.every_call()[-1]

    def slept(self) -> list[str]:
        found = self.calls.with_name("calls.slept")
        return found.read_text().split() if found.exists() else []

    def driver(self) -> str:
        return (self.folder / "storage/driver").read_text().strip()


@pytest.fixture
def container(tmp_path) -> Container:
    return Container(tmp_path)


def test_it_runs_buildah_with_the_arguments_word_by_word(container):
    container.run("build", "--build-arg=A=$(x) `y` ; z", "", "/context")
    assert container.called() == ["build", "--build-arg=A=$(x) `y` ; z", "", "/context"]
    assert container.driver() == "overlay"


def test_where_overlay_cannot_be_used_every_container_uses_vfs(container):
    ran = container.run("build", "x", NO_OVERLAY="1")
    assert "vfs" in ran.stderr
    container.run("push", "x")
    assert "\noverlay\n" not in container.calls.read_text()
    assert container.driver() == "vfs"


@pytest.mark.parametrize("forged", ["--root=/\n", "overlay.mount_program=/x", "\n", ""])
def test_a_driver_that_is_none_is_not_believed(container, forged):
    (container.folder / "storage/driver").write_text(forged)
    ran = container.run("push", "x", code=1)
    assert "is no storage driver" in ran.stderr
    assert not forged.strip() or forged.strip() not in ran.stderr, "it may be a link to anything"
    assert not container.calls.exists()


def test_a_node_that_lets_nobody_make_user_namespaces_is_told_of(container):
    ran = container.run("build", "x", code=1, NO_OVERLAY="1", NO_VFS="1")
    assert "cannot clone: Operation not permitted" in ran.stderr
    assert "user.max_user_namespaces" in ran.stderr
    assert "privileged" in ran.stderr


@pytest.mark.parametrize("name", [".dockerconfigjson", ".dockercfg"])
def test_credentials_of_either_type_are_used(container, name):
    auths = {"registry.example.com": {"auth": "eDp5"}}
    content = {"auths": auths} if name == ".dockerconfigjson" else auths
    (container.folder / "credentials" / name).write_text(json.dumps(content))
    container.run("push", "x")
    said = container.calls.with_name("calls.auth").read_text()
    assert json.loads(said[: len(said) // 2]) == {"auths": auths}, "asked twice: info, push"


def test_every_image_is_pulled_with_the_flags(container):
    container.run("pull", "--tls-verify=false", "--cert-dir=/c", "--", "a", "b")
    assert container.called() == ["pull", "--tls-verify=false", "--cert-dir=/c", "b"]
    assert "\na\n" in container.calls.read_text()


def test_an_image_that_cannot_be_pulled_fails_only_the_build_that_needs_it_and_that_says_why(container):
    ran = container.run("pull", "--", "fail", "b")
    assert "Error: it failed" in ran.stderr
    assert container.called() == ["pull", "b"], "the others are pulled all the same"
    assert "imageRepoSecret" not in container.run("build", "x").stderr
    ran = container.run("build", "fail", code=125)
    assert ran.stderr.splitlines() == ["Error: it failed", "with imageRepoSecret: Error: it failed"]
    assert "imageRepoSecret" not in container.run("push", "fail", code=125).stderr


def test_a_cluster_that_ignored_host_users_builds_nothing(container):
    mapped = Path("/proc/self/uid_map").read_text().split()[1]
    if mapped != "0":
        pytest.skip("this machine is itself in a user namespace")
    ran = container.run("build", "x", code=1, OWN_USERS_ONLY="true")
    assert "hostUsers" in ran.stderr
    assert not container.calls.exists()


INDEX = ("index", "--tls-verify=false", "--", "r/m:1", "amd64", "r/m:1-amd64", "arm64", "r/m:1-arm64")


def test_who_finds_the_images_of_all_architectures_makes_the_index(container):
    (container.folder / "storage/driver").write_text("forged\n")
    container.run(*INDEX)
    assert "/storage/" not in container.calls.read_text(), "nothing that a build has written is read"
    add = ["manifest", "add", "--tls-verify=false", "--os=linux"]
    assert container.every_call() == [
        ["manifest", "create", "localhost/kmm-index"],
        [*add, "--arch=amd64", "localhost/kmm-index", "docker://r/m:1-amd64"],
        [*add, "--arch=arm64", "localhost/kmm-index", "docker://r/m:1-arm64"],
        ["manifest", "push", "--all", "--tls-verify=false", "localhost/kmm-index", "docker://r/m:1"],
    ]


ADD = "add --tls-verify=false --os=linux --arch=arm64"


@pytest.mark.parametrize(
    "says",
    [
        "Error: reading manifest 1-arm64 in r/m: manifest unknown",
        "Error: reading manifest 1-arm64 in r/m: name unknown: repository name not known to registry",
        "Error: reading manifest 1-arm64 in r/m: unknown: artifact m:1-arm64 not found",
        "Error: reading manifest 1-arm64 in r/m: unknown: Tag 1-arm64 was deleted or has expired. To pull, revive",
        "Error: reading manifest 1-arm64 in r/m: StatusCode: 404, nothing here",
    ],
)
def test_who_does_not_find_them_all_leaves_the_index_to_the_one_who_will(container, says):
    ran = container.run(*INDEX, REFUSED=ADD, SAYS=says)
    assert "the image for arm64 is not there yet" in ran.stderr
    assert says in ran.stderr
    assert not any("push" in call for call in container.every_call())
    assert not container.slept()


PUSH = ("push", "x", "docker://r/m:1")
BLOB_UNKNOWN = "Error: writing manifest: manifest blob unknown: blob unknown to registry"
EACH_THAT_WRITES = pytest.mark.parametrize(
    ("args", "refused"), [(INDEX, ADD), (INDEX, "manifest push"), (PUSH, "push")], ids=["add", "index", "push"]
)


@EACH_THAT_WRITES
def test_what_a_registry_does_not_take_is_tried_again_and_then_is_a_failure(container, args, refused):
    ran = container.run(*args, code=125, REFUSED=refused, SAYS=BLOB_UNKNOWN)
    assert ran.stderr.splitlines() == [BLOB_UNKNOWN] * 3
    assert container.slept() == ["2", "10"]
    assert not refused.startswith("add") or not any("push" in call for call in container.every_call())


@EACH_THAT_WRITES
@pytest.mark.parametrize(
    "says",
    [
        "Error: reading manifest 1-arm64 in r/m: unauthorized: access to the requested resource is not authorized",
        "Error: writing blob: checking whether a blob exists: authentication required",
        "Error: writing blob: denied: requested access to the resource is denied",
    ],
)
def test_credentials_that_are_refused_are_not_tried_again(container, args, refused, says):
    ran = container.run(*args, code=125, REFUSED=refused, SAYS=says)
    assert ran.stderr.splitlines() == [says]
    assert not container.slept()


@EACH_THAT_WRITES
def test_a_registry_that_recovers_gets_it(container, args, refused):
    container.run(*args, REFUSED=refused, RECOVERS="1")
    assert container.slept() == ["2"]
