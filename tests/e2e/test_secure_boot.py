"""Kernels judge what is signed here, and say it in words that the operator knows."""

from __future__ import annotations

import pytest
from e2e.debian import NEXT_SUITE, SUITE
from e2e.machine import Machine
from e2e.verdict import MODES, SECURE_BOOT, VERIFIED_BY_SOME, WITH_SHA512, Court, cases, expected, own_signer

pytestmark = pytest.mark.e2e

# Of the kernels' releases: 6.1 knows no EC keys, and sha512 once its module is loaded; 6.12 both.
VERIFIES = {SUITE: (), NEXT_SUITE: VERIFIED_BY_SOME}


@pytest.mark.parametrize(("suite", "other"), [(SUITE, NEXT_SUITE), (NEXT_SUITE, SUITE)])
def test_under_secure_boot_a_kernel_loads_what_is_signed_here_and_nothing_else(
    tmp_path, tools, kernels, suite, other, trusted
):
    given = cases(kernels[suite], kernels[other], trusted)
    enrolled = [each.certificate.der for each in (*trusted.values(), own_signer("ec"))]
    with Machine(tmp_path / "machine", kernels[suite], tools.busybox, certificates=enrolled) as machine:
        assert "[integrity]" in machine.said("cat", "/sys/kernel/security/lockdown")
        court = Court(machine, given, next(iter(trusted.values())))
        said = dict(court.verdicts())
        found = {case: each.reason for case, each in said.items()}
        assert found == expected(SECURE_BOOT, trusted, VERIFIES[suite])
        for case in ("unsigned", "signed by a stranger", "changed after it was signed"):
            assert "Key was rejected by service" in said[case].said
        machine.said("modprobe", "-a", "sha512_generic")
        assert court.loads(WITH_SHA512).reason is None, "the kernel has the hash now"


def test_without_secure_boot_it_says_why_in_words_that_are_known_too(tmp_path, tools, kernels, trusted):
    given = cases(kernels[SUITE], kernels[NEXT_SUITE], trusted)
    with Machine(tmp_path / "machine", kernels[SUITE], tools.busybox) as machine:
        court = Court(machine, given, next(iter(trusted.values())))
        for mode, command in MODES.items():
            machine.said("sh", "-c", command)
            said = {case: each.reason for case, each in court.verdicts()}
            assert said == expected(mode, trusted), mode
