"""What the embedded registry offers beside the protocol, for which see tests/registry."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile

import pytest
import urllib3
from apiserver.client import eventually
from registry.client import Client, codes, parameters

from kmm.embedded.account import Account
from kmm.embedded.image import OCI_INDEX, digest_of
from kmm.embedded.registry import Registry

ROBOT = ("robot", "hidden")
MODULE = "/opt/lib/modules/6.1.0/acme.ko"


@pytest.fixture
def start():
    """Start registries, with a client each; they are stopped when the test is over."""
    running = []

    def begin(user="", password="", **options):
        registry = Registry(**{"tls": False, **options})
        registry.__enter__()
        running.append(registry)
        return registry, Client(registry.url, registry.ca_pem, user, password)

    yield begin
    for registry in running:
        registry.__exit__(None, None, None)


def layer(client, repository, manifest, number) -> dict[str, bytes]:
    """Return the files of a layer."""
    digest = manifest["layers"][number]["digest"]
    content = gzip.decompress(client.ask("GET", f"/v2/{repository}/blobs/{digest}").data)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}


def test_files_become_an_image(start):
    registry, client = start()
    base = {"/etc/os-release": b"ID=debian\n"}
    digest = registry.push_image(
        "team/driver:6.1.0", {MODULE: b"\x7fELF"}, layers=[base], architecture="arm64", annotations={"a": "b"}
    )
    found = client.manifest("team/driver", "6.1.0")
    manifest = found.json()
    assert digest == digest_of(found.data) == found.headers["Docker-Content-Digest"]
    assert manifest["annotations"] == {"a": "b"}
    assert layer(client, "team/driver", manifest, 0) == {"etc/os-release": b"ID=debian\n"}
    assert layer(client, "team/driver", manifest, 1) == {MODULE.lstrip("/"): b"\x7fELF"}
    config = client.ask("GET", f"/v2/team/driver/blobs/{manifest['config']['digest']}").json()
    assert (config["architecture"], config["os"], len(config["rootfs"]["diff_ids"])) == ("arm64", "linux", 2)
    for each in (manifest["config"], *manifest["layers"]):
        assert len(client.ask("GET", f"/v2/team/driver/blobs/{each['digest']}").data) == each["size"]


def test_the_same_files_are_the_same_image(start):
    registry, _ = start()
    one, two = (registry.push_image(f"team/driver:{tag}", {MODULE: b"x"}) for tag in "ab")
    assert one == two
    assert registry.images() == {"team/driver:a": one, "team/driver:b": one}


def test_a_layer_may_be_bytes(start):
    registry, client = start()
    registry.push_image(
        "team/driver:1", layers=[b"no gzip", gzip.compress(b"gzip", mtime=0), b"\x28\xb5\x2f\xfdzstd"]
    )
    types = [each["mediaType"] for each in client.manifest("team/driver", "1").json()["layers"]]
    assert [each.removeprefix("application/vnd.oci.image.layer.v1.tar") for each in types] == ["", "+gzip", "+zstd"]


def test_images_become_an_index(start):
    registry, client = start()
    digests = {
        each: registry.push_image("team/driver", {MODULE: b"x"}, architecture=each) for each in ("amd64", "arm64")
    }
    digest = registry.push_index("team/driver:6.1.0", digests)
    found = client.manifest("team/driver", "6.1.0")
    assert (found.headers["Content-Type"], found.headers["Docker-Content-Digest"]) == (OCI_INDEX, digest)
    assert registry.images() == {"team/driver:6.1.0": digest}, "the images have no tag"


def test_an_index_of_an_image_that_is_not_there_is_an_error(start):
    registry, _ = start()
    with pytest.raises(KeyError, match=digest_of(b"")):
        registry.push_index("team/driver:1", {"amd64": digest_of(b"")})


def test_blobs_are_in_files(start, tmp_path):
    _, client = start(folder=tmp_path)
    client.upload("team/driver", b"x" * 1_000_000, digest_of(b"x" * 1_000_000))
    (file,) = (tmp_path / "blobs").iterdir()
    assert file.read_bytes() == b"x" * 1_000_000
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_blob_that_no_repository_has_leaves_no_file(start, tmp_path):
    _, client = start(folder=tmp_path)
    digest = digest_of(b"x")
    for repository in ("a", "b"):
        client.upload(repository, b"x", digest)
    client.ask("DELETE", f"/v2/a/blobs/{digest}")
    assert len(list((tmp_path / "blobs").iterdir())) == 1
    client.ask("DELETE", f"/v2/b/blobs/{digest}")
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_temporary_folder_goes_with_the_registry():
    with Registry(tls=False) as registry:
        folder = registry.folder
        registry.push_image("team/driver:1", {MODULE: b"x"})
        assert folder.exists()
    assert not folder.exists()


def test_a_registry_is_entered_once_and_used_while_it_runs():
    registry = Registry(tls=False)
    with pytest.raises(RuntimeError, match=r"use it inside `with Registry\(…\) as registry:`"):
        registry.host  # noqa: B018 -- it raises
    with registry:
        pass
    with pytest.raises(RuntimeError, match="the registry is not running"):
        registry.images()
    with pytest.raises(RuntimeError, match="a Registry is entered once"), registry:
        pass


def test_a_registry_that_was_down_has_what_it_had(start):
    registry, client = start()
    registry.push_image("team/driver:1", {MODULE: b"x"})
    with registry.down(), pytest.raises(urllib3.exceptions.NewConnectionError):
        client.ask("GET", "/v2/")
    assert client.manifest("team/driver", "1").status == 200


def test_an_upload_that_is_cancelled_while_it_comes_is_unknown(start, tmp_path):
    registry, client = start(folder=tmp_path)
    location = client.ask("POST", "/v2/team/driver/blobs/uploads/").headers["Location"]
    (file,) = (tmp_path / "uploads").iterdir()
    cancelled = []

    def content():
        yield b"x" * 100_000
        eventually(lambda: file.stat().st_size, "the first piece came")
        cancelled.append(client.ask("DELETE", location).status)
        yield b"x"

    answer = urllib3.PoolManager().request("PATCH", location, body=content(), retries=False)
    assert (cancelled, answer.status, codes(answer)) == ([204], 404, ["BLOB_UPLOAD_UNKNOWN"])
    assert list((tmp_path / "uploads").iterdir()) == []
    assert registry.images() == {}


def test_locations_may_be_paths(start):
    _, client = start(relative=True)
    begun = client.ask("POST", "/v2/team/driver/blobs/uploads/")
    assert begun.headers["Location"].startswith("/v2/team/driver/blobs/uploads/")
    done = client.ask("PUT", f"{begun.headers['Location']}&digest={digest_of(b'x')}", b"x")
    assert done.headers["Location"] == f"/v2/team/driver/blobs/{digest_of(b'x')}"


def test_the_log_says_who_asked_for_what_and_holds_no_secret(start):
    registry, client = start("robot", "hidden", auth="bearer", users={"robot": "hidden"})
    registry.push_image("team/driver:1", {MODULE: b"x"})
    client.manifest("team/driver", "1")
    path, scope = "/v2/team/driver/manifests/1", ("repository:team/driver:pull",)
    shown = [
        (each.method, each.path, each.status, each.user, each.scheme, each.kind, each.repository, each.scopes)
        for each in registry.log
    ]
    assert shown == [
        ("GET", path, 401, "", "", "manifest", "team/driver", ()),
        ("GET", "/token", 200, "robot", "Basic", "token", "", scope),
        ("GET", path, 200, "robot", "Bearer", "manifest", "team/driver", scope),
    ]
    secrets = ("hidden", base64.b64encode(b"robot:hidden").decode(), *client._tokens.values())
    assert not any(each.removeprefix("Bearer ") in repr(registry.log) for each in secrets)
    assert "hidden" not in repr(registry._access.accounts)


def test_rights_are_by_repository_with_basic_too(start):
    users = {"robot": Account(password=ROBOT[1], pull=("team/*",), push=("team/driver",), delete=())}
    registry, client = start(*ROBOT, auth="basic", users=users)
    digest = registry.push_image("team/driver:1", {MODULE: b"x"})
    assert client.manifest("team/driver", "1").status == 200
    assert client.ask("POST", "/v2/team/driver/blobs/uploads/").status == 202
    for method, path in (
        ("POST", "/v2/team/other/blobs/uploads/"),
        ("GET", "/v2/elsewhere/tags/list"),
        ("DELETE", f"/v2/team/driver/manifests/{digest}"),
    ):
        answer = client.ask(method, path)
        assert (answer.status, codes(answer)) == (403, ["DENIED"])


def test_what_is_public_is_pulled_with_an_anonymous_token(start):
    registry, nobody = start(auth="bearer", public=["library/*"])
    for name in ("library/base:1", "team/driver:1"):
        registry.push_image(name, {MODULE: b"x"})
    assert nobody.manifest("library/base", "1").status == 200
    assert nobody.manifest("team/driver", "1").status == 401
    assert nobody.ask("POST", "/v2/library/base/blobs/uploads/").status == 401


def test_a_token_server_says_how_long_a_token_is_good_for(start):
    registry, client = start("robot", "x", auth="bearer", users={"robot": "x"}, token_s=120)
    registry.push_image("team/driver:1", {MODULE: b"x"})
    basic = {"Authorization": "Basic " + base64.b64encode(b"robot:x").decode()}
    answer = client.ask("GET", "/token?service=s&scope=repository:team/driver:pull,push", headers=basic).json()
    assert answer["expires_in"] == 120
    assert answer["token"] == answer["access_token"]
    bearer = f"Bearer {answer['token']}"
    assert client.ask("GET", "/v2/team/driver/tags/list", authorization=bearer).status == 200
    registry.expire_tokens()
    refused = client.ask("GET", "/v2/team/driver/tags/list", authorization=bearer)
    assert parameters(refused.headers["WWW-Authenticate"])["error"] == "invalid_token"


def test_an_identity_token_stands_for_a_password_at_the_token_server_alone(start):
    registry, client = start(auth="bearer", users={"robot": "x"})
    registry.push_image("team/driver:1", {MODULE: b"x"})
    identity = registry.identity_token("robot")
    scope = "repository:team/driver:pull"
    form = f"grant_type=refresh_token&service=s&client_id=kmm&scope={scope}&refresh_token={identity}"
    answer = client.ask("POST", "/token", form.encode()).json()
    assert (answer["refresh_token"], answer["scope"]) == (identity, scope)
    path = "/v2/team/driver/tags/list"
    assert client.ask("GET", path, authorization=f"Bearer {answer['access_token']}").status == 200
    assert client.ask("GET", path, authorization=f"Bearer {identity}").status == 401


def test_an_identity_token_is_given_for_a_password(start):
    _, client = start(auth="bearer", users={"robot": "x"})
    form = b"grant_type=password&username=robot&password=x&service=s&client_id=kmm&access_type=offline"
    identity = client.ask("POST", "/token", form).json()["refresh_token"]
    again = f"grant_type=refresh_token&service=s&client_id=kmm&refresh_token={identity}".encode()
    assert client.ask("POST", "/token", again).status == 200


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("grant_type=refresh_token&service=s&client_id=kmm&refresh_token=wrong", 401),
        ("grant_type=password&service=s&client_id=kmm&username=robot&password=wrong", 401),
        ("grant_type=password&service=s&username=robot&password=x", 400),
        ("grant_type=banana&service=s&client_id=kmm", 400),
        ("banana", 400),
    ],
)
def test_a_token_server_refuses_what_it_does_not_understand_or_know(start, form, status):
    _, client = start(auth="bearer", users={"robot": "x"})
    assert client.ask("POST", "/token", form.encode(), authorization="").status == status


def test_the_realm_of_its_challenges_may_be_another(start):
    registry, client = start(auth="bearer")
    registry.realm = "http://169.254.169.254/token"
    answer = client.ask("GET", "/v2/", authorization="")
    assert parameters(answer.headers["WWW-Authenticate"])["realm"] == "http://169.254.169.254/token"


def test_a_docker_config_has_the_credentials_of_a_user(start):
    registry, _ = start(auth="bearer", users={"robot": "s:cret"})

    def entry(text):
        return json.loads(text)["auths"][registry.host]

    assert base64.b64decode(entry(registry.docker_config("robot"))["auth"]) == b"robot:s:cret"
    assert base64.b64decode(entry(registry.docker_config("robot", "wrong"))["auth"]) == b"robot:wrong"
    identity = registry.identity_token("robot")
    found = entry(registry.docker_config("robot", identity=identity))
    assert (base64.b64decode(found["auth"]), found["identitytoken"]) == (b"robot:", identity)
    with pytest.raises(ValueError, match="no such user: somebody"):
        registry.docker_config("somebody")
