"""`kmm check-keys` as a user runs it, against the Secrets of a cluster."""

from __future__ import annotations

import base64
import re
import types

import pytest
from apiserver.samples import core
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from runtime.conftest import NAMESPACE
from signing.golden import PASSPHRASE, golden
from signing.made import A_DAY, NOW, certificate_pem

from kmm.cli import check_keys as command
from kmm.embedded.fault import Fault, Kind
from kmm.errors import ConfigError
from kmm.runtime.transport import Answer

DER, PEM, KEY = golden("self.der"), golden("self.pem"), golden("self.key.pem")
ENCRYPTED, ISSUED = golden("issued.key.pem"), golden("issued.pem")
GOOD = [
    "certificate   Secret signing-cert, key cert",
    "  subject     O=kmm tests, CN=self-signed",
    "  issuer      itself",
    "  serial      4F:2C:D3:4B:B4:35:8A:3C:AD:B7:48:F0:3D:DF:22:0A:0B:F9:66:98",
    "  valid       2020-01-01 to 2120-01-01",
    "  signs with  RSA, 2048 bits",
]
PAIR = "both          are of one pair: what the key signs verifies with the certificate"


@pytest.fixture
def cluster(world):
    return world(nodes=0)


@pytest.fixture
def put(cluster):
    def put(name, **data):
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        answer = cluster.api.post(core(NAMESPACE, "secrets"), {"metadata": {"name": name}, "data": encoded})
        assert answer.code == 201, answer.body

    return put


@pytest.fixture
def check(cluster, here):
    """Run it: its exit code and its lines; none of them holds what is secret."""

    def run(*secrets, user="", namespace=NAMESPACE):
        path = cluster.cluster.kubeconfig(cluster.cluster.token(user) if user else "")
        code, out, err = here("check-keys", "-n", namespace, "--kubeconfig", path, *secrets)
        for hidden in (PASSPHRASE.decode(), *KEY.decode().split()[3:-4], *ENCRYPTED.decode().split()[3:-4]):
            assert hidden not in out + err
        assert bool(err) == (code == 2)
        return code, (err.removeprefix("kmm: ") if err else out).splitlines()

    return run


def pem_of(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def wrong(lines):
    """The lines after those that tell of the certificate."""
    return [line for line in lines if not re.match(r"certificate   Secret \S+ key cert$|  \w", line)]


@pytest.mark.parametrize("order", [("signing-cert", "signing-key"), ("signing-key", "signing-cert")])
@pytest.mark.parametrize("cert", [DER, PEM], ids=["der", "pem"])
def test_a_certificate_and_its_key_in_two_secrets_are_good_in_any_order(put, check, certificates, order, cert):
    put("signing-cert", cert=cert)
    put("signing-key", key=KEY)
    code, lines = check(*order)
    assert code == 0
    assert lines[:6] == GOOD
    assert lines[6] == f"  SHA-256     {certificates['self'].fingerprint}", "as it is noted on signed images"
    assert re.fullmatch(r"  SHA-1       [0-9A-F]{2}(:[0-9A-F]{2}){19}", lines[7]), "as mokutil has it"
    assert lines[8:] == ["private key   Secret signing-key, key key, not encrypted", PAIR]


def test_one_secret_may_hold_both(put, check):
    put("signing", cert=PEM, key=KEY)
    for secrets in (["signing"], ["signing", "signing"]):
        code, lines = check(*secrets)
        assert code == 0
        assert wrong(lines) == ["private key   Secret signing, key key, not encrypted", PAIR]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_an_encrypted_key_is_decrypted_with_the_passphrase_beside_it(put, check, end):
    put("signing-key", key=ENCRYPTED, passphrase=PASSPHRASE + end)
    put("signing-cert", cert=ISSUED)
    code, lines = check("signing-key", "signing-cert")
    assert code == 0
    assert "  issuer      C=DE, O=Prüfstelle" in lines[2]
    assert wrong(lines)[0] == "private key   Secret signing-key, key key, encrypted, and the key passphrase is right"


def test_a_passphrase_that_nothing_needs_is_told(put, check):
    put("signing", cert=PEM, key=KEY, passphrase=PASSPHRASE)
    code, lines = check("signing")
    assert code == 0
    assert wrong(lines)[0].endswith("not encrypted; the key passphrase is not needed")


@pytest.mark.parametrize(
    ("beside", "elsewhere", "said"),
    [
        ({}, {}, "is encrypted, and beside it is no key passphrase"),
        ({}, {"passphrase": PASSPHRASE}, "no key passphrase: that of the Secret signing-cert has to be there"),
        ({"passphrase": b"wrong"}, {}, "cannot be decrypted: the passphrase is wrong, or the key damaged"),
        ({"passphrase": b""}, {}, "is encrypted, and the passphrase for it is empty"),
        ({"passphrase": b"x" * 1025}, {}, "its passphrase is larger than 1,024 bytes"),
    ],
    ids=["none", "elsewhere", "wrong", "empty", "long"],
)
def test_a_key_that_cannot_be_decrypted_is_bad(put, check, beside, elsewhere, said):
    put("signing-key", key=ENCRYPTED, **beside)
    put("signing-cert", cert=ISSUED, **elsewhere)
    code, lines = check("signing-cert", "signing-key")
    assert code == 1
    (line,) = wrong(lines)
    assert line.startswith("private key   Secret signing-key, key key: ")
    assert said in line


def test_a_key_and_a_certificate_of_two_pairs_are_bad(put, check):
    put("signing", cert=ISSUED, key=KEY)
    code, lines = check("signing")
    assert code == 1
    assert lines[-1] == (
        "both          what the key signs does not verify with the certificate: they are not of one pair"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"cert": KEY, "key": PEM}, "holds a private key and no certificate: are both the wrong way round?"),
        ({"cert": b"\x30\x82nothing", "key": KEY}, "holds no certificate in DER or PEM that can be read"),
        ({"cert": b"", "key": KEY}, "holds no certificate in DER or PEM that can be read"),
        ({"cert": PEM, "key": b"-----BEGIN PRIVATE KEY-----\nAAAA"}, "holds no private key in PEM or DER"),
        ({"cert": PEM, "key": b"\xff\x00"}, "holds no private key in PEM or DER"),
    ],
)
def test_what_cannot_be_read_is_bad(put, check, data, said):
    put("signing", **data)
    code, lines = check("signing")
    assert code == 1
    assert said in "\n".join(lines)


def test_a_key_that_is_not_there_is_named_with_those_that_are(put, check):
    put("tls", **{"tls.crt": PEM, "tls.key": KEY})
    put("empty")
    code, lines = check("tls", "empty")
    assert code == 1
    held = "Secret tls has the keys tls.crt, tls.key; Secret empty has no keys"
    assert lines == [f"certificate   there is no key cert: {held}", f"private key   there is no key key: {held}"]


def test_of_many_keys_some_are_named(put, check):
    put("many", cert=PEM, **{f"k{number:02}": b"" for number in range(40)})
    code, lines = check("many")
    assert code == 1
    assert lines[-1].endswith("has the keys cert, k00, k01, k02, k03, k04, k05, k06, k07, k08 and 31 more")


def test_two_secrets_that_hold_the_same_are_to_be_checked_one_by_one(put, check):
    put("a", cert=PEM, key=KEY)
    put("b", cert=PEM)
    code, lines = check("a", "b")
    assert code == 1
    assert lines[0] == "certificate   the Secrets a and b both have the key cert: check each on its own"


def test_a_secret_that_is_not_there_is_named_and_the_other_told_of(put, check):
    put("signing-key", key=KEY)
    code, lines = check("signing-key", "singing-cert")
    assert code == 1
    assert lines == [
        f"there is no Secret singing-cert in the namespace {NAMESPACE}",
        "Secret signing-key has the key key",
    ]
    assert check("signing-key", namespace="nowhere") == (
        1,
        ["there is no Secret signing-key in the namespace nowhere"],
    )


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "the key is an EC key: many kernels refuse its signatures"),
        (rsa.generate_private_key(65537, 1024), "the key has 1024 bits: that is not safe"),  # noqa: S505 -- that is it
    ],
    ids=["ec", "short"],
)
def test_what_kernels_may_not_take_is_a_warning(put, check, key, said):
    put("signing", cert=certificate_pem(key, days=9000), key=pem_of(key))
    code, lines = check("signing")
    assert code == 0
    assert lines[-1].startswith(f"warning: {said}")


def test_an_expired_certificate_is_a_warning(put, check):
    put("signing", cert=certificate_pem(at=NOW - 9000 * A_DAY), key=KEY)
    code, lines = check("signing")
    assert code == 0
    assert lines[-1].startswith("warning: the certificate expired on ")


def test_who_may_not_read_them_is_told_so(put, check, cluster):
    put("signing", cert=PEM, key=KEY)
    cluster.cluster.faults.add(Fault(kind=Kind.REFUSE, user="reader", resource="secrets", code=403))
    code, lines = check("signing", user="reader")
    assert code == 2
    assert len(lines) == 1
    assert cluster.cluster.url in lines[0]


def answering(body):
    return types.SimpleNamespace(host="https://there", ask=lambda *_: Answer(200, body))


@pytest.mark.parametrize("body", [b"{}", b'{"data": null}', b'{"data": [1]}', b"[]"])
def test_a_secret_without_data_has_no_keys(body):
    assert command._read(answering(body), NAMESPACE, "signing") == {}


@pytest.mark.parametrize("body", [b'{"data": {"cert": "A"}}', b"<html>"])
def test_an_answer_that_is_no_secret_is_told(body):
    with pytest.raises(ConfigError, match="https://there"):
        command._read(answering(body), NAMESPACE, "signing")


@pytest.mark.parametrize("name", ["a/b", "..", "A", "", "a b", "x" * 300])
def test_what_can_be_no_name_is_not_asked_for(check, cluster, name):
    since = len(cluster.entries())
    code, lines = check(name)
    assert code == 2
    assert lines == [f'"{name[:80]}" can be no name in Kubernetes']
    assert not [each for each in cluster.entries(since) if each.resource == "secrets"]


def test_more_than_two_are_wrong_use(check):
    code, lines = check("a", "b", "c")
    assert (code, lines) == (2, ["these are 3 Secrets: a certificate and a key are in one, or in two"])


def test_a_cluster_that_does_not_answer_is_told(here, cluster, tmp_path):
    path = tmp_path / "gone"
    path.write_text(cluster.cluster.kubeconfig("").read_text().replace(cluster.cluster.url, "https://127.0.0.1:1"))
    code, out, err = here("check-keys", "-n", NAMESPACE, "--kubeconfig", path, "signing")
    assert (code, out) == (2, "")
    assert "there is no answer" in err


def test_what_a_certificate_says_of_itself_reaches_no_terminal_unseen(put, check):
    put("signing", cert=certificate_pem(name="\x1b[31mred", days=9000), key=KEY)
    code, lines = check("signing")
    assert code == 0
    assert not any("\x1b" in line for line in lines)
