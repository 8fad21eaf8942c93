"""What rules find where a plugin takes a way that the wrong plugins do not."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import pytest
import urllib3
from conformance.wrong import good

from kmm.conformance import BuilderContract, DriverContract, RegistryContract
from kmm.conformance.child import answer
from kmm.conformance.registries import Asked, Registries, overheard, texts
from kmm.conformance.rendered import Allowed, Rendering, exposed_secrets
from kmm.contract import Kind, Unavailable

BUILD = Kind(api_version="build.openshift.io/v1", kind="Build", plural="builds")
KEY = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "build-token", "key": "token"}}}


def exposed(spec: dict[str, Any]) -> list[str]:
    made = [{"apiVersion": BUILD.api_version, "kind": BUILD.kind, "spec": spec}]
    rendering = Rendering(sample="a", request=None, made=made)
    return list(exposed_secrets(rendering, Allowed(namespace="n", owns=(BUILD,))))


@pytest.mark.parametrize("part", ["env", "buildArgs"])
def test_a_secret_in_the_environment_is_found_in_what_is_no_pod(part):
    (found,) = exposed({"strategy": {"dockerStrategy": {part: [KEY]}}})
    assert found == f"spec.strategy.dockerStrategy.{part} has the Secret's key in TOKEN: mount it"
    assert exposed({"strategy": {"dockerStrategy": {part: [{"name": "A", "value": "b"}]}}}) == []


def test_a_whole_secret_as_environment_is_found():
    source = {"secretRef": {"name": "build-token"}}
    (found,) = exposed({"containers": [{"name": "c", "envFrom": [source]}]})
    assert found == "spec.containers[0].envFrom has a Secret as its environment: mount it"
    assert exposed({"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "a"}}]}]}) == []


def test_what_a_log_tells_of_an_exception_is_heard():
    with overheard() as heard:
        try:
            int("the-secret")
        except ValueError:
            logging.getLogger("acme").warning("it failed", exc_info=True)
    assert any("the-secret" in each for each in heard)


def test_notes_of_an_error_are_among_its_texts():
    error = Unavailable("no answer")
    error.add_note("the-secret")
    assert any("the-secret" in each for each in texts(Asked(error=error)))


def test_a_layer_that_is_not_to_be_had_is_no_file_that_is_not_there():
    class Shrugs(good.Registry):
        def inspect(self, image, access, deadline_s, files=(), annotations=False):
            try:
                return super().inspect(image, access, deadline_s, files, annotations)
            except Unavailable:
                if not files:
                    raise
                return super().inspect(image, access, deadline_s, (), annotations)

    said = "plain HTTP: an image whose files are wanted, where it answers 404 of a layer is present as sha256:"
    with Registries() as registries, pytest.raises(pytest.fail.Exception, match=said):
        RegistryContract().test_no_answer_is_unavailable(Shrugs(), registries)


class Telling:
    """Tells the token that a token server gave it."""

    name = "telling"
    hosts = ("*",)

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        if not (access.ca_pem and access.credentials and access.credentials[0].username):
            raise Unavailable("no answer")
        context = ssl.create_default_context(cadata=access.ca_pem)
        host, _, rest = image.partition("/")
        user = access.credentials[0]
        headers = urllib3.make_headers(basic_auth=f"{user.username}:{user.password}")
        scope = f"repository:{rest.partition(':')[0]}:pull"
        with urllib3.PoolManager(ssl_context=context) as pool:
            url = f"https://{host}/token"
            said = pool.request("GET", url, fields={"scope": scope}, headers=headers, retries=False).json()
        raise Unavailable(f"no answer, with {said.get('token')}")


def test_a_token_that_a_token_server_gave_is_a_credential():
    with Registries() as registries, pytest.raises(pytest.fail.Exception, match="TLS with Bearer tokens: a cred"):
        RegistryContract().test_no_credential_is_in_any_text(Telling(), registries)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import subprocess\nsubprocess.run(['true'])", "a process"),
        ("import threading\nit = threading.Thread(target=int)\nit.start()\nit.join()", "a thread"),
        ("import socket\nwith socket.socket() as it:\n    it.connect_ex(('127.0.0.1', 1))", "a connection"),
    ],
)
def test_what_an_import_starts_and_ends_is_noticed_too(text, what, tmp_path, monkeypatch):
    (tmp_path / "hasty_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert what in answer("importing", {"value": "hasty_plugin"}, {})["began"]


def test_failures_are_not_judged_of_what_nobody_here_knows_to_fail():
    class Renderer:
        def observe(self, objects, pods):
            raise NotImplementedError

    made = [{"apiVersion": "acme.example.com/v1", "kind": "AcmeBuild"}]
    rendering = Rendering(sample="a", request=None, made=made)
    with pytest.raises(pytest.skip.Exception, match="nothing that is rendered is a Job or a Build"):
        BuilderContract().test_a_failure_says_why(Renderer(), [rendering])


@pytest.mark.parametrize(("contract", "name"), [(BuilderContract, "watched"), (DriverContract, "catalog")])
def test_a_fixture_that_rules_rest_on_is_not_a_plugins_to_say(contract, name):
    with pytest.raises(TypeError, match=f"TestGood.{name} is not among the fixtures of "):
        type("TestGood", (contract,), {name: lambda self: []})
