"""`kmm sign-module` with keys in a token: SoftHSM's, in processes, since a library knows one folder of tokens."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hsm.softhsm import LABEL, PIN
from signing.golden import GOLDEN, HASHES, MODULE, golden


@pytest.fixture
def run(tmp_path, pin_file, uri_of):
    """Sign a module in a process; return its exit code, what it printed on standard error, and the module then."""

    def run(tokens, *options, label="self", token=LABEL, uri="", passphrase=(), **variables):
        path = tmp_path / "acme.ko"
        path.write_bytes(MODULE)
        key = uri or uri_of(tokens, label, token)
        command = [sys.executable, "-m", "kmm.cli", "sign-module", "--key", key]
        command += [*map(str, passphrase or ("--passphrase-file", pin_file)), *map(str, options), str(path)]
        environment = {name: value for name, value in os.environ.items() if name != "KBUILD_SIGN_PIN"}
        ran = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**environment, **tokens.environment, **variables},
        )
        assert PIN not in ran.stdout + ran.stderr
        return ran.returncode, ran.stderr, path.read_bytes()

    return run


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("name", ["self", "issued"])
def test_the_signature_is_that_of_the_kernels_sign_file_byte_for_byte(run, tokens, name, hash_name):
    made = run(tokens, "--cert", GOLDEN / f"{name}.pem", "--hash", hash_name, label=name)
    assert made == (0, "", MODULE + golden(f"{name}-{hash_name}.signature"))


def test_the_certificate_may_be_in_the_token(run, tokens):
    assert run(tokens) == (0, "", MODULE + golden("self-sha256.signature"))


def test_the_pin_may_be_in_the_variable_of_the_kernels_tools(run, tokens):
    made = run(tokens, passphrase=("--hash", "sha256"), KBUILD_SIGN_PIN=PIN)
    assert made == (0, "", MODULE + golden("self-sha256.signature"))


def fails(made, code=2):
    """Return what it said; nothing was signed."""
    assert (made[0], made[2]) == (code, MODULE), made[1]
    (line,) = made[1].splitlines()
    return line


def test_a_key_without_a_certificate_beside_it_needs_one(run, tokens):
    said = fails(run(tokens, label="issued"))
    assert said.endswith("no certificate is kept beside the key: give it with --cert")


def test_a_certificate_of_another_key_is_refused(run, tokens):
    said = fails(run(tokens, "--cert", GOLDEN / "issued.pem"))
    assert said.endswith("what the key signs does not verify with the certificate: they are not of one pair")


def test_a_token_that_is_not_there_is_told_with_those_that_are(run, tokens):
    said = fails(run(tokens, token="another"))
    assert f'there is no token "another": those present are {LABEL} (' in said


def test_a_key_that_is_not_there_is_told_with_those_that_are(run, tokens):
    said = fails(run(tokens, label="another"))
    assert said.endswith('has no private key "another": there are issued (id 02), self (id 01)')


def test_a_library_that_is_not_there_is_told(run, tokens):
    uri = f"pkcs11:token=a;object=b?module-path={tokens.library.parent}/none.so"
    assert "there is no PKCS#11 library " in fails(run(tokens, uri=uri))


def test_a_library_that_is_none_is_told(run, tokens):
    said = fails(run(tokens, uri=f"pkcs11:token=a;object=b?module-path={tokens.configuration}"))
    assert f"{tokens.configuration} cannot be used as a PKCS#11 library" in said


def test_a_wrong_pin_is_tried_once_and_has_an_exit_code_of_its_own(run, tokens, pin_file):
    pin_file.write_text("another-pin")
    said = fails(run(tokens), code=3)
    assert said.endswith(f'the token "{LABEL}" refuses the PIN: it is wrong, and is not tried again')
    assert "another-pin" not in said
    pin_file.write_text(PIN)
    assert run(tokens)[0] == 0


@pytest.mark.parametrize("contents", [b"", b"\n", b"\xff\xfe"])
def test_what_is_no_pin_is_not_tried(run, tokens, pin_file, contents):
    pin_file.write_bytes(contents)
    assert fails(run(tokens)).endswith("the PIN is empty, or no text: it was not tried")


def test_a_missing_pin_is_told(run, tokens, tmp_path):
    said = fails(run(tokens, passphrase=("--passphrase-file", tmp_path / "none")))
    assert "asks for a PIN, and there is no passphrase for it: " in said


@pytest.mark.parametrize(("second", "said"), [("02", "s (id 01), s (id 02)"), ("01", "s (id 01), s (id 01)")])
def test_of_several_keys_of_a_name_none_is_guessed(run, new_tokens, uri_of, second, said):
    new_tokens.put(golden("self.key.pem"), None, label="s")
    new_tokens.change(f"key = next(iter(session.get_objects({{A.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}})))\n  "
                      f"key.copy({{A.ID: bytes.fromhex('{second}')}})")  # fmt: skip
    told = fails(run(new_tokens, "--cert", GOLDEN / "self.pem", label="s"))
    assert told.endswith(f'several private keys are "s": name one by its id, of {said}')
    if second == "02":
        uri = uri_of(new_tokens, "s").replace(";object=s", ";id=%02")
        assert run(new_tokens, "--cert", GOLDEN / "self.pem", uri=uri)[0] == 0


def test_a_key_that_is_not_rsa_is_told(run, new_tokens):
    new_tokens.change(
        "import pkcs11.util.ec as ec\n  parameters = session.create_domain_parameters(pkcs11.KeyType.EC, "
        "{A.EC_PARAMS: ec.encode_named_curve_parameters('secp256r1')}, local=True)\n  "
        "parameters.generate_keypair(store=True, label='elliptic')"
    )
    assert 'the key "elliptic" is no RSA key' in fails(run(new_tokens, label="elliptic"))


def test_a_key_that_may_not_sign_is_told(run, new_tokens):
    new_tokens.change(
        "session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label='shut', "
        "capabilities=pkcs11.MechanismFlag.DECRYPT)"
    )
    assert 'the key "shut" may not sign: its CKA_SIGN is false' in fails(run(new_tokens, label="shut"))


def test_tokens_of_one_name_are_told_apart_by_their_serial(run, new_tokens, uri_of):
    new_tokens.put(golden("self.key.pem"), None, label="s")
    new_tokens.make()
    said = fails(run(new_tokens, label="s"))
    assert f'several tokens are "{LABEL}": name one by serial=, of ' in said


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pkcs11:token=a;object=b", "has no ?module-path=/... behind it"),
        ("pkcs11:object=b?module-path=/a.so", "names no token"),
        ("pkcs11:token=a?module-path=/a.so", "names no key"),
        ("pkcs11:token=a;object=b?module-path=/a.so&pin-value=1234", "has a pin-value: a PIN is given with"),
        ("pkcs11:token=a;object=b?module-path=/a.so&pin-source=/a", "has a pin-source: a PIN is given with"),
        ("pkcs11:tokn=a;object=b?module-path=/a.so", 'has an unknown "tokn"; did you mean "token"?'),
        ("pkcs11:token=a;token=b;object=b?module-path=/a.so", "has token twice"),
        ("pkcs11:token=%zz;object=b?module-path=/a.so", "has a token that is not written as URIs are"),
        ("pkcs11:token=%ff;object=b?module-path=/a.so", "has a token that is not UTF-8"),
        ("pkcs11:token=a;object=b;type=public?module-path=/a.so", "only private keys sign"),
        ("pkcs12:token=a", "nothing is installed that holds keys of pkcs12"),
    ],
)
def test_a_uri_that_names_no_key_is_told(run, tokens, uri, said):
    assert said in fails(run(tokens, uri=uri))
