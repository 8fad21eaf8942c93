from __future__ import annotations

import pytest

from kmm.catalog import Catalog, Plugin, Refusal, build_catalog
from kmm.contract import Driver, Kind, Progress, State
from kmm.errors import PluginError


class Renderer:
    owns = (Kind(api_version="batch/v1", kind="Job", plural="jobs"),)
    requires = ()

    def __init__(self, name):
        self.name = name

    def render(self, request):
        return [{"of": request}]

    def observe(self, objects, pods):
        return Progress(state=State.PENDING if not objects and not pods else State.RUNNING)


class Registry:
    def __init__(self, *hosts):
        self.name, self.hosts = hosts[0], hosts

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        raise NotImplementedError((image, access, deadline_s, files))


def plugin(name: str, **offers) -> Plugin:
    return Plugin(name=name, distribution=f"acme-{name}", version="1.0", **offers)


def test_a_name_that_nobody_offers_is_answered_with_the_installed_and_the_nearest():
    catalog = build_catalog([plugin("b", builders=(Renderer("kaniko"), Renderer("openshift-build")))])
    with pytest.raises(PluginError) as raised:
        catalog.builder("kanico")
    assert str(raised.value) == 'no builder "kanico"; installed: kaniko, openshift-build; did you mean "kaniko"?'


def test_refusals_are_pointed_out_where_a_name_is_missing():
    refusal = Refusal(name="x", distribution="x", version="1", reason="ImportFailed", message="m")
    with pytest.raises(PluginError, match="some plugins were refused, see `kmm plugins`"):
        build_catalog([], [refusal]).signer("hsm")


def test_each_kind_of_offer_has_its_own_names():
    catalog = build_catalog(
        [
            plugin(
                "all",
                builders=(Renderer("acme"),),
                signers=(Renderer("acme"),),
                device_plugins=(Renderer("acme"),),
                drivers=(Driver(name="acme", spec={}),),
            )
        ]
    )
    assert catalog.builder("acme") is not catalog.signer("acme")
    assert catalog.device_plugin("acme").name == catalog.driver("acme").name == "acme"
    assert catalog.refusals == ()


def test_a_contested_name_says_by_whom():
    catalog = build_catalog([plugin("a", signers=(Renderer("hsm"),)), plugin("b", signers=(Renderer("hsm"),))])
    with pytest.raises(PluginError, match=r"offered by acme-a 1\.0 and by acme-b 1\.0: none of them is used"):
        catalog.signer("hsm")
    assert [refusal.reason for refusal in catalog.refusals] == ["DuplicateName"] * 2


class BaseImages:
    argument = "TOOLKIT"

    def __init__(self, name):
        self.name = name


def test_base_images_are_found_by_their_build_argument_and_used_from_none_where_several_claim_it():
    one = build_catalog([plugin("a", base_images=(BaseImages("first"),))])
    assert one.base_image("TOOLKIT").name == "first"
    both = build_catalog(
        [plugin("a", base_images=(BaseImages("first"),)), plugin("b", base_images=(BaseImages("x"),))]
    )
    assert both.base_image_arguments == {"TOOLKIT"}
    with pytest.raises(PluginError, match=r'build argument "TOOLKIT" is offered by acme-a 1\.0 and by acme-b 1\.0'):
        both.base_image("TOOLKIT")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("registry.example.com:5001", "registry.example.com"),
        ("registry.example.com", "registry.example.com"),
        ("a.b.example.com", "*.b.example.com"),
        ("a.c.example.com:443", "*.example.com"),
        ("example.com", "*"),
        ("localhost", "*"),
    ],
)
def test_the_most_specific_pattern_serves_a_registry_host(host, expected):
    patterns = ("*", "*.example.com", "*.b.example.com", "registry.example.com", "registry.example.com:5000")
    catalog = build_catalog(
        [plugin(f"p{index}", registries=(Registry(each),)) for index, each in enumerate(patterns)]
    )
    assert catalog.registry(host).name == expected


def test_a_host_that_no_registry_serves_is_an_error_that_lists_the_patterns():
    catalog = build_catalog([plugin("r", registries=(Registry("quay.example"),))])
    with pytest.raises(PluginError, match=r'no registry plugin serves "ghcr\.example"; installed patterns: quay'):
        catalog.registry("ghcr.example")


def test_an_empty_catalog_answers_too():
    with pytest.raises(PluginError, match="installed: none"):
        Catalog().driver("acme")
