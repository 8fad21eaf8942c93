"""What is rendered. KMM_WRITE_GOLDEN=1 writes tests/golden anew."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kmm_buildah import Buildah, kmm_builders, kmm_validate_module

from kmm.contract import (
    INPUTS_ANNOTATION,
    BuildArg,
    BuildRequest,
    ModuleRef,
    SecretFiles,
    Settings,
    SettingsError,
    Severity,
    State,
    Tls,
)
from kmm.embedded.volume import expanded

JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["metadata", "spec", "status", "template", "name", "labels"]), inner)
    ),
    max_leaves=10,
)
GOLDEN = Path(__file__).parent / "golden"
BARE = BuildRequest(
    module=ModuleRef(namespace="n", name="m"),
    kernel="6.1.0",
    architecture="amd64",
    dockerfile="FROM scratch",
    dockerfile_config_map="d",
    dockerfile_key="dockerfile",
    image="registry.example.com:5000/drivers/m:6.1.0",
)
EVERYTHING = replace(
    BARE,
    architecture="arm64",
    dockerfile="ARG BASE\nFROM ${BASE}:1 AS b\nFROM registry.example.com/small\nRUN --mount=type=secret,id=token cat",
    dockerfile_key="Dockerfile",
    args=(BuildArg(name="BASE", value="registry.example.com/base"), BuildArg(name="EXPR", value="$(HOME) $$ ; rm")),
    secrets=(SecretFiles(name="keys", keys=("a.pem", "b")), SecretFiles(name="token", keys=("t",))),
    push_secret="push",
    push_tls=Tls(skip_verify=True),
    base_tls=Tls(insecure=True),
    node_selector={"builds": "yes"},
    tolerations=({"key": "k", "operator": "Exists"},),
    builder_tag="v1",
    inputs="0123",
    params={"resources": {"limits": {"memory": "4Gi"}}, "caConfigMap": "ca", "activeDeadlineSeconds": 60},
)
OPTIONS: dict[str, dict[str, Any]] = {
    "cached": {"cache": "registry.example.com:5000/cache"},
    "privileged": {"privileged": True, "hostUsers": False, "seLinuxType": "container_engine_t"},
}
CASES = {
    "bare": (BARE, {}),
    "everything": (EVERYTHING, {}),
    "not-pushed": (replace(BARE, image=None), {}),
    "cached": (replace(EVERYTHING, secrets=()), OPTIONS["cached"]),
    "privileged": (BARE, OPTIONS["privileged"]),
    "two-architectures": (replace(BARE, architectures=("amd64", "arm64"), push_secret="push", inputs="0123"), {}),
}


def builder(options: dict[str, Any] | None = None, **images: str) -> Buildah:
    (found,) = kmm_builders(Settings(options=options or {}, images=images))
    assert isinstance(found, Buildah)
    return found


def pod(request: BuildRequest = BARE, **options: Any) -> dict[str, Any]:
    (job,) = builder(options).render(request)
    return job["spec"]["template"]["spec"]


def steps(of_pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in (*of_pod.get("initContainers", ()), *of_pod["containers"])}


def argv(container: dict[str, Any]) -> list[str]:
    """Return what the process gets, after Kubernetes has replaced variables."""
    env = {each["name"]: each["value"] for each in container["env"]}
    return [expanded(each, env) for each in container["args"]]


@pytest.mark.parametrize("case", CASES)
def test_the_job_is_as_frozen(case):
    request, options = CASES[case]
    made = json.loads(json.dumps(builder(options).render(request)))
    for each in made:
        for container in steps(each["spec"]["template"]["spec"]).values():
            container["command"][2] = "step.sh"
    path = GOLDEN / f"{case}.yaml"
    if os.environ.get("KMM_WRITE_GOLDEN"):
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert made == yaml.safe_load(path.read_text())


def test_the_script_is_run_as_it_is_written():
    script = (Path(__file__).parents[1] / "kmm_buildah/step.sh").read_text()
    for container in steps(pod(EVERYTHING)).values():
        assert container["command"] == ["/bin/sh", "-c", script, "kmm"]
    assert expanded(script, {"HOME": "/tmp", "1": "x"}) == script


def test_nothing_that_runs_a_dockerfile_can_see_the_credentials():
    made = steps(pod(EVERYTHING))
    assert list(made) == ["pull", "build", "push"]
    mounted = {name: {each["name"] for each in container["volumeMounts"]} for name, container in made.items()}
    assert "credentials" in mounted["pull"] & mounted["push"]
    assert "credentials" not in mounted["build"]
    assert not {"secret-0", "secret-1"} & (mounted["pull"] | mounted["push"])
    assert mounted["pull"] & mounted["build"] == {"storage", "pulled", "authorities"}, (
        "what else one writes the other sees not"
    )
    (pulled,) = [each for each in made["build"]["volumeMounts"] if each["name"] == "pulled"]
    assert pulled["readOnly"]


@pytest.mark.parametrize("options", [{}, *OPTIONS.values()])
def test_what_a_dockerfile_runs_cannot_change_its_root_and_so_leave_it(options):
    for request in (BARE, EVERYTHING):
        assert "--cap-drop=CAP_SYS_CHROOT" in argv(steps(pod(request, **options))["build"])


def test_the_base_images_are_pulled_by_name_before():
    assert argv(steps(pod(EVERYTHING))["pull"]) == [
        "pull",
        "--tls-verify=false",
        "--cert-dir=/kmm/ca",
        "--",
        "registry.example.com/base:1",
        "registry.example.com/small",
    ]


def test_without_credentials_or_base_images_nothing_is_pulled_before():
    assert list(steps(pod(replace(EVERYTHING, push_secret=None)))) == ["build", "push"]
    assert list(steps(pod(replace(BARE, push_secret="push")))) == ["build", "push"]


def test_pulling_and_pushing_are_trusted_apart():
    for which, tls in (("base_tls", "build"), ("push_tls", "push")):
        for how in (Tls(insecure=True), Tls(skip_verify=True)):
            made = steps(pod(replace(BARE, **{which: how})))
            assert [name for name, each in made.items() if "--tls-verify=false" in argv(each)] == [tls]


def test_secrets_are_folders_and_mounts_and_one_key_is_enough_for_a_name():
    flags = [each for each in argv(steps(pod(EVERYTHING))["build"]) if each.startswith(("--secret", "--volume"))]
    assert flags == [
        "--secret=id=keys.a.pem,src=/run/secrets/keys/a.pem",
        "--secret=id=keys.b,src=/run/secrets/keys/b",
        "--volume=/run/secrets/keys:/run/secrets/keys:ro",
        "--secret=id=token,src=/run/secrets/token/t",  # the Dockerfile wants /run/secrets/token to be a file
    ]


def test_the_inputs_are_recorded_in_the_image():
    assert f"--label={INPUTS_ANNOTATION}=0123" in argv(steps(pod(EVERYTHING))["build"])


def test_a_cache_needs_the_credentials_where_it_builds_and_nothing_is_pulled_before():
    made = steps(pod(replace(EVERYTHING, secrets=()), **OPTIONS["cached"]))
    assert list(made) == ["build", "push"]
    assert "credentials" in {each["name"] for each in made["build"]["volumeMounts"]}
    flags = ["--layers", "--cache-from=registry.example.com:5000/cache", "--cache-to=registry.example.com:5000/cache"]
    assert [each for each in argv(made["build"]) if each.startswith(("--layers", "--cache"))] == flags


def test_what_holds_secrets_is_not_cached():
    made = steps(pod(EVERYTHING, **OPTIONS["cached"]))
    assert list(made) == ["pull", "build", "push"]
    assert not any("cache" in each for each in argv(made["build"]))


def test_the_credentials_of_a_cache_go_nowhere_that_is_verified_less_than_where_is_pushed():
    def cached(**tls: Tls) -> bool:
        build = steps(pod(replace(BARE, **tls), **OPTIONS["cached"]))["build"]
        return "--layers" in argv(build)

    assert cached(push_tls=Tls(insecure=True))
    assert cached(base_tls=Tls(insecure=True), push_tls=Tls(skip_verify=True))
    assert not cached(base_tls=Tls(insecure=True))
    assert not cached(base_tls=Tls(skip_verify=True))


def test_a_cache_in_the_registry_of_the_image_is_reached_as_that():
    def registries(cache: str, tls: Tls) -> str:
        env = steps(pod(replace(BARE, push_tls=tls), cache=cache))["build"]["env"]
        return next(each["value"] for each in env if each["name"] == "REGISTRIES")

    assert 'location = "registry.example.com:5000"\ninsecure = true' in registries(
        "registry.example.com:5000/cache", Tls(insecure=True)
    )
    assert "insecure" not in registries("registry.example.com:5000/cache", Tls())
    assert "insecure" not in registries("another.example.com/cache", Tls(insecure=True))


def test_it_has_no_privileges_but_those_that_make_a_user_namespace():
    for container in steps(pod(EVERYTHING)).values():
        asked = container["securityContext"]
        assert asked["capabilities"] == {"drop": ["ALL"], "add": ["SETGID", "SETUID"]}
        assert asked["runAsNonRoot"]
        assert asked["readOnlyRootFilesystem"]
        assert "privileged" not in asked


def test_nodes_of_the_architecture_are_asked_for_unless_the_module_names_others():
    assert pod(EVERYTHING)["nodeSelector"] == {"kubernetes.io/arch": "arm64", "builds": "yes"}
    selector = {"kubernetes.io/arch": "amd64"}
    assert pod(replace(EVERYTHING, node_selector=selector))["nodeSelector"] == selector


def test_the_image_is_the_options_else_the_environments_else_a_pinned_one():
    def image(options: dict[str, Any], **images: str) -> str:
        (job,) = builder(options, **images).render(BARE)
        return job["spec"]["template"]["spec"]["containers"][0]["image"]

    assert image({"image": "r.example.com/b:1"}, buildah="r.example.com/b:2") == "r.example.com/b:1"
    assert image({}, buildah="r.example.com/b:2") == "r.example.com/b:2"
    assert image({}, build="kaniko:1").startswith("quay.io/containers/buildah:v"), "the Go operator's is kaniko's"


def test_a_modules_params_win_over_the_options():
    made = builder({"activeDeadlineSeconds": 10, "caConfigMap": "ours"})
    (job,) = made.render(replace(BARE, params={"activeDeadlineSeconds": 20}))
    assert job["spec"]["activeDeadlineSeconds"] == 20
    volumes = {each["name"]: each for each in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["authorities"]["configMap"]["name"] == "ours"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"privilegd": True}, 'unknown option "privilegd"; did you mean "privileged"'),
        ({"privileged": "yes"}, "privileged: must be true or false"),
        ({"hostUsers": 0}, "hostUsers: must be true or false"),
        ({"image": "A B"}, "image: must be an image"),
        ({"seLinuxType": "a b"}, "seLinuxType: must be an SELinux type"),
        ({"cache": "registry.example.com/cache:1"}, "cache: must be a repository"),
        ({"cache": "cache"}, "cache: must be a repository with its registry"),
        ({"caConfigMap": "Ca"}, "caConfigMap: must be the name of a ConfigMap"),
        ({"activeDeadlineSeconds": 0}, "plugins.options.buildah.activeDeadlineSeconds: must be a whole number"),
        ({"resources": {"limit": {}}}, 'plugins.options.buildah.resources: unknown "limit"'),
    ],
)
def test_options_that_cannot_be_meant_are_refused_by_name(options, message):
    with pytest.raises(SettingsError, match=message.replace("(", r"\(")):
        kmm_builders(Settings(options=options))


def test_an_environment_that_names_no_image_is_refused():
    with pytest.raises(SettingsError, match="RELATED_IMAGES_BUILDAH: must be an image"):
        builder(buildah="A B")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"privileged": True}, 'build.params: unknown "privileged"'),
        ({"image": "r.example.com/mine"}, 'build.params: unknown "image"'),
        ({"cach": "x"}, 'did you mean "cache"'),
        ({"cache": 1}, "build.params.cache: must be"),
    ],
)
def test_a_module_can_choose_neither_privileges_nor_what_runs(params, message):
    with pytest.raises(ValueError, match=message):
        Buildah().render(replace(BARE, params=params))


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": (BuildArg(name="A=B", value="c"),)},
        {"args": (BuildArg(name="", value="c"),)},
        {"args": (BuildArg(name="A", value="\0"),)},
        {"secrets": (SecretFiles(name="a,src=/etc/shadow", keys=("k",)),)},
        {"secrets": (SecretFiles(name="a:/etc", keys=()),)},
        {"secrets": (SecretFiles(name="a", keys=("k,src=/etc",)),)},
        {"secrets": (SecretFiles(name="../a", keys=("k",)),)},
    ],
)
def test_names_that_would_mean_something_else_are_refused(wrong):
    with pytest.raises(ValueError, match=r"the name of no|the key of no|NUL"):
        Buildah().render(replace(BARE, **wrong))


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: not set("=\0") & set(name)), st.text(), max_size=4))
def test_whatever_an_argument_holds_it_is_one_word(args):
    args = {name: value.replace("\0", "") for name, value in args.items()}
    request = replace(BARE, args=tuple(BuildArg(name=name, value=value) for name, value in args.items()))
    words = argv(steps(pod(request))["build"])
    assert [each for each in words if each.startswith("--build-arg=")] == [
        f"--build-arg={name}={value}" for name, value in args.items()
    ]
    assert words[-1] == "/home/build/context"


def test_how_far_it_is_and_why_it_failed_is_read_from_the_job_and_its_pods():
    assert Buildah().observe([], []).state is State.PENDING
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    ended = {"name": "push", "state": {"terminated": {"exitCode": 125, "message": "unauthorized"}}}
    found = Buildah().observe(
        [{"kind": "Job", "status": {"conditions": [failed]}}], [{"status": {"containerStatuses": [ended]}}]
    )
    assert (found.state, found.message) == (State.FAILED, "push ended with exit code 125: unauthorized")


def several(**more: Any) -> list[dict[str, Any]]:
    request = replace(BARE, architectures=("amd64", "arm64"), inputs="0123456789abcdef", **more)
    return [job["spec"]["template"]["spec"] for job in builder().render(request)]


def test_each_architecture_is_built_where_it_is_at_home_and_then_makes_the_index():
    made = several(push_tls=Tls(skip_verify=True), node_selector={"builds": "yes", "kubernetes.io/arch": "s390x"})
    part = f"{BARE.image}-{{}}-0123456789ab"
    for each, architecture in zip(made, ("amd64", "arm64"), strict=True):
        assert each["nodeSelector"] == {"kubernetes.io/arch": architecture, "builds": "yes"}
        assert list(steps(each)) == ["build", "push", "index"]
        assert "storage" not in {mount["name"] for mount in steps(each)["index"]["volumeMounts"]}, (
            "RUN's, if it escapes"
        )
        assert argv(steps(each)["push"])[-1] == f"docker://{part.format(architecture)}"
        parts = ["amd64", part.format("amd64"), "arm64", part.format("arm64")]
        assert argv(steps(each)["index"]) == ["index", "--tls-verify=false", "--", BARE.image, *parts]


def test_the_index_is_made_with_the_credentials():
    for each in several(push_secret="push"):
        assert "credentials" in {mount["name"] for mount in steps(each)["index"]["volumeMounts"]}


def test_what_is_not_pushed_needs_no_index():
    assert [list(steps(each)) for each in several(image=None)] == [["build"], ["build"]]


def test_an_architecture_whose_image_would_have_too_long_a_name_is_told():
    with pytest.raises(ValueError, match=r"the image of an architecture of its own: .*128"):
        several(image=f"registry.example.com/m:{'1' * 120}")


def a_job(architecture: str, condition: str = "", **more: Any) -> dict[str, Any]:
    template = {"spec": {"nodeSelector": {"kubernetes.io/arch": architecture}}}
    conditions = [{"type": condition, "status": "True", "reason": condition}] if condition else []
    metadata = {"name": f"m-{architecture}"}
    return {"metadata": metadata, "spec": {"template": template}, "status": {"conditions": conditions, **more}}


def its_pod(architecture: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "labels": {"job-name": f"m-{architecture}"}}, "status": status}


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ("", "", State.PENDING),
        ("Complete", "", State.RUNNING),
        ("Failed", "", State.RUNNING),
        ("Failed", "Complete", State.FAILED),
        ("Complete", "Complete", State.SUCCEEDED),
    ],
)
def test_several_architectures_are_over_when_each_is(first, second, state):
    assert Buildah().observe([a_job("amd64", first), a_job("arm64", second)], []).state is state


def test_of_several_architectures_it_is_said_which_one_failed_and_why():
    ended = {"name": "build", "state": {"terminated": {"exitCode": 2, "message": "no rule"}}}
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "none"}
    pods = [
        its_pod("arm64", containerStatuses=[ended]),
        its_pod("amd64", phase="Pending", conditions=[unschedulable]),
    ]
    found = Buildah().observe([a_job("arm64", "Failed"), a_job("amd64")], pods)
    assert found.state is State.RUNNING
    said = ["amd64: no node takes its pod: Unschedulable: none", "arm64: build ended with exit code 2: no rule"]
    assert found.message == "; ".join(said)


@given(st.lists(JSON, max_size=3), st.lists(JSON, max_size=3))
def test_whatever_the_cluster_says_of_several_jobs_it_is_read(jobs, pods):
    jobs, pods = [[each for each in given if isinstance(each, dict)] for given in (jobs, pods)]
    assert Buildah().observe(jobs, pods).state in State


def module(*mappings: dict[str, Any], **build: Any) -> dict[str, Any]:
    container = {"kernelMappings": list(mappings), **({"build": build} if build else {})}
    return {"spec": {"moduleLoader": {"container": container}}}


def test_modules_that_ask_for_it_by_name_are_judged():
    ours = {"builder": "buildah", "params": {"x": 1}}
    found = kmm_validate_module(module({"build": ours}, {"build": {"params": {"x": 1}}}, {"literal": "k"}))
    assert [(each.path, each.severity) for each in found] == [
        ("spec.moduleLoader.container.kernelMappings[0].build.params", Severity.ERROR)
    ]
    whole = {"builder": "buildah", "kanikoParams": {"tag": "v1"}}
    found = kmm_validate_module(module({"build": {"params": {"x": 1}}}, {"build": {"builder": "kaniko"}}, **whole))
    assert [each.path.rpartition(".")[2] for each in found] == ["kanikoParams", "params"]
    assert found[0].severity is Severity.WARNING


@pytest.mark.parametrize(
    "manifest",
    [{}, {"spec": 1}, module(1, {"build": 1}), {"spec": {"moduleLoader": {"container": {"kernelMappings": 1}}}}],
)
def test_modules_that_are_none_are_left_to_others(manifest):
    assert kmm_validate_module(manifest) == []
