"""The Job is frozen: KMM_WRITE_GOLDEN=1 writes the golden files anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kmm_sign_file import HASHES, SignFile, kmm_signers
from kmm_sign_file import kmm_validate_module as judge

from kmm.contract import ModuleRef, Settings, SettingsError, SignRequest, State, Tls
from kmm.embedded.volume import expanded
from kmm.image_signing.job import SignOptions
from kmm.signing import digest

GOLDEN = Path(__file__).parent / "golden"
IMAGE = "registry.example.com/kmm-operator:1"
# As in tests/conftest.py, which is not there where these tests run alone.
SAME = settings(deadline=None, derandomize=True, database=None)


def ask(**fields) -> SignRequest:
    asked = {
        "module": ModuleRef(namespace="n", name="m"),
        "kernel": "6.1.0+deb",
        "unsigned_image": "registry.example.com:5000/acme/driver:6.1.0-unsigned",
        "image": "registry.example.com:5000/acme/driver:6.1.0",
        "dir_name": "/opt",
        "key_secret": "key",
        "cert_secret": "cert",
    }
    return SignRequest(**(asked | fields))


def render(signer: SignFile | None = None, **fields) -> dict:
    (made,) = (signer or SignFile(options=SignOptions(image=IMAGE))).render(ask(**fields))
    return json.loads(json.dumps(made, allow_nan=False))


def pod(signer: SignFile | None = None, **fields) -> dict:
    return render(signer, **fields)["spec"]["template"]["spec"]


def argv(**fields) -> list[str]:
    """Return what the command gets, once Kubernetes has replaced what it replaces."""
    return [expanded(each, {"TMPDIR": "/here"}) for each in pod(**fields)["containers"][0]["args"]]


EVERYTHING = {
    "files": ("/opt/lib/modules/6.1.0+deb/a.ko", "/opt/**/*.ko.xz"),
    "certificate": "ab" * 32,
    "push_secret": "push",
    "pull_secrets": ("push", "of-the-account"),
    "push_tls": Tls(insecure=True, skip_verify=True),
    "unsigned_tls": Tls(insecure=True, skip_verify=True),
    "node_selector": {"pool": "build"},
    "tolerations": ({"key": "build", "operator": "Exists"},),
    "params": {"hash": "sha512", "resources": {"limits": {"memory": "256Mi"}}, "activeDeadlineSeconds": 600},
}


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("plain", render()),
        (
            "everything",
            render(
                kmm_signers(Settings(options={"caConfigMap": "authorities", "image": IMAGE, "runAsUser": 1000}))[0],
                **EVERYTHING,
            ),
        ),
        ("no-push", render(SignFile(options=SignOptions(image=IMAGE, user=None)), image=None, cert_secret="key")),
    ],
)
def test_the_job_is_as_it_was(name, made):
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("KMM_WRITE_GOLDEN"):
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert made == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("fields", [{}, EVERYTHING, {"cert_secret": "key"}])
def test_the_pod_has_no_more_than_it_needs(fields):
    made = pod(**fields)
    assert made["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = made["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    secrets = [each["secret"] for each in made["volumes"] if "secret" in each]
    assert {each["defaultMode"] for each in secrets} == {0o440}
    # What is not there is told by the command: a pod that waits for it says nothing.
    assert all(each["optional"] and each["items"] for each in secrets)
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    assert {name for name, each in mounts.items() if not each.get("readOnly")} == {"temporary"}
    assert mounts.keys() == {each["name"] for each in made["volumes"]}


def test_key_and_certificate_may_be_in_one_secret():
    secrets = [each["secret"] for each in pod(cert_secret="key")["volumes"] if "secret" in each]
    assert [[item["key"] for item in each["items"]] for each in secrets] == [["key", "passphrase", "cert"]]


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"push_tls": Tls(insecure=True)}, "--insecure"),
        ({"push_tls": Tls(skip_verify=True)}, "--insecure-skip-tls-verify"),
        ({"unsigned_tls": Tls(insecure=True)}, "--unsigned-insecure"),
        ({"unsigned_tls": Tls(skip_verify=True)}, "--unsigned-insecure-skip-tls-verify"),
    ],
)
def test_each_side_has_tls_of_its_own(fields, flag):
    assert set(argv(**fields)) - set(argv()) == {flag}


def test_what_is_named_is_signed_else_every_module_of_the_kernel():
    assert {"--dir-name=/opt", "--kernel=6.1.0+deb"} <= set(argv())
    named = argv(files=("/a.ko", "/b/*"))
    assert [each for each in named if each.startswith(("--file", "--dir-name", "--kernel"))] == [
        "--file=/a.ko",
        "--file=/b/*",
    ]


def test_credentials_are_tried_in_their_order_each_once():
    made = pod(push_secret="push", pull_secrets=("push", "other"))
    names = [each["secret"]["secretName"] for each in made["volumes"] if each["name"].startswith("registry-")]
    assert names == ["push", "other"]
    assert [each for each in argv(pull_secrets=("a", "b")) if "docker" in each] == [
        "--docker-config=/run/kmm/registries/0",
        "--docker-config=/run/kmm/registries/1",
    ]


HOSTILE = ["", " ", "a b", "'; reboot; '", "$(reboot)", "$$", "$(TMPDIR)", "--no-push", "a\nb", "\x1b[31m", "é"]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_one_word_and_stays_what_it_is(value):
    assert f"--file={value}" in argv(files=(value,))
    assert f"--kernel={value}" in argv(kernel=value)
    assert argv(unsigned_image=value)[-3:] == ["--", value, ask().image]


@SAME
@given(st.lists(st.text("$()A{}-= \n*"), min_size=1, max_size=3))
def test_any_name_arrives_as_it_was_written(files):
    assert [each for each in argv(files=tuple(files)) if each.startswith("--file=")] == [f"--file={e}" for e in files]


@pytest.mark.parametrize("field", ["key_secret", "cert_secret", "push_secret"])
@pytest.mark.parametrize("name", ["../etc", "a/b", "A", "x" * 254])
def test_what_is_the_name_of_no_secret_is_refused(field, name):
    with pytest.raises(ValueError, match="is the name of no Secret"):
        render(**{field: name})


def test_the_deadline_is_the_commands_too_and_a_little_less():
    assert "--timeout=3585" in argv()
    assert "--timeout=1" in argv(params={"activeDeadlineSeconds": 10})


@pytest.mark.parametrize(
    ("images", "options", "image"),
    [
        ({"sign": "a"}, {}, "a"),
        ({"operator": "o"}, {}, "o"),
        ({"sign": "a", "operator": "o"}, {}, "a"),
        ({"sign": "a"}, {"image": "b"}, "b"),
    ],
)
def test_the_image_is_the_operators_own_unless_another_is_named(images, options, image):
    (signer,) = kmm_signers(Settings(images=images, options=options))
    assert pod(signer)["containers"][0]["image"] == image


def test_without_an_image_it_says_what_to_set():
    (signer,) = kmm_signers(Settings())
    with pytest.raises(ValueError, match=r"set RELATED_IMAGES_SIGN, or plugins\.options\.sign-file\.image"):
        render(signer)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"hash": "md5"}, "sign.params.hash: must be one of sha224, sha256, sha384, sha512"),
        ({"hash": 1}, "sign.params.hash: must be one of"),
        ({"hsh": "sha256"}, 'sign.params: unknown "hsh"; did you mean "hash"?'),
        ({"activeDeadlineSeconds": 0}, "sign.params.activeDeadlineSeconds: must be a whole number"),
        ({"modulesLimitGiB": 0}, "sign.params.modulesLimitGiB: must be a whole number from 1 to 1024"),
        ({"modulesLimitGiB": True}, "sign.params.modulesLimitGiB: must be a whole number"),
    ],
)
def test_params_that_are_wrong_are_refused(params, said):
    with pytest.raises(ValueError, match=r"^sign\.params") as caught:
        render(params=params)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"imag": "a"}, 'unknown option "imag"; did you mean "image"?'),
        ({"image": "A b"}, '"A b" names no repository'),
        ({"image": 1}, "image: must be an image"),
        ({"runAsUser": 0}, "runAsUser: must be the number of a user who is not root"),
        ({"runAsUser": "me"}, "runAsUser: must be the number"),
        ({"runAsUser": True}, "runAsUser: must be the number"),
        ({"caConfigMap": 1}, "caConfigMap: must be a name"),
        ({"caConfigMap": ""}, "caConfigMap: must be a name"),
        ({"caConfigMap": "../a"}, "caConfigMap: must be a name"),
        ({"hash": []}, "plugins.options.sign-file.hash: must be one of"),
        ({"resources": 1}, "plugins.options.sign-file.resources: must be an object"),
    ],
)
def test_options_that_are_wrong_refuse_the_plugin(options, said):
    with pytest.raises(SettingsError) as caught:
        kmm_signers(Settings(options=options))
    assert str(caught.value).startswith(said)


def test_its_hashes_are_those_of_the_command():
    assert HASHES == digest.HASHES


def module(default, *mappings):
    container = {"sign": default, "kernelMappings": list(mappings)}
    return {"spec": {"moduleLoader": {"container": container}}}


def found(manifest):
    return [(each.path.removeprefix("spec.moduleLoader.container."), each.message) for each in judge(manifest)]


def test_a_module_that_asks_for_it_wrongly_is_told():
    wrong = module({"signer": "sign-file", "params": {"x": 1}}, {"sign": {"params": {"hash": "md5"}}})
    assert found(wrong) == [
        ("sign.params", 'params: unknown "x" (known: hash, modulesLimitGiB, activeDeadlineSeconds, resources)'),
        ("kernelMappings[0].sign.params", "params.hash: must be one of sha224, sha256, sha384, sha512"),
    ]
    assert found(module({"signer": "hsm", "params": {"x": 1}}, {"sign": {"params": {"x": 1}}})) == []
    assert found(module({"signer": "sign-file", "params": {"hash": "sha512"}})) == []


@SAME
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(("spec", "moduleLoader", "container", "sign")), inner, max_size=2)
            | st.fixed_dictionaries({"signer": st.just("sign-file"), "params": inner})
            | st.fixed_dictionaries({"kernelMappings": inner, "sign": inner})
        ),
    ).filter(lambda each: isinstance(each, dict))
)
def test_any_json_is_judged(manifest):
    judge(manifest)


def test_what_it_makes_depends_on_nothing_else():
    assert render(**EVERYTHING) == render(**EVERYTHING)


def room(made):
    return next(each["emptyDir"]["sizeLimit"] for each in made["volumes"] if each["name"] == "temporary")


def test_memory_and_temporary_files_are_bounded_and_the_bounds_can_be_others():
    default = {"requests": {"memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    more = {"limits": {"memory": "1Gi"}}
    (configured,) = kmm_signers(Settings(options={"image": IMAGE, "resources": more, "modulesLimitGiB": 8}))
    for made, resources, size, limit in (
        (pod(), default, "10Gi", 4),
        (pod(configured), more, "18Gi", 8),
        (pod(configured, params={"resources": {}, "modulesLimitGiB": 1}), None, "4Gi", 1),
        (pod(params={"resources": more, "modulesLimitGiB": 20}), more, "42Gi", 20),
    ):
        (container,) = made["containers"]
        assert (container.get("resources"), room(made)) == (resources, size)
        assert f"--modules-limit={limit}" in container["args"]


def test_progress_is_the_jobs():
    conditions = [{"type": "Complete", "status": "True"}]
    job = {"kind": "Job", "status": {"conditions": conditions}}
    assert SignFile().observe([job], []).state is State.SUCCEEDED
