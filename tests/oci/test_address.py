from __future__ import annotations

import pytest

from kmm.oci.address import Addresses, AddressRefused, parse_networks

REFUSED = {
    "127.0.0.1": "loopback",
    "127.9.9.9": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "loopback",
    "::127.0.0.1": "loopback",
    "64:ff9b::7f00:1": "loopback",
    "2002:7f00:1::": "loopback",
    "169.254.169.254": "link-local",
    "169.254.0.1": "link-local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "febf::1": "link-local",
    "::ffff:169.254.169.254": "link-local",
    "64:ff9b::a9fe:a9fe": "link-local",
    "fd00:ec2::254": "metadata",
    "fd20:ce::254": "metadata",
    "100.100.100.200": "metadata",
    "168.63.129.16": "metadata",
    "192.0.0.192": "metadata",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "::ffff:0.0.0.0": "unspecified",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "broadcast",
    "no address": "an address that is none",
}


@pytest.mark.parametrize("address", REFUSED)
def test_what_only_the_operator_can_reach_is_refused_and_the_text_does_not_say_where(address):
    with pytest.raises(AddressRefused, match=REFUSED[address]) as raised:
        Addresses().check(address)
    assert address not in str(raised.value)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1", "fd00:ec2::253", "172.17.0.1"]
)
def test_other_addresses_pass_private_ones_among_them(address):
    Addresses().check(address)


def test_what_is_allowed_passes_and_nothing_else_does():
    some = Addresses(allowed=parse_networks(["127.0.0.0/8", "fd00:ec2::254", "64:ff9b::/96"]))
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe"):
        some.check(address)
    for address in ("::1", "169.254.169.254", "0.0.0.0"):
        with pytest.raises(AddressRefused):
            some.check(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::1]", "localhost", "A.localhost."]
)
def test_before_a_proxy_texts_that_are_such_addresses_are_refused(host):
    with pytest.raises(AddressRefused, match="loopback"):
        Addresses().check_text(host)


@pytest.mark.parametrize("host", ["registry.example.com", "10.0.0.1", "[2001:db8::1]", "localhost.example.com"])
def test_before_a_proxy_other_texts_pass(host):
    Addresses().check_text(host)


@pytest.mark.parametrize("text", ["", "registry", "127.0.0.0/33", "127.0.0.1/8", "::g"])
def test_a_text_that_is_no_network_is_said_to_be_none(text):
    with pytest.raises(ValueError, match="is no address and no network"):
        parse_networks([text])
