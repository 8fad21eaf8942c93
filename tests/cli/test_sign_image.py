"""`kmm sign-image` as a user runs it."""

from __future__ import annotations

import json
import sys

import pytest
from cli.test_commands import kmm
from cli.test_sign_module import ENCRYPTED, PAIR
from image_signing.images import contents
from kmm_sign_file import SignFile
from oci.conftest import serve, served, session
from signing.golden import GOLDEN, MODULE, PASSPHRASE, golden
from signing.made import A_DAY, NOW, certificate_pem

from kmm.contract import ModuleRef, SignRequest, Unavailable
from kmm.image_signing import image
from kmm.image_signing.job import SignOptions

__all__ = ["serve", "served", "session"]

PATH = "/opt/lib/modules/6.1.0/acme.ko"
SIGNED = MODULE + golden("self-sha256.signature")


@pytest.fixture
def acme(served):
    """A registry with an image; its name, and that of the signed one."""
    served.registry.push_image("acme:1", {PATH: MODULE, "/opt/lib/modules/6.2.0/acme.ko": MODULE})
    return served, f"{served.registry.host}/acme:1", f"{served.registry.host}/signed/acme:1"


@pytest.fixture
def run(here, acme, monkeypatch):
    """Run it in this process with what every run needs."""
    monkeypatch.delenv("KBUILD_SIGN_PIN", raising=False)
    monkeypatch.setattr(sys, "stdin", None)
    served, unsigned, signed = acme

    def run(*arguments, images=(unsigned, signed), pair=PAIR, **variables):
        return here("sign-image", *images, *pair, "--ca", served.registry.ca_file, *arguments, **variables)

    return run


def test_an_image_is_signed_and_a_rerun_says_that_it_is(acme, run, certificates):
    served, _, signed = acme
    by = certificates["self"]
    code, out, err = run("--file", PATH)
    digest = served.registry.images()["signed/acme:1"]
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{PATH}: signed with sha256 by {by}", f"{signed}: {digest}"]
    assert contents(served, "signed/acme:1", PATH) == {PATH: SIGNED}
    assert run("--file", PATH) == (0, f"{signed}: is signed already by {by}: {digest}\n", "")


def test_as_a_process(acme):
    served, unsigned, signed = acme
    code, out, err = kmm("sign-image", unsigned, signed, *PAIR, "--ca", served.registry.folder, "--file", PATH)
    assert (code, err) == (0, "")
    assert out.endswith(f"{signed}: {served.registry.images()['signed/acme:1']}\n")


@pytest.mark.parametrize(("options", "number"), [((), 2), (("--kernel", "6.1.0"), 1), (("--dir-name", "/opt/"), 2)])
def test_without_names_every_module_is_signed_of_one_kernel_or_all(run, options, number):
    code, out, _ = run(*options)
    assert (code, out.count(": signed with sha256 by ")) == (0, number)


def test_of_an_index_the_platforms_are_told(acme, run):
    served, _, _ = acme
    digest = served.registry.push_image("acme:arm", {PATH: MODULE + golden("issued-sha512.signature")})
    served.registry.push_index("acme:1", {"arm64/v8": digest})
    code, out, _ = run("--file", PATH)
    assert code == 0
    assert out.startswith(f"linux/arm64/v8: {PATH}: signed with sha256 by certificate ")
    assert out.splitlines()[0].endswith("; 1 older signature taken off")


def test_nothing_is_pushed_where_that_is_asked_for(acme, run):
    served, unsigned, _ = acme
    code, out, _ = run("--no-push", "--file", PATH, images=(unsigned,))
    assert (code, out.splitlines()[1:]) == (0, ["nothing is pushed"])
    assert sorted(served.registry.images()) == ["acme:1"]


@pytest.mark.parametrize("form", ["config.json", ".dockerconfigjson", ".dockercfg", "folder", "variable", "home"])
def test_credentials_are_read_as_docker_and_kubernetes_keep_them(here, serve, tmp_path, form):
    served = serve(auth="bearer")
    served.registry.push_image("acme:1", {PATH: MODULE})
    config = served.registry.docker_config("user")
    file = tmp_path / {"folder": ".dockerconfigjson", "variable": "auth", "home": "config.json"}.get(form, form)
    file.write_text(json.dumps(json.loads(config)["auths"]) if form == ".dockercfg" else config)
    options = () if form in ("variable", "home") else ("--docker-config", tmp_path if form == "folder" else file)
    variables = {"variable": {"REGISTRY_AUTH_FILE": str(file)}, "home": {"DOCKER_CONFIG": str(tmp_path)}}
    images = [f"{served.registry.host}/{name}" for name in ("acme:1", "signed:1")]
    code, _, err = here(
        "sign-image", *images, *PAIR, "--ca", served.registry.ca_file, *options, **variables.get(form, {})
    )
    assert (code, err) == (0, "")


def test_what_is_wrong_in_a_folder_of_credentials_is_a_warning(run, tmp_path):
    (tmp_path / ".dockerconfigjson").write_text("s3cret")
    code, _, err = run("--docker-config", tmp_path)
    assert (code, err) == (0, f"kmm: warning: {tmp_path}/.dockerconfigjson: is no JSON\n")


def test_each_side_has_tls_of_its_own(here, serve):
    plain, secure = serve(tls=False), serve()
    plain.registry.push_image("acme:1", {PATH: MODULE})
    images = [f"{plain.registry.host}/acme:1", f"{secure.registry.host}/acme:1"]
    assert here("sign-image", *images, *PAIR, "--unsigned-insecure", "--insecure-skip-tls-verify")[::2] == (0, "")
    images = [*reversed(images[1:]), f"{plain.registry.host}/again:1"]
    assert here("sign-image", *images, *PAIR, "--unsigned-insecure-skip-tls-verify", "--insecure")[::2] == (0, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--file", "/opt/acme.ko"), f"has no /opt/acme.ko; what is near: {PATH}"),
        (("--kernel", "6.3.0"), "has no /opt/lib/modules/6.3.0/**/*.ko; what is near: /opt/lib/modules/6."),
        (("--file", "/none\x1b[31m"), "has no /none\\x1b[31m"),
    ],
)
def test_what_cannot_be_signed_is_one_line_and_code_1(acme, run, options, said):
    served, unsigned, _ = acme
    code, out, err = run(*options)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"kmm: {unsigned}: {said}")
    assert sorted(served.registry.images()) == ["acme:1"]


def test_a_registry_that_cannot_be_asked_is_code_1(here, acme):
    served, unsigned, signed = acme
    code, _, err = here("sign-image", unsigned, signed, *PAIR)
    assert (code, err) == (1, f"kmm: {served.registry.host}: TLS: certificate signed by unknown authority\n")
    code, _, err = here("sign-image", "169.254.169.254/latest:1", signed, *PAIR)
    assert (code, err) == (1, "kmm: 169.254.169.254: is a link-local address, which is not allowed\n")


def test_what_is_wrong_with_key_and_certificate_is_told_before_anything_is_asked(acme, run, tmp_path):
    served, _, _ = acme
    key, certificate = GOLDEN / "self.key.pem", GOLDEN / "self.pem"
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"wr0ng")
    encrypted, issued = ENCRYPTED[1], ENCRYPTED[3]
    for arguments, options, said in (
        (
            (key, issued),
            (),
            f"{key}, {issued}: what the key signs does not verify with the certificate: they are not",
        ),
        ((certificate, certificate), (), f"{certificate}: holds a certificate and no private key"),
        ((encrypted, issued), ("--passphrase-file", wrong), f"{encrypted}: cannot be decrypted: the passphrase is"),
        (
            (encrypted, issued),
            ("--passphrase-file", tmp_path / "none"),
            f"{encrypted}: is encrypted, and there is no passphrase for it: {tmp_path}/none: cannot be read",
        ),
    ):
        code, out, err = run(*options, pair=("--key", arguments[0], "--cert", arguments[1]))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"kmm: {said}")
        assert "wr0ng" not in err
    assert served.registry.log == []


def test_a_key_that_is_encrypted_is_used_with_its_passphrase(run, tmp_path):
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    assert run("--passphrase-file", tmp_path / "passphrase", pair=ENCRYPTED)[::2] == (0, "")


def test_an_expired_certificate_and_an_ec_key_are_warnings(run, tmp_path):
    (tmp_path / "old.pem").write_bytes(certificate_pem(at=NOW - 8000 * A_DAY))
    code, _, err = run(pair=("--key", GOLDEN / "self.key.pem", "--cert", tmp_path / "old.pem"))
    assert (code, err) == (0, f"kmm: warning: {tmp_path}/old.pem: the certificate expired on 2008-02-07\n")
    code, _, err = run(pair=("--key", GOLDEN / "ec.key.pem", "--cert", GOLDEN / "ec.pem"))
    assert code == 0
    assert "the key is an EC key: many kernels refuse its signatures" in err


def test_warnings_are_in_a_file_before_anything_is_pushed(acme, run, tmp_path, monkeypatch):
    _, unsigned, _ = acme
    log = tmp_path / "log"
    ec = ("--key", GOLDEN / "ec.key.pem", "--cert", GOLDEN / "ec.pem")
    said = "the key is an EC key: many kernels refuse its signatures, and RSA is safe"
    seen = []

    def refused(*_):
        seen.append(log.read_text())
        raise Unavailable("no")

    assert run("--warnings-file", log, "--file", "/none", pair=ec)[0] == 1
    assert log.read_text().startswith("kmm: "), "and no log is looked into"
    with monkeypatch.context() as patch:
        patch.setattr(image, "transfer", refused)
        assert run("--warnings-file", log, "--file", PATH, "--file", "/x\x1b*", pair=ec)[0] == 1
    assert (log.read_text().startswith("kmm: "), seen) == (True, [f"{said}; nothing in it fits /x\\x1b*"])
    code, _, err = run("--warnings-file", log, "--file", PATH, "--file", "/x*", pair=ec)
    assert (code, log.read_text()) == (0, f"{said}; nothing in it fits /x*")
    assert err.splitlines()[1:] == [f"kmm: warning: {unsigned}: nothing in it fits /x*"]
    log.unlink()
    assert run("--warnings-file", log, "--file", PATH, "--file", "/x*", pair=ec)[0] == 0
    assert log.read_text() == said, "what is signed already is told of too"
    code, _, err = run("--warnings-file", tmp_path / "none/log", "--file", PATH, pair=ec)
    assert (code, "none/log: cannot be written" in err) == (0, True)


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (("a",), (), "name what the signed image is pushed as, or give --no-push"),
        (("a", "b"), ("--no-push",), "name what the signed image is pushed as, or give --no-push"),
        (("A b", "b"), (), 'image "A b" names no repository'),
        (("a", "b@sha256:" + "0" * 64), (), "the signed image is pushed under a tag, and has no digest before"),
        (("a", "b"), ("--file", "x.ko"), 'file "x.ko" must be an absolute path'),
        (("a", "b"), ("--dir-name", "opt"), 'directory "opt" must be an absolute path'),
        (("a", "b"), ("--hash", "md5"), 'hash "md5" is not for modules'),
        (("a", "b"), ("--docker-config", GOLDEN / "none"), "none: cannot be read: No such file or directory"),
        (("a", "b"), ("--docker-config", GOLDEN / "self.pem"), "self.pem: is no JSON"),
        (("a", "b"), ("--ca", GOLDEN / "none"), "none: cannot be read: No such file or directory"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(run, images, options, said):
    code, out, err = run(*options, images=images)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_what_the_default_signer_renders_is_a_command_that_works(here, serve, tmp_path, monkeypatch):
    served = serve(auth="bearer")
    served.registry.push_image("acme:1", {PATH: MODULE})
    images = [f"{served.registry.host}/{name}" for name in ("acme:1", "signed:1")]
    request = SignRequest(
        module=ModuleRef(namespace="n", name="m"),
        kernel="6.1.0",
        unsigned_image=images[0],
        image=images[1],
        dir_name="/opt",
        key_secret="pair",
        cert_secret="pair",
        push_secret="push",
        pull_secrets=("push", "gone"),
        params={"hash": "sha512"},
    )
    (job,) = SignFile(options=SignOptions(image="kmm", authorities="authorities")).render(request)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    pair = {"key": golden("issued.key.pem"), "cert": golden("issued.der"), "passphrase": PASSPHRASE}
    held = {
        "/run/secrets/pair": pair,
        "/run/kmm/registries/0": {".dockerconfigjson": served.registry.docker_config("user").encode()},
        "/run/kmm/registries/1": {},
        "/run/kmm/authorities": {"ca.crt": served.registry.ca_pem.encode()},
    }
    assert [each["mountPath"] for each in container["volumeMounts"]][:-1] == [*held]
    root = tmp_path / "root"
    for folder, files in held.items():
        (root / folder[1:]).mkdir(parents=True)
        for name, content in files.items():
            (root / folder[1:] / name).write_bytes(content)
    arguments = [each.replace("=/run/", f"={root}/run/") for each in container["args"]]
    assert container["command"] == ["kmm", "sign-image"]
    monkeypatch.setattr(sys, "stdin", None)
    code, out, err = here("sign-image", *arguments)
    assert (code, err) == (0, "")
    assert out.startswith(f"{PATH}: signed with sha512 by ")
    assert f"{served.registry.host}/signed:1" in out
