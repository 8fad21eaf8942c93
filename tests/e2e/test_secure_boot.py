"""Kernels judge what is signed here, and say it in words that the operator knows."""

from __future__ import annotations

import pytest
from e2e.machine import Machine
from e2e.verdict import MODES, SECURE_BOOT, Court, cases, expected, own_signer

pytestmark = pytest.mark.e2e

CLOUD, PLAIN = "cloud-amd64", "amd64"


@pytest.mark.parametrize(("flavour", "other"), [(CLOUD, PLAIN), (PLAIN, CLOUD)])
def test_under_secure_boot_a_kernel_loads_what_is_signed_here_and_nothing_else(
    tmp_path, tools, kernels, flavour, other, trusted
):
    given = cases(kernels[flavour], kernels[other], trusted)
    # Kernels take no EC key from there.
    enrolled = [each.certificate.der for each in (*trusted.values(), own_signer("ec"))]
    with Machine(tmp_path / "machine", kernels[flavour], tools.busybox, certificates=enrolled) as machine:
        assert "[integrity]" in machine.said("cat", "/sys/kernel/security/lockdown")
        court = Court(machine, given, next(iter(trusted.values())))
        said = dict(court.verdicts())
        assert {case: each.reason for case, each in said.items()} == expected(SECURE_BOOT, trusted)
        for case in ("unsigned", "signed by a stranger", "changed after it was signed"):
            assert "Key was rejected by service" in said[case].said
        machine.said("modprobe", "sha512_generic")
        assert court.loads("signed with sha512").reason is None, "the kernel has the hash now"


def test_without_secure_boot_it_says_why_in_words_that_are_known_too(tmp_path, tools, kernels, trusted):
    given = cases(kernels[CLOUD], kernels[PLAIN], trusted)
    with Machine(tmp_path / "machine", kernels[CLOUD], tools.busybox) as machine:
        court = Court(machine, given, next(iter(trusted.values())))
        for mode, command in MODES.items():
            machine.said("sh", "-c", command)
            said = {case: each.reason for case, each in court.verdicts()}
            assert said == expected(mode, trusted), mode
