"""The Build is frozen: KMM_WRITE_GOLDEN=1 writes the golden files anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kmm_openshift_build import BUILD, OpenShiftBuild, kmm_builders
from kmm_openshift_build import kmm_validate_module as judge

from kmm.contract import (
    BuildArg,
    BuildRequest,
    Limited,
    ModuleRef,
    SecretFiles,
    Settings,
    SettingsError,
    Severity,
    State,
    Tls,
)

GOLDEN = Path(__file__).parent / "golden"
# As in tests/conftest.py, which is not there where these tests run alone.
SAME = settings(deadline=None, derandomize=True, database=None)


def ask(**fields) -> BuildRequest:
    asked = {
        "module": ModuleRef(namespace="n", name="m"),
        "kernel": "5.14.0-427.22.1.el9_4.x86_64",
        "architecture": "amd64",
        "dockerfile": "ARG DTK_AUTO\nFROM ${DTK_AUTO}\nRUN make",
        "dockerfile_config_map": "files",
        "dockerfile_key": "dockerfile",
        "image": "image-registry.openshift-image-registry.svc:5000/n/driver:5.14.0",
    }
    return BuildRequest(**(asked | fields))


def render(builder: OpenShiftBuild | None = None, **fields) -> dict:
    (made,) = (builder or OpenShiftBuild()).render(ask(**fields))
    return json.loads(json.dumps(made, allow_nan=False))


EVERYTHING = {
    "args": (BuildArg(name="KERNEL_VERSION", value="5.14.0"), BuildArg(name="FLAGS", value="-O2 $(x) $$ -g")),
    "secrets": (SecretFiles(name="etc-pki-entitlement", keys=("a.pem", "a-key.pem")), SecretFiles(name="x" * 253)),
    "push_secret": "push",
    "push_tls": Tls(insecure=True, skip_verify=True),
    "base_tls": Tls(insecure=True, skip_verify=True),
    "node_selector": {"pool": "build"},
    "tolerations": ({"key": "build", "operator": "Exists"},),
    "builder_tag": "v1.24.0",
    "inputs": "0123abcd",
    "architecture": "arm64",
    "params": {"resources": {"limits": {"memory": "4Gi"}}, "activeDeadlineSeconds": 600},
}


@pytest.mark.parametrize(
    ("name", "made"),
    [("plain", render()), ("everything", render(**EVERYTHING)), ("dry", render(**(EVERYTHING | {"image": None})))],
)
def test_the_build_is_as_it_was(name, made):
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("KMM_WRITE_GOLDEN"):
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert made == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("image", "base", "pulls"),
    [
        ("quay.io/acme/driver:1", "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:" + "0" * 64, False),
        ("registry.example.com/acme/driver:1", "quay.io/openshift-release-dev/ocp-v4.0-art-dev:1", True),
        ("acme/driver:1", "docker.io/library/toolkit:1", False),
        ("quay.io/acme/driver:1", "", True),
        (None, "quay.io/openshift-release-dev/ocp-v4.0-art-dev:1", False),
        (None, "", True),
    ],
)
def test_the_modules_credentials_do_not_take_the_place_of_those_for_the_toolkit(image, base, pulls):
    made = render(image=image, base_images=(base,) if base else (), push_secret="push")["spec"]
    assert ("pullSecret" in made["strategy"]["dockerStrategy"]) is pulls
    assert image is None or made["output"]["pushSecret"] == {"name": "push"}


def test_without_an_image_nothing_is_pushed():
    assert "output" not in render(image=None)["spec"]


def test_what_a_build_has_no_field_for_is_told_and_changes_nothing():
    builder = OpenShiftBuild()
    assert isinstance(builder, Limited)
    assert builder.ignores == ("base_tls", "push_tls", "builder_tag")
    insecure = Tls(insecure=True, skip_verify=True)
    assert render(base_tls=insecure, push_tls=insecure, builder_tag="v1") == render()


HOSTILE = [
    "",
    " ",
    "a b",
    "'; reboot; '",
    "`reboot`",
    "$(reboot)",
    "$$",
    "${KERNEL_VERSION}",
    "a\nb",
    '"',
    "\x1b[31m",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_of_an_argument_stays_what_it_is(value):
    made = render(args=(BuildArg(name="A", value=value),))
    assert made["spec"]["strategy"]["dockerStrategy"]["buildArgs"] == [{"name": "A", "value": value}]


@pytest.mark.parametrize(("name", "value"), [("", "a"), ("KERNEL_VERSION=5", "a"), ("A\0", "a"), ("A", "\0")])
def test_an_argument_that_would_be_another_one_is_refused(name, value):
    with pytest.raises(ValueError, match=r"build.buildArgs: "):
        render(args=(BuildArg(name=name, value=value),))


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "A", "x" * 254])
def test_what_no_secret_can_be_called_is_refused(name):
    with pytest.raises(ValueError, match="is the name of no Secret"):
        render(secrets=(SecretFiles(name=name),))


def test_whoever_makes_builds_needs_the_right_to_their_strategy():
    assert BUILD.creating == ("docker",)


# ── How far it has come ───────────────────────────────────────────────────────────────────────────────────────


def seen(phase: str = "", pods=(), **status):
    build = {"kind": "Build", "status": {**({"phase": phase} if phase else {}), **status}}
    return OpenShiftBuild().observe([build], list(pods))


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        ("", State.PENDING),
        ("New", State.PENDING),
        ("Pending", State.PENDING),
        ("Running", State.RUNNING),
        ("Complete", State.SUCCEEDED),
        ("Failed", State.FAILED),
        ("Error", State.FAILED),
        ("Cancelled", State.FAILED),
        ("Resting", State.RUNNING),
    ],
)
def test_each_phase_is_a_state_and_an_unknown_one_has_not_ended(phase, state):
    assert seen(phase).state is state


def test_why_it_failed_is_openshifts_word_and_the_end_of_the_log():
    said = seen(
        "Failed",
        reason="DockerBuildFailed",
        message="Docker build strategy has failed.",
        logSnippet="a\nmake: *** no",
    )
    assert (said.reason, said.message) == ("DockerBuildFailed", "Docker build strategy has failed.: a\nmake: *** no")


@pytest.mark.parametrize(
    ("phase", "says"),
    [("Failed", "the build failed"), ("Error", "could not run"), ("Cancelled", "somebody cancelled")],
)
def test_where_openshift_says_nothing_the_phase_does(phase, says):
    said = seen(phase)
    assert said.reason == phase
    assert says in said.message


def test_of_a_long_log_whole_lines_are_kept():
    said = seen("Failed", logSnippet="\n".join(f"{number} {'x' * 100}" for number in range(50)))
    lines = said.message.removeprefix("the build failed: ").splitlines()
    assert 1 < len(lines) < 10
    assert all(len(line) == 103 for line in lines)


def test_why_it_does_not_start_is_told_by_openshift_else_by_its_pod():
    said = seen("New", reason="CannotCreateBuildPod", message="no quota")
    assert (said.state, said.reason, said.message) == (State.PENDING, "CannotCreateBuildPod", "no quota")
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pod = {"metadata": {"name": "m-build"}, "status": {"conditions": [unscheduled]}}
    said = seen("Pending", [pod])
    assert (said.reason, said.message) == ("Unschedulable", "no node takes its pod: Unschedulable: 0/3 nodes")


@SAME
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(("Failed", "New", "Build")),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(("kind", "status", "phase", "reason", "logSnippet")), inner, max_size=3)
        ),
    )
)
def test_any_json_is_observed(status):
    OpenShiftBuild().observe([status, {"kind": "Build", "status": status}], [status])
    OpenShiftBuild().observe([{"kind": "Build", "status": status}], [status])


# ── What is configured, and what Modules ask ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"activeDeadlineSeconds": 0}, "plugins.options.openshift-build.activeDeadlineSeconds: must be"),
        ({"resources": {"limits": {"memory": "much"}}}, "resources.limits.memory: must be a quantity"),
        ({"caConfigMap": "a"}, 'unknown option "caConfigMap"'),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, says):
    with pytest.raises(SettingsError, match=says):
        kmm_builders(Settings(options=options))


def test_what_a_module_asks_for_wins_over_the_options():
    (builder,) = kmm_builders(Settings(options={"activeDeadlineSeconds": 100, "resources": {"limits": {"cpu": "1"}}}))
    made = render(builder)["spec"]
    assert (made["completionDeadlineSeconds"], made["resources"]) == (100, {"limits": {"cpu": "1"}})
    made = render(builder, params={"activeDeadlineSeconds": 7, "resources": {"requests": {"cpu": "2"}}})["spec"]
    assert (made["completionDeadlineSeconds"], made["resources"]) == (7, {"requests": {"cpu": "2"}})


def test_unknown_params_are_refused_by_name():
    with pytest.raises(ValueError, match=r'build.params: unknown "resource"; did you mean "resources"'):
        render(params={"resource": {}})


def found(build) -> list[tuple[str, Severity, str]]:
    container = {"kernelMappings": [{"build": build}]}
    manifest = {"spec": {"moduleLoader": {"container": container}}}
    return [(each.path.rpartition("build.")[2], each.severity, each.message) for each in judge(manifest)]


def test_modules_that_ask_for_it_by_name_are_judged():
    named = {"builder": "openshift-build"}
    assert found({**named, "params": {"activeDeadlineSeconds": 5}}) == []
    ((path, severity, message),) = found({**named, "params": {"deadline": 5}})
    assert (path, severity) == ("params", Severity.ERROR)
    assert 'unknown "deadline"' in message
    unused = found({**named, "baseImageRegistryTLS": {"insecure": True}, "kanikoParams": {"tag": "v1"}})
    assert [each[:2] for each in unused] == [
        ("baseImageRegistryTLS", Severity.WARNING),
        ("kanikoParams", Severity.WARNING),
    ]
    assert "image.config.openshift.io" in unused[0][2]
    assert found({"builder": "buildah", "baseImageRegistryTLS": {"insecure": True}}) == []
