"""Which builder builds: what is named, else what fits the cluster; what is not known changes no choice."""

from __future__ import annotations

import pytest

from kmm.api.module import ModuleSpec
from kmm.api.schema import load
from kmm.catalog import Catalog, Plugin, build_catalog
from kmm.contract import Kind, ModuleRef, Progress, State
from kmm.core.choice import UndecidedError, builder_to_keep, ignored, makers
from kmm.core.mapping import resolve
from kmm.core.view import Operator, Unknown, View
from kmm.errors import PluginError

SILENT = Unknown(message="it timed out")
EACH_ANSWER = pytest.mark.parametrize("said", [True, False, SILENT], ids=["present", "absent", "unknown"])
UNNAMED = {"dockerfileConfigMap": {"name": "d"}}
NAMED = {**UNNAMED, "builder": "buildah"}


class Renderer:
    owns = (Kind(api_version="batch/v1", kind="Job", plural="jobs"),)
    requires = ()

    def __init__(self, name):
        self.name = name

    def render(self, request):
        return []

    def observe(self, objects, pods):
        return Progress(state=State.PENDING)


def offering(*names: str) -> Catalog:
    return build_catalog(
        Plugin(name=f"p{number}", distribution=f"p{number}", version="1", builders=(Renderer(name),))
        for number, name in enumerate(names)
    )


def view(said, kept="", **operator) -> View:
    status = {"builder": kept} if kept else {}
    return View(openshift_builds=said, status=status, operator=Operator(**operator))


def chosen(catalog: Catalog, seen: View, name: str | None = None) -> str:
    return makers(catalog, seen).builder(name).name


def spec(build=None, *own) -> ModuleSpec:
    mappings = [
        {"regexp": ".", "containerImage": "a", **({"build": each} if each else {})} for each in own or (None,)
    ]
    container = {"modprobe": {"moduleName": "m"}, "kernelMappings": mappings, **({"build": build} if build else {})}
    value, findings = load(ModuleSpec, {"selector": {}, "moduleLoader": {"container": container}})
    assert value is not None, findings
    return value


@EACH_ANSWER
def test_what_the_module_names_wins_then_the_configuration_whatever_the_cluster_is(said):
    catalog = offering("buildah", "kaniko", "openshift-build")
    assert chosen(catalog, view(said, "openshift-build", builder="buildah"), "kaniko") == "kaniko"
    assert chosen(catalog, view(said, "openshift-build", builder="kaniko")) == "kaniko"


def test_openshift_builds_where_it_can_and_buildah_elsewhere():
    catalog = offering("buildah", "kaniko", "openshift-build")
    assert chosen(catalog, view(said=True)) == "openshift-build"
    assert chosen(catalog, view(said=False)) == "buildah"


@pytest.mark.parametrize("before", [True, False])
def test_an_error_never_changes_the_choice(before):
    catalog = offering("buildah", "kaniko", "openshift-build")
    first = chosen(catalog, view(before))
    kept = builder_to_keep(spec(UNNAMED), catalog, view(before))
    assert kept == first
    unknown = view(SILENT, kept)
    assert chosen(catalog, unknown) == first
    assert builder_to_keep(spec(UNNAMED), catalog, unknown) == first


def test_an_answer_counts_for_more_than_what_was_kept():
    catalog = offering("buildah", "openshift-build")
    assert chosen(catalog, view(said=True, kept="buildah")) == "openshift-build"
    assert chosen(catalog, view(said=False, kept="openshift-build")) == "buildah"


@pytest.mark.parametrize("kept", ["", 1, None, {}])
def test_without_an_answer_and_without_a_choice_nothing_is_chosen_and_it_is_said_why(kept):
    seen = View(openshift_builds=SILENT, status={"builder": kept})
    with pytest.raises(UndecidedError, match=r"did not say: it timed out; it is asked again") as raised:
        chosen(offering("buildah"), seen)
    assert "the Module names no builder, and neither does the configuration" in str(raised.value)
    assert builder_to_keep(spec(UNNAMED), offering("buildah"), seen) == ""


def test_what_fits_but_is_not_installed_is_told_with_what_is_and_how_to_choose_it():
    with pytest.raises(PluginError) as raised:
        chosen(offering("kaniko", "buildah"), view(said=True))
    assert str(raised.value) == (
        'the Module names no builder, and neither does the configuration; "openshift-build" is what fits this '
        "cluster, and is not installed; installed: buildah, kaniko; choose one by build.builder in the Module, or by "
        "builder in the operator's configuration"
    )
    with pytest.raises(PluginError, match="installed: none"):
        chosen(offering(), view(said=True))


def test_a_choice_that_was_kept_is_not_replaced_when_it_is_not_installed_any_more():
    with pytest.raises(PluginError, match='"openshift-build" is what fits this cluster, and is not installed'):
        chosen(offering("kaniko"), view(SILENT, "openshift-build"))


def test_without_buildah_the_only_builder_is_meant():
    assert chosen(offering("acme"), view(said=False)) == "acme"


@pytest.mark.parametrize(
    ("catalog", "says"),
    [(offering(), "no builder is installed"), (offering("kaniko", "acme"), "installed: acme, kaniko")],
)
def test_where_nothing_says_which_is_meant_none_is(catalog, says):
    with pytest.raises(PluginError, match=says):
        chosen(catalog, view(said=False))
    assert builder_to_keep(spec(UNNAMED), catalog, view(said=False)) == ""


def test_a_default_that_two_plugins_offer_is_used_from_neither():
    with pytest.raises(PluginError, match="is offered by p0 1 and by p1 1"):
        chosen(offering("buildah", "buildah", "kaniko"), view(said=False))


@pytest.mark.parametrize(
    ("of", "kept"),
    [
        (spec(), ""),
        (spec(UNNAMED), "buildah"),
        (spec(NAMED), ""),
        (spec(None, UNNAMED), "buildah"),
        (spec(None, NAMED), ""),
        (spec(None, NAMED, UNNAMED), "buildah"),
        (spec(NAMED, UNNAMED), ""),
        (spec(UNNAMED, NAMED), ""),
        (spec(UNNAMED, NAMED, None), "buildah"),
        (None, ""),
    ],
)
def test_a_choice_is_kept_where_one_is_made(of, kept):
    assert builder_to_keep(of, offering("buildah"), view(said=False)) == kept
    assert builder_to_keep(of, offering("buildah"), view(said=False, builder="kaniko")) == ""


@EACH_ANSWER
def test_the_cluster_says_nothing_of_signers(said):
    signer = Plugin(name="s", distribution="s", version="1", signers=(Renderer("only"),))
    assert makers(build_catalog([signer]), view(said)).signer(None).name == "only"


class Limited(Renderer):
    ignores = ("push_tls", "base_tls", "builder_tag")


def warning(builder, build=UNNAMED, **mapping) -> str:
    made = spec({**UNNAMED, **build}).module_loader.container
    target = resolve(made, ModuleRef(namespace="n", name="m"), "6.1.0")
    return ignored(target, builder)


def test_what_a_builder_has_no_means_for_is_named_as_the_module_names_it():
    insecure = {"baseImageRegistryTLS": {"insecure": True}, "kanikoParams": {"tag": "v1"}}
    assert warning(Limited("openshift-build"), insecure) == (
        "the builder openshift-build has no means for build.baseImageRegistryTLS and build.kanikoParams: it builds "
        "without"
    )


def test_nothing_is_said_of_what_a_module_does_not_ask_or_its_builder_can_do():
    assert warning(Limited("openshift-build")) == ""
    assert warning(Limited("openshift-build"), {"baseImageRegistryTLS": {}}) == ""
    assert warning(Renderer("buildah"), {"baseImageRegistryTLS": {"insecure": True}}) == ""
