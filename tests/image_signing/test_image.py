from __future__ import annotations

import gzip
import json

import pytest
from image_signing.images import FOLDER, configuration, contents, packed, pulled, top
from oci.served import USER
from oci.test_layers import DIRECTORY
from signing.golden import MODULE, golden

from kmm.contract import CERTIFICATE_ANNOTATION, Forbidden, Unavailable
from kmm.embedded.account import Account
from kmm.embedded.registry_fault import RegistryFault, Trouble
from kmm.image_signing import image, modules
from kmm.image_signing.errors import ImageError
from kmm.image_signing.image import Named
from kmm.oci.manifest import digest_of

SIGNED = MODULE + golden("self-sha256.signature")
PATH = f"/{FOLDER}/acme.ko"
BASE = {"/etc/os-release": b"base"}
LAYERS = [BASE, {"/usr/lib/large": b"0" * 100_000}, {PATH: MODULE}]
NONE = [BASE, {"/usr/bin/true": b"1"}]


@pytest.fixture
def push(served):
    """Push an image, of LAYERS where no others are named; return its digest."""

    def make(name="acme:1", layers=LAYERS, **fields):
        return served.registry.push_image(name, layers=layers, **fields)

    return make


def annotations(unsigned, certificate):
    return {"io.x-k8s.kmm.unsigned": unsigned, CERTIFICATE_ANNOTATION: certificate.fingerprint}


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("signed", ["acme:1-signed", "signed/acme:1"])
def test_a_signed_image_is_the_unsigned_one_and_a_layer(served, sign, push, certificates, docker, signed):
    digest = push(docker=docker)
    before, configured = pulled(served, "acme:1"), configuration(served, "acme:1")
    outcome = sign("acme:1", signed, PATH)
    assert served.registry.images()[signed] == outcome.digest
    assert [each.path for each in outcome.files[""]] == [PATH]
    after, now = pulled(served, signed), configuration(served, signed)
    assert after["mediaType"] == before["mediaType"]
    assert after["layers"][:-1] == before["layers"]
    assert after["layers"][-1]["mediaType"] == before["layers"][0]["mediaType"]
    assert now["rootfs"]["diff_ids"][:-1] == configured["rootfs"]["diff_ids"]
    assert (now["os"], now["architecture"]) == ("linux", "amd64")
    said = now["config"].pop("Labels") if docker else after["annotations"]
    assert annotations(digest, certificates["self"]).items() <= said.items()
    assert now["config"] == configured["config"]
    assert top(served, signed)[1] == {PATH[1:]: SIGNED}
    assert contents(served, signed, PATH, "/etc/os-release") == {PATH: SIGNED, "/etc/os-release": b"base"}
    assert pulled(served, "acme:1") == before


@pytest.mark.parametrize("docker", [False, True])
def test_a_rerun_does_nothing_and_another_certificate_signs_again(served, sign, push, signer_of, docker):
    push(docker=docker)
    first = sign("acme:1", "signed:1", PATH)
    before = len(served.registry.log)
    again = sign("acme:1", "signed:1", PATH)
    assert (again.digest, again.already) == (first.digest, True)
    assert {entry.method for entry in served.registry.log[before:]} == {"GET"}
    rotated = sign("acme:1", "signed:1", PATH, by=signer_of("issued"))
    assert not rotated.already
    assert contents(served, "signed:1", PATH) == {PATH: MODULE + golden("issued-sha256.signature")}
    assert len(pulled(served, "signed:1")["layers"]) == len(LAYERS) + 1
    assert sign("acme:1", "signed:1", PATH, by=signer_of("issued")).already


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("target", ["acme:1", "signed:1"])
def test_an_image_that_was_made_of_the_signed_one_is_signed_though_it_says_that_it_is(
    served, sign, push, docker, target
):
    push(docker=docker)
    sign("acme:1", target, PATH)
    # FROM the signed image, whose labels and annotations builders hand down.
    more = packed((PATH[1:], MODULE))
    name = target.partition(":")[0]
    layer = {"digest": served.client().upload(name, more), "size": len(more)}
    config = configuration(served, target)
    config["rootfs"]["diff_ids"].append(digest_of(gzip.decompress(more)))
    data = json.dumps(config).encode()

    def child(body):
        body["layers"].append({**body["layers"][-1], **layer})
        body["config"] |= {"digest": served.client().upload(name, data), "size": len(data)}

    tampered(served, target, child)
    assert contents(served, target, PATH) == {PATH: MODULE}
    assert not sign("acme:1", target, PATH).already
    assert contents(served, target, PATH) == {PATH: SIGNED}
    assert sign("acme:1", target, PATH).already


def test_an_index_with_another_image_is_signed_though_it_says_that_it_is(served, sign, push):
    served.registry.push_index("acme:all", {"amd64": push("acme:a")})
    sign("acme:all", "signed:all", PATH)
    push("signed:b", architecture="arm64")
    entry = {"digest": served.registry.images()["signed:b"], "platform": {"os": "linux", "architecture": "arm64"}}
    entry["size"] = len(served.client().manifest(served.reference("signed:b")).data)
    tampered(served, "signed:all", lambda body: body["manifests"].append({**body["manifests"][0], **entry}))
    assert not sign("acme:all", "signed:all", PATH).already
    assert len(pulled(served, "signed:all")["manifests"]) == 1
    assert sign("acme:all", "signed:all", PATH).already


def test_what_was_asked_for_otherwise_and_another_image_are_signed_again(served, sign, push, signer_of):
    push()
    sign("acme:1", "signed:1", PATH)
    assert not sign("acme:1", "signed:1", f"/{FOLDER}/*.ko").already
    assert not sign("acme:1", "signed:1", f"/{FOLDER}/*.ko", by=signer_of(hash_name="sha512")).already
    push(layers=[*LAYERS, {"/new": b""}])
    assert not sign("acme:1", "signed:1", f"/{FOLDER}/*.ko", by=signer_of(hash_name="sha512")).already


def test_the_same_image_makes_the_same_signed_image(sign, push):
    push()
    assert sign("acme:1", "a:1").digest == sign("acme:1", "b:2").digest == sign("acme:1", None).digest


@pytest.mark.parametrize("docker", [False, True])
def test_something_else_that_has_the_name_is_replaced(served, sign, push, docker):
    push()
    push("signed:1", NONE, docker=docker)
    too_large = {"digest": served.client().upload("signed", b" " * (5 << 20)), "size": 5 << 20}
    tampered(served, "signed:1", lambda body: body["config"].update(too_large))
    assert sign("acme:1", "signed:1", PATH).digest == served.registry.images()["signed:1"]


def test_an_image_can_be_signed_under_its_own_name(served, sign, push, signer_of):
    push()
    first = sign("acme:1", "acme:1", PATH)
    assert not first.already
    assert sign("acme:1", "acme:1", PATH).already
    assert not sign("acme:1", "acme:1", PATH, by=signer_of("issued")).already
    assert contents(served, "acme:1", PATH) == {PATH: MODULE + golden("issued-sha256.signature")}


def test_only_the_layer_with_the_module_is_read_and_one_layer_is_sent(served, sign, push):
    push()
    before = len(served.registry.log)
    sign("acme:1", "acme:1-signed", PATH)
    assert served.requests(before) == [
        ("GET", "manifest", 200),
        ("GET", "manifest", 404),
        ("GET", "blob", 200),  # the configuration
        ("GET", "blob", 200),  # the topmost layer
        ("POST", "upload", 202),
        ("PUT", "upload", 201),
        ("POST", "upload", 202),
        ("PUT", "upload", 201),
        ("PUT", "manifest", 201),
    ]
    before = len(served.registry.log)
    sign("acme:1", "other:1", PATH)
    mounts = [entry for entry in served.requests(before) if entry == ("POST", "upload", 201)]
    assert len(mounts) == len(LAYERS)


def test_without_a_name_nothing_is_pushed(served, sign, push):
    push()
    before = len(served.registry.log)
    assert sign("acme:1", None, PATH).files
    assert {entry.method for entry in served.registry.log[before:]} == {"GET"}


def test_from_one_registry_to_another(served, serve, sign, push):
    other = serve(auth="basic", users={"user": "s3cret"})
    other.client = lambda make=other.client: make(USER)
    push()
    first = sign("acme:1", "acme:1", PATH, to=other)
    assert contents(other, "acme:1", PATH, "/etc/os-release") == {PATH: SIGNED, "/etc/os-release": b"base"}
    assert sign("acme:1", "acme:1", PATH, to=other).already
    assert first.digest == sign("acme:1", "here:1", PATH).digest


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_of_an_index_each_image_with_modules_is_signed(served, serve, sign, push, certificates, docker, elsewhere):
    to = serve() if elsewhere else served
    by_architecture = {
        "amd64": push("acme:a", docker=docker),
        "arm64": push("acme:b", [BASE, {PATH: MODULE, "/arm": b""}], architecture="arm64", docker=docker),
        "s390x": push("acme:c", NONE, architecture="s390x", docker=docker),
    }
    digest = served.registry.push_index("acme:all", by_architecture, docker=docker)
    before = pulled(served, "acme:all")
    outcome = sign("acme:all", "signed:all", PATH, to=to)
    assert sorted(outcome.files) == ["linux/amd64", "linux/arm64"]
    after = pulled(to, "signed:all")
    assert after["mediaType"] == before["mediaType"]
    assert annotations(digest, certificates["self"]).items() <= after["annotations"].items()
    assert [each["platform"] for each in after["manifests"]] == [each["platform"] for each in before["manifests"]]
    assert after["manifests"][2] == before["manifests"][2]
    for entry in after["manifests"]:
        name = f"signed@{entry['digest']}"
        found = contents(to, name, PATH, "/etc/os-release")
        assert found.pop("/etc/os-release") == b"base"
        assert found == ({} if entry == after["manifests"][2] else {PATH: SIGNED})
        assert configuration(to, name)["architecture"] == entry["platform"]["architecture"]
    assert sign("acme:all", "signed:all", PATH, to=to).already


def test_platforms_that_lack_what_others_have_are_told_before_anything_is_pushed(served, sign, push):
    other = f"/{FOLDER}/b.ko"
    digests = {
        "amd64": push("acme:a", [{PATH: MODULE, other: MODULE}]),
        "arm64/v8": push("acme:b", [{PATH: MODULE}], architecture="arm64"),
        "s390x": push("acme:c", [{f"{PATH}.xz": b""}], architecture="s390x"),
    }
    served.registry.push_index("acme:all", digests)
    told, before = [], len(served.registry.log)

    def tell(warnings):
        told.extend(warnings)
        assert {entry.method for entry in served.registry.log[before:]} == {"GET"}

    outcome = sign("acme:all", "signed:all", PATH, other, tell=tell)
    assert sorted(outcome.files) == ["linux/amd64", "linux/arm64/v8"]
    assert told == [
        f"its image for linux/s390x is left unsigned: it has no {PATH}, {other}; what is near: {PATH}.xz",
        f"its image for linux/arm64/v8 has no {other}; what is near: {PATH}",
    ]


def test_each_platform_may_have_paths_of_its_own(served, sign, push):
    paths = {name: f"/opt/lib/modules/6.1.0-{name}/acme.ko" for name in ("amd64", "arm64")}
    digests = {name: push(f"acme:{name}", [{path: MODULE}], architecture=name) for name, path in paths.items()}
    served.registry.push_index("acme:all", digests)
    outcome = sign("acme:all", "signed:all", *paths.values())
    found = {platform: [each.path for each in files] for platform, files in outcome.files.items()}
    assert found == {f"linux/{name}": [path] for name, path in paths.items()}


@pytest.mark.parametrize("platforms", [["amd64", "arm64"], []])
def test_a_file_that_no_platform_has_is_an_error(served, sign, push, platforms):
    push("acme:all")
    if platforms:
        served.registry.push_index("acme:all", {each: push(f"acme:{each}", architecture=each) for each in platforms})
    none = f"/{FOLDER}/none.ko"
    before = len(served.registry.log)
    where = f"has no image with {none}: its image for linux/amd64 " if platforms else ""
    with pytest.raises(ImageError, match=rf"acme:all: {where}has no {none}; what is near: {PATH}$"):
        sign("acme:all", "signed:all", PATH, none)
    assert {entry.method for entry in served.registry.log[before:]} == {"GET"}


def test_a_pattern_that_fits_nothing_while_others_do_is_told(served, sign, push):
    push()
    told = []
    sign("acme:1", "signed:1", PATH, "/none/*.ko.xz", "/none/*.ko", tell=told.extend)
    sign("acme:1", "signed:2", *modules.every("/opt", "6.1.0"), tell=told.extend)
    assert told == ["nothing in it fits /none/*.ko"]


def test_all_images_of_an_index_have_one_limit(served, sign, push):
    digests = {each: push(f"acme:{each}", architecture=each) for each in ("amd64", "arm64")}
    served.registry.push_index("acme:all", digests)
    sign("acme:all", None, PATH, limit=2 * len(SIGNED))
    with pytest.raises(ImageError, match="its image for linux/arm64 has modules that are together larger than"):
        sign("acme:all", None, PATH, limit=2 * len(SIGNED) - 1)


def test_the_deadline_is_for_the_work_too(served, push, signer, monkeypatch):
    push()
    source = Named(client=served.client(deadline_s=30), reference=served.reference("acme:1"))
    deadline = source.client._registry.deadline
    monkeypatch.setattr(source.client, "blob", late(source.client.blob, deadline))
    with pytest.raises(Unavailable, match="what it sent was not done with in 30 s"):
        image.sign(source, None, [PATH], signer)


def late(blob, deadline):
    """Return `blob`, but there is no time left once the layer, which comes after the configuration, was opened."""
    opened = []

    def open_blob(*arguments):
        opened.append(blob(*arguments))
        deadline.until -= 60 * (len(opened) == 2)
        return opened[-1]

    return open_blob


def test_what_is_told_is_bounded(served, sign, push):
    push()
    told = []
    sign("acme:1", None, PATH, *(f"/{number}/*" for number in range(15)), tell=told.extend)
    assert [len(told), told[-1]] == [11, "and 5 more like that"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda served: longer(served, b"text" * 1000), "a layer is no tar archive"),
        (lambda served: longer(served, packed((PATH[1:], b"no"))), f"has a file .*: {PATH} is no kernel"),
        (lambda _: lambda body: body["config"].update(size=5 << 20), "has a configuration larger than"),
    ],
    ids=range(3),
)
def test_what_is_wrong_with_an_image_of_an_index_is_told_with_its_platform(served, sign, push, change, said):
    push("acme:a")
    push("acme:b", architecture="arm64")
    tampered(served, "acme:b", change(served))
    digests = {"amd64": served.registry.images()["acme:a"], "arm64": served.registry.images()["acme:b"]}
    served.registry.push_index("acme:all", digests)
    with pytest.raises(ImageError, match=f"acme:all: its image for linux/arm64 {said}"):
        sign("acme:all", "signed:all", PATH)


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ({"on": ("manifest",), "skip": 3, "code": 404}, ImageError, " is not there"),
        ({"on": ("blob",), "skip": 2}, Unavailable, ": 127.0.0.1:[0-9]+: answered 500"),
        (
            {"on": ("blob",), "skip": 2, "code": 403, "times": None},
            Forbidden,
            ": 127.0.0.1:[0-9]+: access to acme was",
        ),
    ],
)
def test_what_a_registry_refuses_of_an_index_is_told_with_its_platform(served, sign, push, fault, error, said):
    digests = {each: push(f"acme:{each}", architecture=each) for each in ("amd64", "arm64")}
    served.registry.push_index("acme:all", digests)
    served.registry.faults.add(RegistryFault(kind=Trouble.REFUSE, methods=("GET",), **fault))
    with pytest.raises(error, match=f"its image for linux/arm64{said}"):
        sign("acme:all", "signed:all", PATH)


def test_an_index_without_modules_or_images_is_an_error(served, sign, push):
    served.registry.push_index("acme:all", {"amd64": push("acme:a", NONE), "arm64": push("acme:b", NONE)})
    with pytest.raises(ImageError, match=rf"acme:all: has no {PATH}"):
        sign("acme:all", "signed:all", PATH)
    served.registry.push_index("acme:none", {})
    with pytest.raises(ImageError, match="an index without an image for Linux"):
        sign("acme:none", "signed:all", PATH)


def test_statements_about_what_is_signed_go_and_others_stay(served, sign, push):
    signed, other = push("acme:a"), push("acme:c", NONE, architecture="s390x")
    served.registry.push_index("acme:all", {"amd64": signed, "s390x": other})
    index = pulled(served, "acme:all")
    about = []
    for number, digest in enumerate((signed, other)):
        statement = push(f"acme:statement-{number}", [{"/statement": b"%d" % number}])
        about.append(
            {
                **index["manifests"][0],
                "digest": statement,
                "size": len(served.client().manifest(served.reference(f"acme:statement-{number}")).data),
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.digest": digest},
            }
        )
    index["manifests"] += about
    served.client().push_manifest("acme", json.dumps(index).encode(), index["mediaType"], "all")
    sign("acme:all", "signed:all", PATH)
    after = pulled(served, "signed:all")["manifests"]
    assert after[1:] == [index["manifests"][1], about[1]]
    assert contents(served, f"signed@{about[1]['digest']}", "/statement") == {"/statement": b"1"}


def tampered(served, name, change):
    """Change the manifest of an image, and push it again."""
    body = pulled(served, name)
    change(body)
    tag = name.partition(":")[2]
    served.client().push_manifest(name.partition(":")[0], json.dumps(body).encode(), body["mediaType"], tag)


def longer(served, data):
    """Upload other bytes for the topmost layer, and return what changes the manifest."""

    def change(body):
        body["layers"][-1] |= {"digest": served.client().upload("acme", data), "size": len(data)}

    return change


GOOD = packed((PATH[1:], MODULE))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD[:-200], "a layer breaks off"),
        (b"text" * 1000, "a layer is no tar archive"),
        (b"\x1f\x8b\xff" + bytes(50), "a layer is not the gzip that it begins as"),
        (packed((PATH[1:], MODULE[:10])), f"cannot be signed: {PATH} is no kernel module"),
        (packed(("../" + PATH[1:], MODULE)), "a layer has an entry whose path leads out of its directory"),
        (packed((PATH[1:], DIRECTORY)), f"has no {PATH}"),
        (packed((PATH[1:], "link", "../../../../../../etc/shadow")), f"has no {PATH}"),
        (packed((PATH[1:], "link", "/etc/shadow")), f"has no {PATH}"),
    ],
    ids=range(8),
)
def test_a_layer_that_means_no_good_is_refused_and_nothing_is_pushed(served, sign, push, data, said):
    push()
    tampered(served, "acme:1", longer(served, data))
    before = len(served.registry.log)
    with pytest.raises(ImageError, match=rf"acme:1: .*{said}"):
        sign("acme:1", "signed:1", PATH)
    assert {entry.method for entry in served.registry.log[before:]} == {"GET"}


@pytest.mark.parametrize(("more", "said"), [(1, "answered 416"), (-1, "larger than its manifest says")])
def test_a_layer_of_another_size_than_it_says_is_refused(served, sign, push, more, said):
    push()
    tampered(served, "acme:1", lambda body: body["layers"][-1].update(size=body["layers"][-1]["size"] + more))
    with pytest.raises(Unavailable, match=said):
        sign("acme:1", "signed:1", PATH)
    assert "signed:1" not in served.registry.images()


def test_a_layer_with_other_contents_than_its_digest_says_is_refused(served, sign, push):
    push()
    served.registry.faults.add(RegistryFault(kind=Trouble.CORRUPT, on=("blob",), times=10))
    with pytest.raises(Unavailable, match="does not have the digest it should"):
        sign("acme:1", "signed:1", PATH)
    assert "signed:1" not in served.registry.images()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"{}", "a configuration that does not have its layers: it is no image that can be run"),
        (b"no", "a configuration that is no JSON object"),
        (b" " * (5 << 20), "a configuration larger than 4 MiB"),
    ],
)
def test_a_configuration_that_is_none_is_refused(served, sign, push, config, said):
    push()
    entry = {"digest": served.client().upload("acme", config), "size": len(config)}
    tampered(served, "acme:1", lambda body: body["config"].update(entry))
    with pytest.raises(ImageError, match=f"acme:1: has {said}"):
        sign("acme:1", "signed:1", PATH)


def test_an_image_that_is_not_there_is_told(served, sign):
    with pytest.raises(ImageError, match=r"/acme:none: does not exist$"):
        sign("acme:none", "signed:1", PATH)


def test_who_may_not_push_is_told_and_nothing_has_the_name(serve, signer):
    users = {"reader": Account(password="s3cret", push=())}
    served = serve(auth="bearer", users=users, public=["*"])
    served.registry.push_image("acme:1", layers=LAYERS)
    named = [Named(client=served.client(), reference=served.reference(name)) for name in ("acme:1", "acme:signed")]
    with pytest.raises(Forbidden):
        image.sign(*named, [PATH], signer)
    assert sorted(served.registry.images()) == ["acme:1"]


@pytest.mark.parametrize("number", range(5))
def test_whatever_breaks_off_the_name_comes_last(served, sign, push, number):
    push()
    served.registry.faults.add(RegistryFault(kind=Trouble.REFUSE, methods=("POST", "PUT"), skip=number))
    try:
        sign("acme:1", "signed:1", PATH)
    except Unavailable:
        assert "signed:1" not in served.registry.images()
    assert sign("acme:1", "signed:1", PATH).digest == served.registry.images()["signed:1"]


def test_what_other_tools_wrote_of_the_image_is_kept(served, sign, push):
    push(annotations={"org.opencontainers.image.title": "acme"})
    tampered(served, "acme:1", lambda body: body.update(artifactType="x", new=[1]))
    sign("acme:1", "signed:1", PATH)
    after = pulled(served, "signed:1")
    assert (after["artifactType"], after["new"]) == ("x", [1])
    assert after["annotations"]["org.opencontainers.image.title"] == "acme"
    assert digest_of(served.client().manifest(served.reference("signed:1")).data)
