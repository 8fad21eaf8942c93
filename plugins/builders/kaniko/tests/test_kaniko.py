"""The Job is frozen: KMM_WRITE_GOLDEN=1 writes the golden files anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kmm_kaniko import IMAGE, Kaniko, arguments, kmm_builders
from kmm_kaniko import kmm_validate_module as judge

from kmm.contract import BuildArg, BuildRequest, ModuleRef, SecretFiles, Settings, SettingsError, State, Tls
from kmm.embedded.volume import expanded
from kmm.oci import reference

GOLDEN = Path(__file__).parent / "golden"
DIGEST = "sha256:" + "a" * 64
# As in tests/conftest.py, which is not there where these tests run alone.
SAME = settings(deadline=None, derandomize=True, database=None)
IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "SSL_CERT_DIR": "/here"}


def ask(**fields) -> BuildRequest:
    asked = {
        "module": ModuleRef(namespace="n", name="m"),
        "kernel": "6.1.0",
        "architecture": "amd64",
        "dockerfile": "FROM scratch",
        "dockerfile_config_map": "files",
        "dockerfile_key": "dockerfile",
        "image": "registry.example.com:5000/acme/driver:6.1.0",
    }
    return BuildRequest(**(asked | fields))


def render(builder: Kaniko | None = None, **fields) -> dict:
    (made,) = (builder or Kaniko()).render(ask(**fields))
    return json.loads(json.dumps(made, allow_nan=False))


def container(builder: Kaniko | None = None, **fields) -> dict:
    return render(builder, **fields)["spec"]["template"]["spec"]["containers"][0]


def argv(**fields) -> list[str]:
    """Return what the executor gets, once Kubernetes has replaced what it replaces."""
    return [expanded(each, IN_POD) for each in container(**fields)["args"]]


EVERYTHING = {
    "args": (BuildArg(name="KERNEL_VERSION", value="6.1.0"), BuildArg(name="FLAGS", value="-O2 -g")),
    "secrets": (SecretFiles(name="licence", keys=("token",)), SecretFiles(name="x" * 253)),
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
    [
        ("plain", render()),
        ("everything", render(kmm_builders(Settings(options={"caConfigMap": "authorities"}))[0], **EVERYTHING)),
        ("no-push", render(image=None)),
    ],
)
def test_the_job_is_as_it_was(name, made):
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("KMM_WRITE_GOLDEN"):
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert made == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"push_tls": Tls(insecure=True)}, "--insecure"),
        ({"push_tls": Tls(skip_verify=True)}, "--skip-tls-verify"),
        ({"base_tls": Tls(insecure=True)}, "--insecure-pull"),
        ({"base_tls": Tls(skip_verify=True)}, "--skip-tls-verify-pull"),
    ],
)
def test_each_side_has_tls_of_its_own(fields, flag):
    assert set(argv(**fields)) - set(argv()) == {flag}


def test_without_an_image_nothing_is_pushed():
    assert "--no-push" in argv(image=None)
    assert not any(each.startswith("--destination") for each in argv(image=None))
    assert "--no-push" not in argv()


HOSTILE = [
    *("", " ", "a b", "'; reboot; '", "`reboot`", "$(reboot)", "$$", "$", "$$(HOME)", "--no-push", "a=b,c=d", "\\"),
    *("$(KUBERNETES_SERVICE_HOST)", "$$(SSL_CERT_DIR)", "${KERNEL_VERSION}", "a\nb", '"unbalanced', "\x1b[31m"),
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_of_an_argument_is_one_word_and_stays_what_it_is(value):
    assert argv(args=(BuildArg(name="A", value=value),))[-1] == f"--build-arg=A={value}"
    assert len(argv(args=(BuildArg(name="A", value=value),))) == len(argv()) + 1


@SAME
@given(name=st.text(min_size=1).filter(lambda name: not {"=", "\0"} & {*name}), value=st.text("$()A{}-= \n"))
def test_any_argument_arrives_as_it_was_written(name, value):
    args = (BuildArg(name=name, value=value), BuildArg(name="LAST", value="1"))
    assert argv(args=args)[-2:] == [f"--build-arg={name}={value}", "--build-arg=LAST=1"]


@pytest.mark.parametrize(("name", "value"), [("", "a"), ("KERNEL_VERSION=5", "a"), ("A\0", "a"), ("A", "\0")])
def test_an_argument_that_would_be_another_one_is_refused(name, value):
    with pytest.raises(ValueError, match=r"build.buildArgs: "):
        render(args=(BuildArg(name=name, value=value),))


def test_arguments_keep_their_order():
    args = tuple(BuildArg(name=name, value="") for name in ("B", "A", "C"))
    assert [each for each in arguments(ask(args=args)) if "build-arg" in each] == [
        "--build-arg=B=",
        "--build-arg=A=",
        "--build-arg=C=",
    ]


@pytest.mark.parametrize(
    ("image", "becomes"),
    [
        ("gcr.io/kaniko-project/executor:latest", "gcr.io/kaniko-project/executor:v1"),
        ("registry:5000/executor", "registry:5000/executor:v1"),
        (f"registry:5000/executor@{DIGEST}", "registry:5000/executor:v1"),
        (f"executor:v2@{DIGEST}", "executor:v1"),
    ],
)
def test_a_tag_that_the_module_asks_for_replaces_the_images_and_its_digest(image, becomes):
    builder = Kaniko(image=reference.parse(image))
    assert container(builder, builder_tag="v1")["image"] == becomes
    assert container(builder)["image"] == image
    assert container(builder, builder_tag="")["image"] == image


@pytest.mark.parametrize("tag", ["a b", "5000/evil", f"v1@{DIGEST}", "-v", ".", "a:b", "v" * 129, "é", "v1\n"])
def test_a_tag_that_is_none_is_refused_by_name(tag):
    with pytest.raises(ValueError, match=r"build.kanikoParams.tag: "):
        render(Kaniko(image=reference.parse("executor")), builder_tag=tag)


def test_the_image_comes_from_the_option_else_the_environment_else_the_fork():
    images = {"build": "registry.example.com/executor:1"}

    def chosen(**settings) -> str:
        return container(kmm_builders(Settings(**settings))[0])["image"]

    assert chosen(options={"image": "a/b:2"}, images=images) == "a/b:2"
    assert chosen(images=images) == "registry.example.com/executor:1"
    assert chosen() == IMAGE


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "A B"}, "image: "),
        ({"image": 1}, "image: must be an image"),
        ({"caConfigMap": []}, "plugins.options.kaniko.caConfigMap: must be the name of a ConfigMap"),
        ({"caConfigMap": ""}, "caConfigMap: must be the name"),
        ({"caConfigMap": "Our CA"}, "caConfigMap: must be the name"),
        ({"activeDeadlineSeconds": 0}, "plugins.options.kaniko.activeDeadlineSeconds: must be"),
        ({"resources": {"limits": {"memory": "much"}}}, "resources.limits.memory: must be a quantity"),
        ({"images": "a"}, 'unknown option "images"; did you mean "image"'),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, says):
    with pytest.raises(SettingsError, match=says):
        kmm_builders(Settings(options=options))


def test_unknown_params_are_refused_by_name():
    with pytest.raises(ValueError, match=r'build.params: unknown "resource"; did you mean "resources"'):
        render(params={"resource": {}})


def test_what_a_module_asks_for_wins_over_the_options():
    options = {"activeDeadlineSeconds": 100, "resources": {"limits": {"cpu": "1"}}}
    (builder,) = kmm_builders(Settings(options=options))
    assert render(builder)["spec"]["activeDeadlineSeconds"] == 100
    assert container(builder)["resources"] == {"limits": {"cpu": "1"}}
    params = {"activeDeadlineSeconds": 7, "resources": {"requests": {"cpu": "2"}}}
    assert render(builder, params=params)["spec"]["activeDeadlineSeconds"] == 7
    assert container(builder, params=params)["resources"] == {"requests": {"cpu": "2"}}


def module(default=None, *mappings) -> dict:
    container = {"kernelMappings": list(mappings), **({"build": default} if default else {})}
    return {"spec": {"moduleLoader": {"container": container}}}


def found(manifest) -> list[tuple[str, str]]:
    return [(each.path.removeprefix("spec.moduleLoader.container."), each.message) for each in judge(manifest)]


def test_modules_that_ask_for_it_by_name_are_judged():
    assert found(module({"builder": "kaniko", "params": {"activeDeadlineSeconds": 5}})) == []
    wrong = {"builder": "kaniko", "params": {"deadline": 5}, "kanikoParams": {"tag": "a b"}}
    (params, tag) = found(module(None, {"build": {}}, {"build": wrong}))
    assert params[0] == "kernelMappings[1].build.params"
    assert 'unknown "deadline"' in params[1]
    assert tag == (
        "kernelMappings[1].build.kanikoParams.tag",
        '"a b" is no tag: letters, digits, _, . and -, not beginning with . or -',
    )
    ((path, _),) = found(module({"builder": "kaniko"}, {"build": {"params": {"x": 1}}}))
    assert path == "kernelMappings[0].build.params"
    assert found(module({"builder": "buildah", "params": {"x": 1}}, {"build": {"params": {"x": 1}}})) == []


@SAME
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(("spec", "moduleLoader", "container", "build")), inner, max_size=2)
            | st.fixed_dictionaries({"builder": st.just("kaniko"), "params": inner, "kanikoParams": inner})
            | st.fixed_dictionaries({"kernelMappings": inner, "build": inner})
        ),
    ).filter(lambda each: isinstance(each, dict))
)
def test_any_json_is_judged(manifest):
    judge(manifest)


def test_a_build_that_is_stopped_is_gone_before_the_next_one_pushes():
    assert render()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 1


def test_what_it_makes_depends_on_nothing_else():
    assert render(**EVERYTHING) == render(**EVERYTHING)


def test_progress_is_the_jobs():
    conditions = [{"type": "Complete", "status": "True"}]
    job = {"kind": "Job", "status": {"conditions": conditions}}
    assert Kaniko().observe([job], []).state is State.SUCCEEDED
