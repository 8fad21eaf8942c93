from __future__ import annotations

import sys
from importlib.metadata import distributions as installed_in
from pathlib import Path

import pytest

from kmm import hookspecs
from kmm.contract import ContractDeprecation, Record, Settings
from kmm.errors import ConfigError
from kmm.loader import load_catalog

BROKEN = Path(__file__).parent / "broken"
ALL_BROKEN = ["broken-kmm", "twin-a", "twin-b", "unreadable"]


@pytest.fixture(scope="module")
def distributions():
    return list(installed_in(path=[str(BROKEN)]))


@pytest.fixture
def catalog(distributions, monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN))
    options = {"refuses-settings": {"miror": "x"}}
    return load_catalog(ALL_BROKEN, lambda name: Settings(options=options.get(name, {})), distributions)


@pytest.mark.parametrize(
    ("plugin", "reason", "said"),
    [
        ("import-error", "ImportFailed", "No module named 'no_such_module_anywhere'"),
        ("exits-on-import", "ImportFailed", "SystemExit: I leave"),
        ("missing-attribute", "ImportFailed", "nothing"),
        ("mistyped-hook", "UnknownHook", 'there is no hook "kmm_bilders"; did you mean "kmm_builders"?'),
        ("wrong-parameter", "BadHook", '"setings"; the hook hands over: settings'),
        ("keyword-only", "BadHook", "only ordinary ones can be filled"),
        ("async-hook", "BadHook", "is async"),
        ("generator-hook", "BadHook", "is a generator"),
        ("returns-none", "WrongResult", "returned None instead of a list"),
        ("returns-string", "WrongResult", "an object of type str without "),
        ("lacks-observe", "WrongResult", "without observe instead of a Renderer"),
        ("bad-names", "WrongResult", "a name must be at most 63 lower-case letters"),
        ("name-raises", "WrongResult", "RuntimeError: no name today"),
        ("owns-nothing", "WrongResult", "owns is not a list of at least one Kind"),
        ("bad-host", "WrongResult", "https://quay.example"),
        ("a-class", "WrongResult", "the class Builder instead of an object of it"),
        ("bad-signature", "WrongResult", "whose render does not take (request)"),
        ("bad-requires", "WrongResult", '"dockerfil", which is no field of the request; did you mean "dockerfile"?'),
        (
            "bad-ignores",
            "WrongResult",
            'ignores "base_tsl", of which no user is told; did you mean "base_tls"?',
        ),
        ("ignoring-signer", "WrongResult", 'ignores "push_tls", of which no user is told'),
        ("bad-place", "WrongResult", "whose place does not take (module, params)"),
        ("bad-base-images", "WrongResult", 'whose argument "KERNEL_VERSION" can be no build argument of its own'),
        ("bad-listing", "WrongResult", "whose listing is an object of type tuple instead of a Listing"),
        ("bad-kind", "WrongResult", "owns is not a list of at least one Kind"),
        ("bad-driver", "WrongResult", 'modprobe.modulName: is not a known field; did you mean "moduleName"?'),
        ("odd-driver", "WrongResult", "whose spec holds a key that is not a string"),
        ("builtin-hook", "BadHook", "hooks are ordinary functions"),
        ("class-hook", "BadHook", "hooks are ordinary functions"),
        ("no-dir", "Broken", "RuntimeError: no names today"),
        ("cancelled", "HookRaised", "CancelledError"),
        ("unspeakable", "HookRaised", "Unspeakable"),
        ("nearly", "BadGroup", 'entry-point group "kmm-v1" is none of ours: it must be kmm.v1'),
        ("raises", "HookRaised", "ZeroDivisionError: the message"),
        ("refuses-settings", "BadSettings", 'unknown option "miror"; did you mean "mirror"? (known: mirror)'),
        ("no-hooks", "NoHooks", "defines none of the hooks: kmm_registries, "),
        ("Bad_Entry", "BadName", "lower-case letters"),
        ("other-major", "OtherContract", "made for version 2 of the plugin contract, this operator speaks 1."),
        ("unlisted", "NotAllowed", "add unlisted there"),
        ("unreadable", "BadMetadata", "its metadata cannot be read"),
    ],
)
def test_a_plugin_that_is_wrong_is_refused_and_told_why(catalog, plugin, reason, said):
    (refusal,) = [refusal for refusal in catalog.refusals if refusal.name == plugin]
    assert refusal.reason == reason
    assert said in refusal.message
    assert "\n" not in refusal.message


def test_a_good_plugin_beside_all_the_wrong_ones_offers_what_it_has(catalog):
    (good,) = [plugin for plugin in catalog.plugins if plugin.name == "good"]
    assert (good.distribution, good.version) == ("Broken_KMM", "1.0")
    assert catalog.builder("good").requires == ("dockerfile",)
    assert catalog.driver("good-nic").spec["moduleLoader"]


def test_every_entry_point_is_either_a_plugin_or_a_refusal(catalog, distributions):
    installed = {
        point.name
        for distribution in distributions
        if distribution.metadata["Name"] != "unreadable"
        for point in distribution.entry_points
        if point.group.startswith("kmm")
    }
    told = {each.name for each in (*catalog.plugins, *catalog.refusals)}
    assert told == installed | {"unreadable"}


def test_two_plugins_of_one_name_are_both_refused(catalog):
    refused = [refusal for refusal in catalog.refusals if refusal.name == "same"]
    assert [refusal.reason for refusal in refused] == ["DuplicateName", "DuplicateName"]
    assert all("twin-a 1.0 and by twin-b 1.0" in refusal.message for refusal in refused)


def test_a_builder_that_two_plugins_offer_is_taken_from_neither(catalog):
    assert "twin" not in catalog.builders
    assert catalog.contested["builder", "twin"] == ("twin-a 1.0", "twin-b 1.0")


def test_the_order_of_installation_changes_nothing(distributions, monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN))
    first = load_catalog(["*"], found=distributions)
    second = load_catalog(["*"], found=list(reversed(distributions)))
    assert [plugin.name for plugin in first.plugins] == [plugin.name for plugin in second.plugins]
    assert first.builders.keys() == second.builders.keys()
    assert {(r.name, r.reason) for r in first.refusals} == {(r.name, r.reason) for r in second.refusals}


def test_what_is_not_allowed_is_not_imported(distributions, monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN))
    catalog = load_catalog((), found=distributions)
    assert catalog.plugins == ()
    assert {refusal.reason for refusal in catalog.refusals} == {
        "NotAllowed",
        "OtherContract",
        "BadMetadata",
        "BadGroup",
    }


def test_a_distribution_is_allowed_however_its_name_is_spelled(distributions, monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN))
    for spelling in ("Broken_KMM", "broken.kmm", "BROKEN-kmm"):
        assert "good" in load_catalog([spelling], found=distributions).builders


def test_a_plugin_may_leave_out_parameters_that_it_does_not_need(catalog):
    assert "good-nic" in catalog.drivers


def test_validation_and_observation_are_plain_functions(catalog):
    (good,) = [plugin for plugin in catalog.plugins if plugin.name == "good"]
    assert good.validate_module is not None
    assert good.observe is not None
    assert good.validate_module({"metadata": {"name": "bad"}})[0].message == "is bad"
    record = Record(at_s=0.0, action="Create", kind="DaemonSet", namespace="n", name="d")
    good.observe(record)
    import good as module  # noqa: PLC0415 -- the fixture has put it on the path

    assert module.records.pop() is record


def test_settings_reach_the_plugin_they_are_for(distributions, monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN))
    catalog = load_catalog(
        ["broken-kmm"], lambda name: Settings(options={"mirrors": 1} if name == "good" else {}), distributions
    )
    (refusal,) = [refusal for refusal in catalog.refusals if refusal.name == "good"]
    assert (
        refusal.message
        == 'its configuration is wrong: unknown option "mirrors"; did you mean "mirror"? (known: mirror)'
    )


def test_what_the_configuration_names_and_nobody_installed_is_told(distributions, monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN))
    catalog = load_catalog(["broken-kmn"], found=distributions, options=["god"])
    told = {refusal.name: refusal.message for refusal in catalog.refusals if refusal.reason == "NotInstalled"}
    assert 'did you mean "Broken_KMM"?' in told["broken-kmn"]
    assert 'did you mean "good"?' in told["god"]


def test_what_a_plugin_does_to_its_offers_later_has_no_effect(catalog):
    import good as module  # noqa: PLC0415 -- the fixture has put it on the path

    offered = catalog.builder("good")
    module.Builder.name = property(lambda _: 1 / 0)
    try:
        assert offered.name == "good"
        assert offered.render(None)[0]["kind"] == "Job"
    finally:
        module.Builder.name = "good"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return what installs a plugin of one module: its distributions."""

    def install(entry_points: str, module: str) -> list:
        (tmp_path / "acme_made.py").write_text(module)
        info = tmp_path / "acme_kmm-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-kmm\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(str(tmp_path))
        return list(installed_in(path=[str(tmp_path)]))

    yield install
    sys.modules.pop("acme_made", None)


def test_a_plugin_for_another_contract_is_refused_by_name_and_not_imported(installed):
    catalog = load_catalog(["*"], found=installed("[kmm.v2]\nacme = acme_made\n", "raise SystemExit"))
    (refusal,) = catalog.refusals
    assert (refusal.name, refusal.distribution, refusal.reason) == ("acme", "acme-kmm", "OtherContract")
    assert refusal.message.endswith("install a release of acme-kmm for that")
    assert "acme_made" not in sys.modules


def test_a_plugin_may_be_there_for_operators_of_either_contract(installed):
    found = installed("[kmm.v1]\nacme = acme_made\n[kmm.v2]\nacme = acme_of_v2\n", "def kmm_observe(record): pass\n")
    catalog = load_catalog(["*"], found=found)
    assert [plugin.name for plugin in catalog.plugins] == ["acme"]
    assert catalog.refusals == ()


def test_a_hook_that_will_go_is_told_of_whoever_has_it(distributions, monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN))
    going = ContractDeprecation("kmm_drivers goes with contract 2:\n deprecated since 1.7, define kmm_defaults")
    monkeypatch.setitem(hookspecs.kmm_drivers.kmm_spec, "warn_on_impl", going)
    catalog = load_catalog(["broken-kmm"], found=distributions)
    told = {plugin.name: plugin.deprecated for plugin in catalog.plugins}
    assert told["good"] == ("kmm_drivers goes with contract 2: deprecated since 1.7, define kmm_defaults",)
    assert catalog.driver("good-nic")


def test_what_a_plugin_uses_that_will_go_is_told_once_and_other_warnings_are_given(installed):
    module = (
        "import warnings\n"
        "from kmm.contract import ContractDeprecation\n"
        "def kmm_drivers(settings):\n"
        "    warnings.warn('an old one', ContractDeprecation, stacklevel=2)\n"
        "    warnings.warn('an old one', ContractDeprecation, stacklevel=2)\n"
        "    return []\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('always')\n"
        "    warnings.warn('another matter', UserWarning, stacklevel=2)\n"
    )
    found = installed("[kmm.v1]\nacme = acme_made\n", module)
    with pytest.warns(UserWarning, match="another matter") as given:
        catalog = load_catalog(["*"], found=found)
    assert catalog.plugins[0].deprecated == ("an old one",)
    assert not [each for each in given if each.category is ContractDeprecation]


def test_two_registries_with_one_pattern_stop_the_start(tmp_path, monkeypatch):
    (tmp_path / "rival.py").write_text(
        "class Registry:\n    name = 'rival'\n    hosts = ('*.example.com',)\n"
        "    def inspect(self, image, access, deadline_s, files=(), annotations=False): return None\n"
        "def kmm_registries(settings): return [Registry()]\n"
    )
    for name in ("rival-a", "rival-b"):
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[kmm.v1]\n{name} = rival\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = list(installed_in(path=[str(tmp_path)]))
    with pytest.raises(ConfigError, match=r'"\*\.example\.com" is claimed by rival-a 1\.0 and by rival-b 1\.0'):
        load_catalog(["*"], found=found)


def test_the_installed_default_plugin_is_loaded_without_any_configuration():
    catalog = load_catalog()
    assert catalog.device_plugin("daemonset").name == "daemonset"
    assert catalog.refusals == ()
