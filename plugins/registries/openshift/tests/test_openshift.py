from __future__ import annotations

import pytest
from kmm_openshift import OpenShift, kmm_registries

from kmm.catalog import Plugin, build_catalog
from kmm.conformance import PluginContract, RegistryContract
from kmm.contract import Access, Credential, Forbidden, Settings, SettingsError, Tls
from kmm.embedded.registry import Registry
from kmm.errors import PluginError
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.session import Session

TOKEN = "the-accounts-token"


@pytest.fixture
def internal():
    """The internal registry: it takes a token as the password of whatever name."""
    with Registry(auth="bearer", users={"serviceaccount": TOKEN, "module": "s3cret"}) as registry:
        registry.push_image("ns/driver:1", {"/a": b"a"})
        yield registry


@pytest.fixture
def openshift(tmp_path, internal):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "service-ca.crt").write_text(internal.ca_pem)
    session = Session(Addresses(allowed=parse_networks(["127.0.0.0/8"])), environ={})
    yield OpenShift(session, tmp_path / "token", tmp_path / "service-ca.crt")
    session.close()


def test_it_serves_the_internal_registrys_names():
    (found,) = kmm_registries(Settings())
    catalog = build_catalog([Plugin(name="openshift", distribution="t", version="1", registries=(found,))])
    for name in ("", ".cluster.local", ":5000", ".cluster.local:5000"):
        assert catalog.registry(f"image-registry.openshift-image-registry.svc{name}") is found
    with pytest.raises(PluginError):
        catalog.registry("image-registry.example.com:5000")
    (other,) = kmm_registries(Settings(options={"hosts": ["registry.internal:5000"]}))
    assert other.hosts == ("registry.internal:5000",)


def test_the_operators_account_asks_where_the_module_has_no_credentials(openshift, internal):
    assert openshift.inspect(f"{internal.host}/ns/driver:1", Access(), 20) is not None
    assert openshift.inspect(f"{internal.host}/ns/driver:2", Access(), 20) is None


def test_the_modules_credentials_come_first(openshift, internal):
    access = Access(credentials=(Credential(username="module", password="s3cret"),))
    assert openshift.inspect(f"{internal.host}/ns/driver:1", access, 20) is not None
    assert {each.user for each in internal.log if each.user} == {"module"}


def test_a_token_that_was_rotated_is_read_again(openshift, internal):
    openshift.token_file.write_text("old")
    with pytest.raises(Forbidden):
        openshift.inspect(f"{internal.host}/ns/driver:1", Access(), 20)
    openshift.token_file.write_text(TOKEN)
    assert openshift.inspect(f"{internal.host}/ns/driver:1", Access(), 20) is not None


def test_without_a_checked_certificate_the_token_is_not_shown(openshift, internal):
    with pytest.raises(Forbidden):
        openshift.inspect(f"{internal.host}/ns/driver:1", Access(tls=Tls(skip_verify=True)), 20)
    assert not [each for each in internal.log if each.user]


def test_files_that_are_not_there_are_asked_without(openshift, internal):
    openshift.token_file.unlink()
    with pytest.raises(Forbidden):
        openshift.inspect(f"{internal.host}/ns/driver:1", Access(), 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": "/t"}, 'unknown option "token"; did you mean "tokenFile"'),
        ({"caFile": "ca.crt"}, "caFile: must be an absolute path"),
        ({"hosts": []}, "hosts: must be a list of names"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        kmm_registries(Settings(options=options))


class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin(self):
        return "openshift"


class TestRegistry(RegistryContract):
    @pytest.fixture
    def plugin(self):
        return "openshift"

    @pytest.fixture
    def registry(self, tmp_path):
        """One that may ask this machine, which no setting allows, and has no account of its own."""
        session = Session(Addresses(allowed=parse_networks(["127.0.0.0/8"])), environ={})
        yield OpenShift(session, tmp_path / "no-token", tmp_path / "no-ca.crt")
        session.close()
