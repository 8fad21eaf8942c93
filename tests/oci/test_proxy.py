from __future__ import annotations

import pytest

from kmm.oci.proxy import proxy_for

PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_the_proxy_of_the_scheme_is_used(name):
    assert proxy_for("https", "quay.io", 443, {name: PROXY}) == PROXY
    assert proxy_for("http", "quay.io", 80, {name: PROXY}) is None


def test_lower_case_wins_and_a_proxy_without_scheme_speaks_http():
    environ = {"https_proxy": "a.example.com:1", "HTTPS_PROXY": PROXY}
    assert proxy_for("https", "quay.io", 443, environ) == "http://a.example.com:1"


@pytest.mark.parametrize(
    ("entry", "host", "around"),
    [
        ("*", "quay.io", True),
        ("quay.io", "quay.io", True),
        ("quay.io", "cdn.quay.io", True),
        ("quay.io", "notquay.io", False),
        ("QUAY.io", "quay.IO.", True),
        (".quay.io", "cdn.quay.io", True),
        (".quay.io", "quay.io", False),
        ("*.quay.io", "cdn.quay.io", True),
        ("quay.io:443", "quay.io", True),
        ("quay.io:5000", "quay.io", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7:443", "10.0.0.7", True),
        ("fd00::/8", "[fd00::1]", True),
        ("[fd00::1]:443", "[fd00::1]", True),
        ("0.7", "10.0.0.7", False),
        ("a, b ,quay.io", "quay.io", True),
        (",,", "quay.io", False),
        ("quay.io:99999999999999999999", "quay.io", False),
    ],
)
def test_no_proxy_names_hosts_that_are_asked_directly(entry, host, around):
    found = proxy_for("https", host, 443, {"HTTPS_PROXY": PROXY, "NO_PROXY": entry})
    assert (found is None) is around
