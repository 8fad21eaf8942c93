from __future__ import annotations

import dataclasses

import pytest

from kmm.api.module import (
    Build,
    BuildArg,
    KanikoParams,
    KernelMapping,
    LocalObjectReference,
    ModuleLoaderContainer,
    Sign,
    TLSOptions,
)
from kmm.contract import ModuleRef, Tls
from kmm.core.images import temporary_image
from kmm.core.mapping import KernelTarget, find, merge_builds, merge_signs, resolve
from kmm.errors import SpecError

MODULE = ModuleRef(namespace="n", name="m")
KERNEL = "6.1.0-18+deb12-amd64+"
INSECURE, UNVERIFIED = TLSOptions(insecure=True), TLSOptions(insecure_skip_tls_verify=True)


def named(name: str) -> LocalObjectReference:
    return LocalObjectReference(name=name)


def build(**fields) -> Build:
    return Build(dockerfile_config_map=fields.pop("dockerfile_config_map", named("dockerfile")), **fields)


def resolved(container: dict | None = None, mapping: dict | None = None, kernel: str = KERNEL) -> KernelTarget:
    """What a container of one mapping, which fits every kernel, wants for a kernel."""
    one = KernelMapping(**{"regexp": "", "container_image": "a", **(mapping or {})})
    found = resolve(ModuleLoaderContainer(**(container or {}), kernel_mappings=(one,)), MODULE, kernel)
    assert found is not None
    return found


def which(kernel: str, *mappings: KernelMapping) -> str | None:
    found = find(ModuleLoaderContainer(kernel_mappings=mappings), kernel)
    return found.container_image if found else None


def literal(text: str, image: str) -> KernelMapping:
    return KernelMapping(literal=text, container_image=image)


def regexp(pattern: str, image: str) -> KernelMapping:
    return KernelMapping(regexp=pattern, container_image=image)


@pytest.mark.parametrize(
    ("text", "kernel", "fits"),
    [
        ("6.1.0", "6.1.0", True),
        ("6.1.0", "6.1.0-18", False),
        ("6.1.0-18", "6.1.0", False),
        ("1.0", "6.1.0", False),
        ("6.1.0", "6x1x0", False),
        ("^6", "6.1.0", False),
        ("6.1.0+", "6.1.0+", True),
        ("6.1.0", "6.1.0+", True),
        ("6.1.0+", "6.1.0", False),
        ("6.1.0", "6.1.0++", False),
        ("6.1.0+", "6.1.0++", True),
        ("6.1.0-A", "6.1.0-a", False),
    ],
)
def test_a_literal_is_compared_whole_with_the_kernel_and_then_without_its_trailing_plus(text, kernel, fits):
    assert which(kernel, literal(text, "a")) == ("a" if fits else None)


@pytest.mark.parametrize(
    ("pattern", "kernel", "fits"),
    [
        ("1.0", "6.1.0", True),
        ("amd64$", "6.1.0-18-amd64", True),
        ("^1", "6.1.0", False),
        (r"^6\.1\.0$", "6.1.0+", True),
        (r"^6\.1\.0\+$", "6.1.0+", True),
        (r"^6\.1\.0\+$", "6.1.0++", True),
        (r"^6\.1\.0$", "6.1.0++", False),
        (r"\+", "6.1.0", False),
        (".", "", False),
    ],
)
def test_a_regexp_is_searched_in_the_kernel_and_then_without_its_trailing_plus(pattern, kernel, fits):
    assert which(kernel, regexp(pattern, "a")) == ("a" if fits else None)


def test_the_first_mapping_that_fits_wins_whatever_its_form():
    kernel = "6.1.0-18"
    assert which(kernel, regexp("^6", "first"), literal(kernel, "second")) == "first"
    assert which(kernel, literal(kernel, "first"), regexp("^6", "second")) == "first"
    assert which(kernel, regexp("^5", "no"), literal("6.1.0", "no"), regexp("18$", "a"), regexp(".", "b")) == "a"


def test_no_mapping_that_fits_is_a_normal_state():
    container = ModuleLoaderContainer(container_image="a", kernel_mappings=(literal("5.4.0", "a"),))
    assert resolve(container, MODULE, KERNEL) is None
    assert resolve(ModuleLoaderContainer(container_image="a"), MODULE, KERNEL) is None


@pytest.mark.parametrize("bad", ["(", "(?=x)", "((a{100}){100}){100}", r"\1"])
def test_a_bad_regexp_hurts_only_what_it_decides(bad):
    before, after = literal("5.4.0", "before"), literal("6.1.0", "after")
    assert which("5.4.0", before, regexp(bad, "bad"), after) == "before"
    assert which("6.1.0", before, regexp(bad, "bad"), after) == "after"
    with pytest.raises(SpecError, match="cannot be read"):
        which("6.6.0", before, regexp(bad, "bad"), after)


def test_a_strangers_pattern_takes_linear_time():
    assert which("a" * 5_000 + "!", regexp("(a|a)*(a|aa)+$", "no"), regexp("!$", "a")) == "a"


def test_what_is_resolved_says_which_kernel_it_is_for_verbatim():
    assert resolved().kernel == KERNEL


@pytest.mark.parametrize(
    ("container", "mapping", "field", "expected"),
    [
        ({"container_image": "a"}, {"container_image": "b"}, "image", "b"),
        ({"container_image": "a"}, {"container_image": None}, "image", "a"),
        ({"registry_tls": INSECURE}, {}, "tls", Tls(insecure=True)),
        ({"registry_tls": INSECURE}, {"registry_tls": UNVERIFIED}, "tls", Tls(skip_verify=True)),
        ({"registry_tls": INSECURE}, {"registry_tls": TLSOptions()}, "tls", Tls()),
        ({}, {}, "tls", Tls()),
        ({"in_tree_modules_to_remove": ("x", "y")}, {}, "in_tree_modules", ("x", "y")),
        (
            {"in_tree_modules_to_remove": ("x", "y")},
            {"in_tree_modules_to_remove": ("z",)},
            "in_tree_modules",
            ("z",),
        ),
        ({"in_tree_module_to_remove": "x"}, {}, "in_tree_modules", ("x",)),
        ({"in_tree_modules_to_remove": ("x",)}, {"in_tree_module_to_remove": "z"}, "in_tree_modules", ("z",)),
        ({"in_tree_module_to_remove": "x"}, {"in_tree_modules_to_remove": ("z",)}, "in_tree_modules", ("z",)),
        ({}, {}, "in_tree_modules", ()),
        ({}, {}, "build", None),
        ({}, {}, "sign", None),
    ],
)
def test_what_a_mapping_sets_replaces_the_containers_default(container, mapping, field, expected):
    assert getattr(resolved(container, mapping), field) == expected


def test_a_mapping_without_any_image_is_an_error():
    with pytest.raises(SpecError, match="containerImage"):
        resolved({}, {"container_image": None})


@pytest.mark.parametrize("where", ["container", "mapping"])
def test_a_build_or_sign_that_stands_in_one_place_only_is_taken_whole(where):
    sections = {"build": build(builder="b", secrets=(named("s"),)), "sign": Sign(signer="s", unsigned_image="u")}
    found = resolved(**{where: sections})
    assert found.build is not None
    assert found.sign is not None
    assert (found.build.config_map, found.build.builder, found.build.secrets) == ("dockerfile", "b", ("s",))
    assert (found.sign.signer, found.sign.unsigned_image) == ("s", "u")


@pytest.mark.parametrize(
    ("field", "default", "own", "both"),
    [
        ("dockerfile_config_map", named("a"), named("b"), named("b")),
        ("secrets", (named("a"), named("b")), (named("c"), named("a")), (named("a"), named("b"), named("c"))),
        (
            "build_args",
            (BuildArg(name="a", value="1"), BuildArg(name="b", value="2")),
            (BuildArg(name="c", value="3"), BuildArg(name="a", value="4")),
            (BuildArg(name="a", value="4"), BuildArg(name="b", value="2"), BuildArg(name="c", value="3")),
        ),
        ("base_image_registry_tls", INSECURE, UNVERIFIED, UNVERIFIED),
        ("kaniko_params", KanikoParams(tag="a"), KanikoParams(tag="b"), KanikoParams(tag="b")),
        ("selector", {"a": "1"}, {"b": "2"}, {"b": "2"}),
        ("builder", "a", "b", "b"),
        ("params", {"a": 1}, {"b": 2}, {"b": 2}),
    ],
)
def test_builds_are_merged_field_by_field(field, default, own, both):
    assert getattr(merge_builds(build(**{field: default}), build(**{field: own})), field) == both
    if field != "dockerfile_config_map":
        assert getattr(merge_builds(build(**{field: default}), build()), field) == default
        assert getattr(merge_builds(build(), build(**{field: own})), field) == own


def test_a_mappings_build_that_names_no_config_map_keeps_the_containers():
    merged = merge_builds(build(), build(dockerfile_config_map=LocalObjectReference(), builder="b"))
    assert merged == build(builder="b")


@pytest.mark.parametrize(
    ("field", "default", "own", "both"),
    [
        ("unsigned_image", "a", "b", "b"),
        ("key_secret", named("a"), named("b"), named("b")),
        ("cert_secret", named("a"), named("b"), named("b")),
        ("files_to_sign", ("/a", "/b"), ("/c", "/d"), ("/a", "/b", "/c", "/d")),
        ("unsigned_image_registry_tls", INSECURE, UNVERIFIED, UNVERIFIED),
        ("signer", "a", "b", "b"),
        ("params", {"a": 1}, {"b": 2}, {"b": 2}),
    ],
)
def test_signs_are_merged_field_by_field(field, default, own, both):
    assert getattr(merge_signs(Sign(**{field: default}), Sign(**{field: own})), field) == both
    assert getattr(merge_signs(Sign(**{field: default}), Sign()), field) == default
    assert getattr(merge_signs(Sign(), Sign(**{field: own})), field) == own


def test_every_field_of_build_and_sign_has_a_rule_of_merging():
    merged_builds = {
        "dockerfile_config_map",
        "build_args",
        "secrets",
        "base_image_registry_tls",
        "kaniko_params",
        "selector",
        "builder",
        "params",
    }
    merged_signs = {
        "cert_secret",
        "key_secret",
        "unsigned_image",
        "unsigned_image_registry_tls",
        "files_to_sign",
        "signer",
        "params",
    }
    assert {field.name for field in dataclasses.fields(Build)} == merged_builds, "a new field needs a rule and a test"
    assert {field.name for field in dataclasses.fields(Sign)} == merged_signs, "a new field needs a rule and a test"


def test_what_is_merged_reaches_the_builder():
    container = {"build": build(secrets=(named("a"),), selector={"a": "1"}, kaniko_params=KanikoParams(tag="1"))}
    own = build(
        dockerfile_config_map=named("own"),
        secrets=(named("b"), LocalObjectReference()),
        base_image_registry_tls=UNVERIFIED,
        builder="b",
        params={"x": 1},
    )
    made = resolved(container, {"build": own}).build
    assert made is not None
    assert (made.config_map, made.secrets, made.base_tls) == ("own", ("a", "b"), Tls(skip_verify=True))
    assert (made.selector, made.builder, made.builder_tag, made.params) == ({"a": "1"}, "b", "1", {"x": 1})


def test_what_is_merged_reaches_the_signer():
    container = {"sign": Sign(key_secret=named("k"), cert_secret=named("c"), files_to_sign=("/a",))}
    own = Sign(
        cert_secret=named("own"),
        files_to_sign=("/b",),
        unsigned_image="u",
        unsigned_image_registry_tls=INSECURE,
        signer="s",
        params={"x": 1},
    )
    made = resolved(container, {"sign": own}).sign
    assert made is not None
    assert (made.key_secret, made.cert_secret, made.files) == ("k", "own", ("/a", "/b"))
    assert (made.unsigned_image, made.unsigned_tls) == ("u", Tls(insecure=True))
    assert (made.signer, made.params) == ("s", {"x": 1})


def test_a_kernel_is_tag_safe_in_both_image_names():
    image = "registry:5000/$MOD_NAMESPACE/${MOD_NAME}:$KERNEL_FULL_VERSION"
    found = resolved({"container_image": image, "sign": Sign(unsigned_image=f"{image}-u")}, {"container_image": None})
    assert found.image == "registry:5000/n/m:6.1.0-18_deb12-amd64"
    assert found.sign is not None
    assert found.sign.unsigned_image == "registry:5000/n/m:6.1.0-18_deb12-amd64-u"


def test_a_kernel_is_verbatim_in_the_files_to_sign_and_in_build_arguments():
    path = "/opt/lib/modules/$KERNEL_FULL_VERSION/${MOD_NAME}.ko"
    found = resolved(
        {"build": build(build_args=(BuildArg(name="a", value="$KERNEL_VERSION $$ ${X:-y}"),))},
        {"sign": Sign(files_to_sign=(path,))},
    )
    assert found.sign is not None
    assert found.sign.files == (f"/opt/lib/modules/{KERNEL}/m.ko",)
    assert found.build is not None
    assert {arg.name: arg.value for arg in found.build.args}["a"] == f"{KERNEL} $ y"


def test_the_injected_build_arguments_win_over_a_users():
    users = tuple(
        BuildArg(name=name, value="wrong")
        for name in ("MOD_NAME", "KERNEL_VERSION", "x", "KERNEL_FULL_VERSION", "MOD_NAMESPACE")
    )
    found = resolved({"build": build(build_args=users)}).build
    assert found is not None
    assert len(found.args) == 5
    assert {arg.name: arg.value for arg in found.args} == {
        "MOD_NAME": "m",
        "MOD_NAMESPACE": "n",
        "KERNEL_VERSION": KERNEL,
        "KERNEL_FULL_VERSION": KERNEL,
        "x": "wrong",
    }
    assert found.unused == ("KERNEL_VERSION", "KERNEL_FULL_VERSION", "MOD_NAME", "MOD_NAMESPACE")


def test_a_tag_over_128_characters_is_an_error_of_that_kernel_only():
    image = {"container_image": "a:${KERNEL_FULL_VERSION}"}
    assert len(resolved(mapping=image, kernel="6" * 128 + "+").image) == 130
    with pytest.raises(SpecError, match="tag of 129 characters"):
        resolved(mapping=image, kernel="6" * 129)
    with pytest.raises(SpecError, match="tag of 129 characters"):
        resolved(mapping={"sign": Sign(unsigned_image="u:$KERNEL_VERSION")}, kernel="6" * 129)


def test_a_tag_that_leaves_no_room_for_the_temporary_suffix_is_an_error_of_that_kernel():
    mapping = {"container_image": "a:${KERNEL_FULL_VERSION}", "build": build(), "sign": Sign()}
    room = 128 - len("-n_m_kmm_unsigned")
    assert len(temporary_image(resolved(mapping=mapping, kernel="6" * room).image, MODULE)) == 130
    with pytest.raises(SpecError, match="tag of 129 characters"):
        temporary_image(resolved(mapping=mapping, kernel="6" * (room + 1)).image, MODULE)


@pytest.mark.parametrize("image", ["A", "a:$KERNEL_FULL_VERSION:x", "a:-$KERNEL_XYZ", "a b", "a@sha256:1"])
def test_an_image_that_is_no_reference_is_an_error_of_that_kernel(image):
    with pytest.raises(SpecError, match="the image"):
        resolved(mapping={"container_image": image})
    with pytest.raises(SpecError, match="the image"):
        resolved(mapping={"sign": Sign(unsigned_image=image)})


@pytest.mark.parametrize(
    "mapping",
    [
        {"container_image": "a:$KERNEL_XYZ"},
        {"sign": Sign(unsigned_image="a:$KERNEL_XYZ")},
        {"sign": Sign(files_to_sign=("/$KERNEL_Z",))},
        {"build": build(build_args=(BuildArg(name="x", value="$KERNEL_X"),))},
    ],
)
def test_a_kernel_of_two_parts_is_an_error_only_where_its_third_is_used(mapping):
    with pytest.raises(SpecError, match="fewer than three parts"):
        resolved(mapping=mapping, kernel="6.1")
    assert resolved(mapping=mapping, kernel="6.1.0")
    assert resolved(mapping={"container_image": "a:$KERNEL_VERSION"}, kernel="6.1").image == "a:6.1"
