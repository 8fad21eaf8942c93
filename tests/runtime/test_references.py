from __future__ import annotations

import base64

import pytest
from signing.golden import golden

from kmm.runtime.references import facts
from kmm.signing import certificate


@pytest.mark.parametrize("name", ["self", "issued", "ec"])
@pytest.mark.parametrize(
    "form",
    [
        lambda der, pem: der,
        lambda der, pem: pem,
        lambda der, pem: pem.replace(b"\n", b"\r\n"),
        lambda der, pem: b"subject=CN = modules\n\n" + pem,
        lambda der, pem: pem + golden("self.pem") + golden("issued.pem"),
        lambda der, pem: pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
    ],
)
def test_a_certificates_fingerprint_is_the_one_that_signers_record(name, form):
    pem = golden(f"{name}.pem")
    der = certificate.load(pem).der
    data = form(der, pem)
    known = facts({"cert": base64.b64encode(data).decode()}).certificate
    assert known == certificate.load(data).fingerprint


@pytest.mark.parametrize("data", [b"", b"-----BEGIN CERTIFICATE-----a-----END", b"\xff" * 20])
def test_what_is_no_certificate_raises_nothing(data):
    assert len(facts({"cert": base64.b64encode(data).decode()}).certificate) in (0, 64)
    assert facts({}).certificate == ""
