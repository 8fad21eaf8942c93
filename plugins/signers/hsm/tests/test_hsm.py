"""The Job is frozen: KMM_WRITE_GOLDEN=1 writes the golden files anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kmm_hsm import Hsm, kmm_signers
from kmm_hsm import kmm_validate_module as judge
from kmm_hsm.uri import TokenKey, parse

from kmm.conformance import PluginContract, SignerContract
from kmm.contract import ModuleRef, Place, Placed, Settings, SettingsError, SignRequest, State, Tls
from kmm.embedded.volume import expanded
from kmm.loader import load_catalog
from kmm.signing.source import REFUSED_CODE

GOLDEN = Path(__file__).parent / "golden"
IMAGE = "registry.example.com/kmm-operator-hsm:1"
LIBRARY = "/usr/lib/softhsm/libsofthsm2.so"
OWN = {"module": LIBRARY, "token": "acme", "label": "signing key", "pinSecret": "acme-pin"}
MOUNTED = {
    "env": {"SOFTHSM2_CONF": "/etc/token/$(TMPDIR)/softhsm2.conf"},
    "volumes": [{"name": "token", "configMap": {"name": "softhsm"}}],
    "volumeMounts": [{"name": "token", "mountPath": "/etc/token", "readOnly": True}],
}
SHARED = {
    **OWN,
    "id": "01ff",
    "certSecret": "acme-cert",
    "registrySecret": "drivers-push",
    "image": "registry.example.com/luna:1",
    "namespaces": ["n"],
}
# As in tests/conftest.py, which is not there where these tests run alone.
SAME = hypothesis_settings(deadline=None, derandomize=True, database=None)


class TestHsm(PluginContract):
    @pytest.fixture
    def plugin(self):
        return "hsm"


class TestHsmSigner(SignerContract):
    @pytest.fixture
    def plugin(self):
        return "hsm"

    @pytest.fixture
    def options(self):
        return {"image": IMAGE}

    @pytest.fixture
    def params(self):
        # A Secret that there is where a Module lives.
        return {**OWN, "pinSecret": "key", "hash": "sha512"}


def ask(**fields) -> SignRequest:
    asked = {
        "module": ModuleRef(namespace="n", name="m"),
        "kernel": "6.1.0+deb",
        "unsigned_image": "registry.example.com:5000/acme/driver:6.1.0-unsigned",
        "image": "registry.example.com:5000/acme/driver:6.1.0",
        "dir_name": "/opt",
        "params": OWN,
    }
    return SignRequest(**(asked | fields))


def signer(**options) -> Hsm:
    (made,) = kmm_signers(Settings(options={"image": IMAGE, "keys": {"vendor": SHARED}, **options}))
    return made


def render(made: Hsm | None = None, **fields) -> dict:
    (job,) = (made or signer()).render(ask(**fields))
    return json.loads(json.dumps(job, allow_nan=False))


def pod(made: Hsm | None = None, **fields) -> dict:
    return render(made, **fields)["spec"]["template"]["spec"]


def argv(**fields) -> list[str]:
    """Return what the command gets, once Kubernetes has replaced what it replaces."""
    return [expanded(each, {"TMPDIR": "/here"}) for each in pod(**fields)["containers"][0]["args"]]


def place(params, namespace="n") -> Place:
    return signer().place(ModuleRef(namespace=namespace, name="m"), params)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("own", {"cert_secret": "cert", "push_secret": "push", "node_selector": {"a": "b"}, "params": OWN | MOUNTED}),
        ("shared", {"params": {"key": "vendor", "hash": "sha512"}, "node_selector": {"a": "b"}}),
    ],
)
def test_the_job_is_as_it_was(name, fields):
    made = render(**fields)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("KMM_WRITE_GOLDEN"):
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert made == yaml.safe_load(path.read_text())


def test_the_operator_asks_it_where_it_works():
    catalog = load_catalog()
    assert isinstance(catalog.signer("hsm"), Placed)
    assert not isinstance(catalog.signer("sign-file"), Placed)


def test_a_key_of_the_modules_own_is_used_where_the_module_is():
    assert place(OWN) == Place(secrets=("acme-pin",), alone="acme-pin")


def test_a_key_of_the_configuration_is_used_where_the_operator_is():
    assert place({"key": "vendor"}) == Place(
        operators=True,
        secrets=("acme-pin", "acme-cert", "drivers-push"),
        certificate="acme-cert",
        alone="acme-pin",
    )


def test_whatever_secret_a_key_needs_is_known():
    volumes = [
        {"name": "a", "secret": {"secretName": "in-a-volume"}},
        {"name": "b", "secret": {"secretName": "perhaps", "optional": True}},
        {"name": "c", "secret": {"secretName": "of-no-use"}},
        {"name": "d", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "x"}}, 1]}},
        {"name": "e", "secret": {"secretName": "../no-name"}},
        {"name": "f", "projected": {"sources": 1}},
    ]
    mounts = [{"name": name, "mountPath": f"/mnt/{name}"} for name in "abdef"]
    made = vendor(volumes=volumes, volumeMounts=mounts)
    placed = made.place(ModuleRef(namespace="n", name="m"), {"key": "vendor"})
    assert placed.secrets == ("acme-pin", "acme-cert", "drivers-push", "in-a-volume", "projected")
    own = place(OWN | {"volumes": volumes[:2], "volumeMounts": mounts[:2]})
    assert (own.secrets, own.alone) == (("acme-pin", "in-a-volume"), "acme-pin")


@pytest.mark.parametrize(("namespace", "key"), [("other", "vendor"), ("n", "vendo"), ("n", ["vendor"])])
def test_who_is_not_listed_may_not_use_it_nor_learn_that_it_is_there(namespace, key):
    with pytest.raises(ValueError, match=f"the namespace {namespace} may use no key") as caught:
        place({"key": key}, namespace)
    assert ("did you mean" in str(caught.value)) == (namespace == "n")
    assert ("acme" in str(caught.value)) is False


def test_no_namespace_is_listed_unless_somebody_lists_it():
    made = signer(keys={"vendor": {name: each for name, each in SHARED.items() if name != "namespaces"}})
    with pytest.raises(ValueError, match="may use no key"):
        made.place(ModuleRef(namespace="n", name="m"), {"key": "vendor"})


OF_KEYS = ("image", "module", "env", "volumes", "pinSecret", "token")


@pytest.mark.parametrize("more", [*OF_KEYS, "activeDeadlineSeconds", "resources", "modulesLimitGiB"])
def test_a_module_says_nothing_of_how_a_key_of_the_configuration_is_used(more):
    params = {"key": "vendor", more: "a"}
    with pytest.raises(ValueError, match=f'unknown "{more}"'):
        place(params)
    with pytest.raises(ValueError, match=f'unknown "{more}"'):
        render(params=params)
    (finding,) = judge(module({"signer": "hsm", "params": params}))
    assert f'unknown "{more}"' in finding.message
    assert not {"nodeSelector", "tolerations"} & pod(params={"key": "vendor"}, tolerations=({"key": "a"},)).keys()


def test_a_modules_certificate_is_not_for_a_key_of_the_configuration():
    with pytest.raises(ValueError, match=r'sign\.certSecret: the certificate of the key "vendor" is'):
        render(params={"key": "vendor"}, cert_secret="cert")


def vendor(**more) -> Hsm:
    return signer(keys={"vendor": SHARED | more})


@pytest.mark.parametrize("tls", [Tls(insecure=True), Tls(skip_verify=True)])
@pytest.mark.parametrize(
    ("field", "told"), [("push_tls", "registryTLS"), ("unsigned_tls", "unsignedImageRegistryTLS")]
)
def test_the_operators_credentials_are_not_sent_to_whoever_answers(field, told, tls):
    asked = {"params": {"key": "vendor"}, field: tls}
    with pytest.raises(ValueError, match=f"^{told}: the operator's credentials are not sent to a registry whose"):
        render(**asked)
    assert render(vendor(insecureRegistries=True), **asked)
    assert render(vendor(registrySecret=""), **asked)
    assert render(**(asked | {"params": OWN}))


@pytest.mark.parametrize(
    "listed", [["registry.example.com:5000/acme/"], ["a.example.com", "registry.example.com:5000"]]
)
def test_the_operators_credentials_are_for_the_repositories_that_are_listed(listed):
    made = vendor(repositories=listed)
    assert render(made, params={"key": "vendor"})
    assert render(made, params={"key": "vendor"}, image=None)
    for other in ("registry.example.com:5000/acm", "registry.example.com:50001/acme/a", "acme/driver"):
        for field in ("unsigned_image", "image"):
            with pytest.raises(ValueError, match=f"credentials are not for {other}: they are for what is below"):
                render(
                    vendor(repositories=["registry.example.com:5000/acme/"]),
                    params={"key": "vendor"},
                    **{field: other},
                )


def test_the_key_is_a_uri_and_its_pin_is_in_a_file_alone():
    key = next(each for each in argv() if each.startswith("--key=")).removeprefix("--key=")
    assert parse(key) == TokenKey(module=LIBRARY, token="acme", label="signing key")
    assert "--passphrase-file=/run/secrets/pin/pin" in argv()
    (secret,) = [each["secret"] for each in pod()["volumes"] if "secret" in each]
    assert secret == {
        "secretName": "acme-pin",
        "items": [{"key": "pin", "path": "pin"}],
        "optional": True,
        "defaultMode": 0o440,
    }


def test_without_a_certificate_it_is_that_of_the_token():
    assert not [each for each in argv() if each.startswith("--cert")]
    assert "--cert=/run/secrets/cert/cert" in argv(cert_secret="cert")


def test_a_refused_pin_fails_the_job_for_good():
    (rule,) = render()["spec"]["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [REFUSED_CODE]}}
    conditions = [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]
    progress = signer().observe([{"kind": "Job", "status": {"conditions": conditions}}], [])
    assert (progress.state, progress.final) == (State.FAILED, True)


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "BackoffLimitExceeded"])
def test_a_job_that_may_have_tried_a_pin_has_failed_for_good(reason):
    conditions = [{"type": "Failed", "status": "True", "reason": reason}]
    failed = {"kind": "Job", "status": {"conditions": conditions}}
    progress = signer().observe([failed], [])
    assert (progress.state, progress.final) == (State.FAILED, True)
    assert progress.message.endswith(
        "it is not known whether the PIN was tried: if it is right, delete the Job, else change the Secret"
    )

    def ended(*codes):
        states = [
            {"state": {"terminated": {"exitCode": code}} if code is not None else {"running": {}}} for code in codes
        ]
        return signer().observe([failed], [{"status": {"containerStatuses": states}}])

    assert not ended(1).final
    assert ended(REFUSED_CODE).final, "though the API server knows no policies"
    assert not ended(REFUSED_CODE).message.endswith("change the Secret"), "it is known"
    for codes in ((), (137,), (143,), (None,), (1, None)):
        assert ended(*codes).final
        assert ended(*codes).message.endswith("else change the Secret")
    for strange in (None, 1, {}, {"status": 1}, {"status": {"containerStatuses": [1, {"state": 1}]}}):
        assert signer().observe([failed], [strange]).final


def test_variables_arrive_as_they_were_written():
    container = pod(params=OWN | MOUNTED)["containers"][0]
    env = {each["name"]: expanded(each["value"], {"TMPDIR": "/here"}) for each in container["env"]}
    assert env["SOFTHSM2_CONF"] == MOUNTED["env"]["SOFTHSM2_CONF"]


@SAME
@given(st.text(min_size=1), st.text(min_size=1), st.binary(max_size=64), st.text())
def test_any_name_arrives_in_a_uri_as_it_was_written(token, label, key_id, module):
    key = TokenKey(module=f"/{module}", token=token, label=label, id=key_id)
    assert parse(str(key)) == key


WRONG = [
    ({"module": "a.so"}, "module: must be an absolute path"),
    ({"token": ""}, "token: is required"),
    ({"label": ""}, "label: is required"),
    ({"label": 1}, "label: must be a text"),
    ({"label": "x" * 256}, "label: must be a text of at most 255"),
    ({"token": "a\nb"}, "token: must be a text"),
    ({"id": "1"}, "id: must be hexadecimal"),
    ({"pinSecret": ""}, "pinSecret: is required"),
    ({"pinSecret": "../a"}, "pinSecret: must be the name of a Secret"),
    ({"pin": "1234"}, 'unknown "pin"'),
    ({"image": "A b"}, "names no repository"),
    ({"env": ["a"]}, "env: must be an object"),
    ({"env": {"A": 1}}, "env: must be names of variables with texts"),
    ({"env": {"KBUILD_SIGN_PIN": "1234"}}, "env: KBUILD_SIGN_PIN is not for here"),
    ({"env": {"A=": "b"}}, "env: must be names"),
    ({"volumes": "a"}, "volumes: must be a list"),
    ({"volumes": [{"name": "pin"}]}, "volumes: each needs a name, and pin, cert"),
    ({"volumeMounts": [{"name": "a", "mountPath": "/a"}]}, "volumeMounts: each needs the name of one"),
    ({"volumes": [{"name": "a"}], "volumeMounts": [{"name": "a", "mountPath": "a"}]}, "each needs a mountPath"),
    ({"volumes": [{"name": "a"}], "volumeMounts": [{"name": "a", "mountPath": "/a/.."}]}, "each needs a mountPath"),
    ({"volumes": [{"name": "a"}], "volumeMounts": [{"name": "a", "mountPath": "/run/secrets/pin"}]}, "nothing is"),
    ({"volumes": [{"name": "a"}], "volumeMounts": [{"name": "a", "mountPath": "//"}]}, "nothing is mounted at"),
]
OF_MODULES = [
    ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "hostPath is for keys of the operator's configuration"),
    ({"volumes": [{"name": "a", "projected": {}}]}, "projected is for keys of the operator's configuration"),
    ({"namespaces": ["n"]}, 'unknown "namespaces"'),
    ({"insecureRegistries": True}, 'unknown "insecureRegistries"'),
    ({"repositories": []}, 'unknown "repositories"'),
    ({"hash": "md5"}, "hash: must be one of"),
]


@pytest.mark.parametrize(("more", "said"), [*WRONG, *OF_MODULES])
def test_params_that_are_wrong_are_refused(more, said):
    with pytest.raises(ValueError, match=r"params|repository") as caught:
        render(params={**OWN, **more})
    assert said in str(caught.value)
    (finding,) = judge(module({"signer": "hsm", "params": {**OWN, **more}}))
    assert said in finding.message
    assert finding.path == "spec.moduleLoader.container.sign.params"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({"keys": {"vendor": {**OWN, **more}}}, said) for more, said in WRONG),
        ({"keys": []}, "keys: must be an object"),
        ({"keys": {"vendor": 1}}, "keys.vendor: must be an object"),
        ({"keys": {"vendor": {**SHARED, "namespaces": "n"}}}, "keys.vendor.namespaces: must be a list of namespaces"),
        ({"module": "a.so"}, "module: must be the absolute path"),
        ({"keys": {"vendor": {**SHARED, "insecureRegistries": "yes"}}}, "insecureRegistries: must be true or false"),
        *(
            ({"keys": {"vendor": {**SHARED, "repositories": wrong}}}, "keys.vendor.repositories: must be ")
            for wrong in ("registry.example.com", [1], [""], ["/"], ["acme"])
        ),
        ({"keys": {"vendor": {**SHARED, "repositories": ["a.example.com/B"]}}}, "B"),
        ({"key": {}}, 'unknown option "key"; did you mean "keys"?'),
        ({"hash": "md5"}, "plugins.options.hsm.hash: must be one of"),
    ],
)
def test_options_that_are_wrong_refuse_the_plugin(options, said):
    with pytest.raises(SettingsError) as caught:
        kmm_signers(Settings(options=options))
    assert said in str(caught.value)


def test_the_library_may_be_named_once_for_all():
    made = signer(module=LIBRARY)
    without = {name: each for name, each in OWN.items() if name != "module"}
    assert render(made, params=without) == render(params=OWN)
    with pytest.raises(ValueError, match=r"sign\.params\.module: is required"):
        render(params=without)


def test_without_an_image_it_says_what_to_set():
    (made,) = kmm_signers(Settings())
    with pytest.raises(ValueError, match=r"plugins\.options\.hsm\.image"):
        render(made)
    assert pod(made, params={**OWN, "image": "mine:1"})["containers"][0]["image"] == "mine:1"


def module(default, *mappings):
    return {"spec": {"moduleLoader": {"container": {"sign": default, "kernelMappings": list(mappings)}}}}


def test_a_module_that_asks_for_it_is_judged():
    assert judge(module({"signer": "hsm", "params": OWN})) == []
    assert judge(module({"signer": "hsm", "params": {"key": "vendor", "hash": "sha512"}})) == []
    assert judge(module({"signer": "sign-file", "params": {"x": 1}})) == []
    (found,) = judge(module({"signer": "hsm", "params": {"key": 1}}))
    assert found.message == "params.key: must be the name of a key"
    (found,) = judge(module({"signer": "hsm", "keySecret": {"name": "a"}, "params": OWN}))
    assert (found.severity, found.path) == ("warning", "spec.moduleLoader.container.sign.keySecret")


@SAME
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(("spec", "moduleLoader", "container", "sign")), inner, max_size=2)
            | st.fixed_dictionaries({"signer": st.just("hsm"), "params": inner})
            | st.fixed_dictionaries(
                {"signer": st.just("hsm"), "params": st.fixed_dictionaries(dict.fromkeys((*OWN, *MOUNTED), inner))}
            )
        ),
    ).filter(lambda each: isinstance(each, dict))
)
def test_any_json_is_judged(manifest):
    judge(manifest)
