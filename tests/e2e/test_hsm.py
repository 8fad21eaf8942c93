"""Signatures by a token: kmm-hsm renders a Job, and the process of its container logs in to SoftHSM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, core, modules
from e2e.site import WITHIN_S, Site
from hsm.conftest import program
from hsm.softhsm import LABEL, PIN, Tokens
from signing.golden import GOLDEN, MODULE, PASSPHRASE, golden
from world import NAMESPACE, PREFIX, SELECTED

from kmm.embedded.image import image

__all__ = ["program"]

pytestmark = pytest.mark.e2e

DRIVERS = "drivers"
CONFIGURATION = "/etc/token"
WRONG_PIN = "a-pin-that-is-wrong"


@pytest.fixture(scope="module")
def tokens(program, tmp_path_factory):
    made = Tokens(program, tmp_path_factory.mktemp("softhsm"))
    made.make()
    made.put(golden("self.key.pem"), None, label="self", key_id="01")
    made.put(golden("issued.key.pem"), PASSPHRASE, label="issued", key_id="02")
    made.put_certificate(golden("self.pem"), label="self", key_id="01")
    return made


def key(tokens, label: str, pin: str) -> dict:
    """Return what is said of a key, as docs/hsm.md has it."""
    return {
        "module": str(tokens.library),
        "token": LABEL,
        "label": label,
        "pinSecret": pin,
        "env": {"SOFTHSM2_CONF": f"{CONFIGURATION}/softhsm2.conf"},
        "volumes": [{"name": "token", "configMap": {"name": "softhsm"}}],
        "volumeMounts": [{"name": "token", "mountPath": CONFIGURATION, "readOnly": True}],
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory, tools, tokens):
    vendor = {**key(tokens, "issued", "vendor-pin"), "certSecret": "vendor-cert", "registrySecret": "push"}
    options = {
        "keys": {"vendor": {**vendor, "namespaces": [DRIVERS]}},
        "caConfigMap": "registry-ca",
        "image": "kmm:1",
    }

    def prepare(site: Site) -> None:
        site.config_map("softhsm", {"softhsm2.conf": tokens.configuration.read_text()})
        site.secret("vendor-pin", pin=f"{PIN}\n")
        site.secret("vendor-cert", cert=golden("issued.pem").decode())

    with ExitStack() as stack:
        found = Site(
            tmp_path_factory.mktemp("hsm"),
            stack,
            release=tools.kernel,
            busybox=tools.busybox,
            builder="",
            container=None,
            prepare=prepare,
            more={"hsm": options},
        )
        privileged = {"pod-security.kubernetes.io/enforce": "privileged"}
        for name in (DRIVERS, "others"):
            body = {"metadata": {"name": name, "labels": privileged}}
            assert found.api.post("/api/v1/namespaces", body).code == 201
            push = found.api.get(f"{core(NAMESPACE, 'secrets')}/push").body
            body = {"metadata": {"name": "push"}, "type": push["type"], "data": push["data"]}
            assert found.api.post(core(name, "secrets"), body).code == 201
        unsigned = image([{f"/{path(found)}": MODULE}])
        assert found.client.push("prebuilt/acme", "1", unsigned).status == 201
        yield found


def path(site: Site) -> str:
    return f"opt/lib/modules/{site.release}/acme.ko"


def apply(site: Site, name: str, params: dict, namespace: str = NAMESPACE, **sign) -> None:
    mapping = {
        "literal": site.release,
        "containerImage": f"{site.host}/drivers/{name}:${{KERNEL_FULL_VERSION}}",
        "sign": {"signer": "hsm", "unsignedImage": f"{site.host}/prebuilt/acme:1", "params": params, **sign},
    }
    container = {"modprobe": {"moduleName": name}, "kernelMappings": [mapping]}
    body = a_module(name, moduleLoader={"container": container}, imageRepoSecret={"name": "push"}, selector=SELECTED)
    answer = site.api.post(modules(namespace), body)
    assert answer.code == 201, answer.body


def said(site: Site, name: str, namespace: str = NAMESPACE) -> dict:
    kernels = site.module(name, namespace).get("status", {}).get("kernels", ())
    return next(iter(kernels), {})


def fails(site: Site, name: str, reason: str, namespace: str = NAMESPACE) -> str:
    eventually(lambda: said(site, name, namespace).get("reason") == reason, f"{name} fails", WITHIN_S)
    return said(site, name, namespace)["message"]


def loaded(site: Site, name: str, namespace: str = NAMESPACE) -> None:
    failed = lambda: said(site, name, namespace).get("reason") == "SignFailed"  # noqa: E731
    eventually(lambda: site.ready(name, namespace) or failed(), f"{name} is loaded", WITHIN_S)
    assert site.ready(name, namespace), (said(site, name, namespace), site.output(name, "sign"))


def by_the_command(tokens, tmp_path, pin: str, *options: object) -> bytes:
    """Return the module as `kmm sign-module` signs it with the same token."""
    made, file = tmp_path / "acme.ko", tmp_path / "pin"
    made.write_bytes(MODULE)
    file.write_text(pin)
    uri = f"pkcs11:token={LABEL.replace(' ', '%20')};object=issued?module-path={tokens.library}"
    command = [
        sys.executable,
        "-m",
        "kmm.cli",
        "sign-module",
        "--key",
        uri,
        "--passphrase-file",
        file,
        *options,
        made,
    ]
    subprocess.run(list(map(str, command)), check=True, env={**os.environ, **tokens.environment})
    return made.read_bytes()


def test_a_key_of_the_configuration_signs_in_the_operators_namespace_for_those_that_it_lists(site, tokens, tmp_path):
    apply(site, "shared", {"key": "vendor"}, DRIVERS)
    loaded(site, "shared", DRIVERS)
    signed = site.files("shared")[path(site)]
    assert signed == MODULE + golden("issued-sha256.signature"), "as the kernel's sign-file"
    assert signed == by_the_command(tokens, tmp_path, PIN, "--cert", GOLDEN / "issued.pem")
    assert site.ran("shared", "sign") == 1
    names = {each["metadata"]["name"] for each in site.api.get(core(DRIVERS, "secrets")).body["items"]}
    assert names == {"push"}, "its PIN is not copied"
    eventually(lambda: not site.jobs() and not site.jobs(DRIVERS), "its task is gone", WITHIN_S)
    apply(site, "refused", {"key": "vendor"}, "others")
    message = fails(site, "refused", "RendererFailed", "others")
    assert 'the namespace others may use no key "vendor" (it may use: none)' in message
    assert site.ran("refused", "sign") == 0


def test_a_key_of_a_modules_own_signs_in_its_namespace_with_the_tokens_certificate(site, tokens):
    site.secret("own-pin", pin=PIN)
    apply(site, "own", {**key(tokens, "self", "own-pin"), "hash": "sha512"})
    loaded(site, "own")
    assert site.files("own")[path(site)] == MODULE + golden("self-sha512.signature")


def test_a_wrong_pin_is_tried_once_by_one_of_all_and_no_more_until_its_secret_changes(site, tokens):
    site.secret("wrong-pin", pin=WRONG_PIN)
    params = key(tokens, "self", "wrong-pin")
    apply(site, "wrong", params)
    message = fails(site, "wrong", "SignFailed")
    assert f'the token "{LABEL}" refuses the PIN: it is wrong, and is not tried again' in message
    assert message.startswith("hsm ended with exit code 3: ")
    assert message.endswith('; it is not tried again before the Secret "wrong-pin" changes')
    (job,) = site.jobs()
    (failed,) = [each for each in job["status"]["conditions"] if each["type"] == "Failed"]
    assert failed["reason"] == "PodFailurePolicy"
    apply(site, "beside", params)
    assert "another sign has failed for good" in fails(site, "beside", "SignFailed")
    # With its pod the Job's last words go, and not what it has come to.
    (pod,) = [each["metadata"]["name"] for each in site.pods() if f"{PREFIX}job-type" in each["metadata"]["labels"]]
    assert site.api.delete(f"{core(NAMESPACE, 'pods')}/{pod}").code == 200
    eventually(lambda: "matching FailJob rule" in said(site, "wrong")["message"], "the Job itself tells it", WITHIN_S)
    assert (site.ran("wrong", "sign"), site.ran("beside", "sign")) == (1, 0)
    assert site.jobs()[0]["metadata"]["uid"] == job["metadata"]["uid"]
    everything = json.dumps(
        [site.module("wrong"), site.jobs(), site.pods(), site.events(), site.output("wrong", "sign")]
    )
    assert WRONG_PIN not in everything
    site.change_secret("wrong-pin", pin=PIN)
    for name in ("wrong", "beside"):
        eventually(lambda name=name: site.ready(name), f"{name} is signed", WITHIN_S)
        assert site.files(name)[path(site)] == MODULE + golden("self-sha256.signature")
    assert (site.ran("wrong", "sign"), site.ran("beside", "sign")) == (2, 1)


def test_what_is_not_in_the_token_is_told_with_what_is(site, tokens):
    site.secret("lost-pin", pin=PIN)
    apply(site, "lost", key(tokens, "lost", "lost-pin"))
    assert 'has no private key "lost": there are issued (id 02), self (id 01)' in fails(site, "lost", "SignFailed")
    assert not site.pushed("lost")
    assert site.api.delete(f"{modules(NAMESPACE)}/lost").code == 200
