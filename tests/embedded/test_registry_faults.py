"""What goes wrong with a registry on request, and what then is true."""

from __future__ import annotations

import json
import threading

import pytest
import urllib3
from apiserver.client import eventually
from registry.client import Client, codes, parameters, with_query

from kmm.embedded.image import OCI_INDEX, OCI_MANIFEST, digest_of
from kmm.embedded.registry import Registry
from kmm.embedded.registry_fault import RegistryFault, Trouble

CONTENT = bytes(range(256)) * 1_000
DIGEST = digest_of(CONTENT)
BLOB = f"/v2/team/driver/blobs/{DIGEST}"
MANIFEST = "/v2/team/driver/manifests/1"


@pytest.fixture
def registry():
    with Registry() as running:
        running.push_image("team/driver:1", layers=[CONTENT])
        yield running


@pytest.fixture
def client(registry):
    return Client(registry.url, registry.ca_pem)


def strike(registry, kind, **options):
    return registry.faults.add(RegistryFault(kind=kind, **options))


def test_a_refused_request_does_nothing(registry, client):
    strike(registry, Trouble.REFUSE, code=503, retry_after_s=7, methods=("POST",))
    answer = client.ask("POST", "/v2/team/driver/blobs/uploads/")
    assert (answer.status, answer.headers["Retry-After"], codes(answer)) == (503, "7", ["UNAVAILABLE"])
    assert client.ask("POST", "/v2/team/driver/blobs/uploads/").status == 202, "once is once"


def test_too_many_requests_need_not_say_when_to_come_again(registry, client):
    strike(registry, Trouble.REFUSE, code=429)
    answer = client.ask("GET", "/v2/")
    assert (answer.status, "Retry-After" in answer.headers, codes(answer)) == (429, False, ["TOOMANYREQUESTS"])


def test_head_may_be_refused_alone(registry, client):
    strike(registry, Trouble.REFUSE, code=405, on=("manifest",), methods=("HEAD",), times=None)
    assert client.manifest("team/driver", "1", method="HEAD").status == 405
    assert client.manifest("team/driver", "1").status == 200
    assert client.ask("HEAD", BLOB).status == 200


def test_a_fault_strikes_where_and_when_it_is_to(registry, client):
    registry.push_image("team/other:1", layers=[CONTENT])
    fault = strike(registry, Trouble.REFUSE, on=("manifest",), repository="team/other", skip=1, times=2)
    assert [client.manifest("team/other", "1").status for _ in range(4)] == [200, 500, 500, 200]
    assert client.manifest("team/driver", "1").status == 200
    assert fault.struck == 2
    strike(registry, Trouble.REFUSE, times=None)
    assert client.ask("GET", "/v2/").status == 500
    registry.faults.clear()
    assert client.ask("GET", "/v2/").status == 200


def test_a_fault_may_strike_the_token_server_or_one_user():
    with Registry(auth="bearer", users={"robot": "x", "other": "x"}, tls=False) as registry:
        registry.push_image("team/driver:1", layers=[CONTENT])
        robot, other = (Client(registry.url, "", user, "x") for user in ("robot", "other"))
        strike(registry, Trouble.REFUSE, on=("token",), code=503)
        assert robot.manifest("team/driver", "1").status == 401, "no token was to be had"
        strike(registry, Trouble.REFUSE, user="robot", code=500, times=None)
        assert [each.manifest("team/driver", "1").status for each in (robot, other)] == [500, 200]


def test_a_proxy_answers_with_a_page(registry, client):
    strike(registry, Trouble.PAGE, code=404)
    answer = client.manifest("team/driver", "1")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html")
    assert "Docker-Distribution-Api-Version" not in answer.headers
    assert answer.data.startswith(b"<html>")


@pytest.mark.parametrize(("kind", "there"), [(Trouble.RESET, False), (Trouble.LOSE, True)])
def test_a_connection_ends_without_an_answer(registry, client, kind, there):
    strike(registry, kind, methods=("PUT",))
    location = client.ask("POST", "/v2/team/driver/blobs/uploads/").headers["Location"]
    digest = digest_of(b"x")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        client.ask("PUT", with_query(location, digest=digest), b"x")
    assert registry.log[-1].status == 0
    assert client.ask("HEAD", f"/v2/team/driver/blobs/{digest}").status == (200 if there else 404)


def test_a_black_hole_answers_nothing(registry):
    strike(registry, Trouble.HANG)
    http = urllib3.PoolManager(ca_certs=str(registry.ca_file))
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        http.request("GET", f"{registry.url}/v2/", retries=False, timeout=urllib3.Timeout(connect=30, read=0.2))
    assert http.request("GET", f"{registry.url}/v2/", retries=False).status == 200


def test_a_registry_ends_while_somebody_waits_for_it():
    failed = []

    def ask(url):
        try:
            urllib3.PoolManager().request("GET", f"{url}/v2/", retries=False, timeout=60)
        except urllib3.exceptions.HTTPError as error:
            failed.append(error)

    with Registry(tls=False) as registry:
        fault = strike(registry, Trouble.HANG)
        thread = threading.Thread(target=ask, args=(registry.url,))
        thread.start()
        eventually(lambda: fault.struck)
    thread.join(40)
    assert len(failed) == 1


@pytest.mark.parametrize("kind", [Trouble.DELAY, Trouble.DRIP])
def test_slow_answers_are_whole(registry, client, kind):
    fault = strike(registry, kind, delay_s=0.001)
    assert client.ask("GET", BLOB).data == CONTENT
    assert fault.struck == 1


@pytest.mark.parametrize("path", [BLOB, MANIFEST])
def test_a_body_that_is_cut_is_a_broken_connection(registry, client, path):
    strike(registry, Trouble.CUT, after_bytes=100)
    with pytest.raises(urllib3.exceptions.ProtocolError, match="100 bytes read"):
        client.ask("GET", path, accept=OCI_MANIFEST)


def test_a_truncated_body_looks_whole(registry, client):
    strike(registry, Trouble.TRUNCATE, after_bytes=100)
    answer = client.ask("GET", BLOB)
    assert (answer.status, answer.data, answer.headers["Content-Length"]) == (200, CONTENT[:100], "100")
    assert answer.headers["Docker-Content-Digest"] == DIGEST


def test_a_flood_does_not_end(registry):
    strike(registry, Trouble.FLOOD)
    http = urllib3.PoolManager(ca_certs=str(registry.ca_file))
    answer = http.request("GET", registry.url + BLOB, preload_content=False)
    assert len(answer.read(8 << 20)) == 8 << 20
    assert "Content-Length" not in answer.headers
    answer.close()


def test_a_corrupt_blob_has_the_headers_of_the_right_one(registry, client):
    strike(registry, Trouble.CORRUPT)
    answer = client.ask("GET", BLOB)
    assert (len(answer.data), answer.headers["Docker-Content-Digest"]) == (len(CONTENT), DIGEST)
    assert digest_of(answer.data) != DIGEST


def test_a_corrupt_manifest_is_still_one_that_names_another_blob(registry, client):
    right = client.manifest("team/driver", "1")
    strike(registry, Trouble.CORRUPT)
    wrong = client.manifest("team/driver", "1")
    assert wrong.headers["Docker-Content-Digest"] == digest_of(right.data) != digest_of(wrong.data)
    assert wrong.json() != right.json()
    assert wrong.json()["layers"][0]["digest"] != right.json()["layers"][0]["digest"]


def test_headers_may_lie_or_lack(registry, client):
    strike(registry, Trouble.MISNAME, value=digest_of(b""))
    strike(registry, Trouble.MISNAME)
    strike(registry, Trouble.MISTYPE, value=OCI_INDEX)
    answers = [client.manifest("team/driver", "1", method="HEAD") for _ in range(4)]
    assert [each.headers.get("Docker-Content-Digest") for each in answers[:2]] == [digest_of(b""), None]
    assert [each.headers["Content-Type"] for each in answers[2:]] == [OCI_INDEX, OCI_MANIFEST]


def test_absent_repositories_may_be_hidden():
    with Registry(auth="bearer", users={"robot": "x"}, tls=False) as registry:
        registry.push_image("team/driver:1", layers=[CONTENT])
        strike(registry, Trouble.HIDE, times=None)
        client = Client(registry.url, "", "robot", "x")
        assert client.manifest("team/driver", "1").status == 200
        assert client.manifest("team/driver", "2").status == 404, "the repository is there"
        answer = client.manifest("team/absent", "1")
        assert (answer.status, codes(answer)) == (401, ["UNAUTHORIZED"])
        assert parameters(answer.headers["WWW-Authenticate"])["scope"] == "repository:team/absent:pull"


def test_a_redirected_blob_is_had_without_credentials_alone():
    with Registry(auth="basic", users={"robot": "x"}) as registry:
        registry.push_image("team/driver:1", layers=[CONTENT])
        client = Client(registry.url, registry.ca_pem, "robot", "x")
        strike(registry, Trouble.REDIRECT, times=None)
        answer = client.ask("GET", BLOB)
        there = answer.headers["Location"]
        assert answer.status == 307
        assert there.startswith(f"https://{registry.store}/")
        assert registry.store != registry.host
        assert client.ask("GET", there, authorization="").data == CONTENT
        assert client.ask("GET", there, headers={"Range": "bytes=0-9"}, authorization="").data == CONTENT[:10]
        assert client.ask("GET", there, authorization="Basic x").status == 400
        assert client.ask("GET", there.partition("?")[0], authorization="").status == 403
        assert [(each.scheme, each.status) for each in registry.log if each.kind == "store"] == [
            ("", 200),
            ("", 206),
            ("Basic", 400),
            ("", 403),
        ]


def test_a_mount_may_be_answered_with_a_session(registry, client):
    strike(registry, Trouble.UNMOUNTED)
    path = f"/v2/team/other/blobs/uploads/?mount={DIGEST}&from=team/driver"
    assert [client.ask("POST", path).status for _ in range(2)] == [202, 201]


def test_an_interrupted_upload_goes_on_where_it_ended(registry, client):
    strike(registry, Trouble.INTERRUPT, after_bytes=100_000)
    location = client.ask("POST", "/v2/team/other/blobs/uploads/").headers["Location"]
    # A client that still writes hears of it when it writes.
    with pytest.raises((urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError)):
        client.ask("PATCH", location, CONTENT)
    so_far = client.ask("GET", location)
    assert (so_far.status, so_far.headers["Range"]) == (204, "0-99999")
    rest = with_query(so_far.headers["Location"], digest=DIGEST)
    assert client.ask("PUT", rest, CONTENT[100_000:]).status == 201
    assert client.ask("GET", f"/v2/team/other/blobs/{DIGEST}").data == CONTENT


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "banana"}, "banana"),
        ({"kind": Trouble.REFUSE, "on": ("banana",)}, "on has to be a tuple of base, manifest"),
        ({"kind": Trouble.REFUSE, "on": "manifest"}, "on has to be a tuple"),
        ({"kind": Trouble.REFUSE, "methods": ("get",)}, "methods has to be a tuple of GET, HEAD"),
        ({"kind": Trouble.REFUSE, "code": 200}, "400 to 599"),
        ({"kind": Trouble.DRIP}, "drip needs delay_s"),
        ({"kind": Trouble.MISTYPE}, "mistype needs a value"),
        ({"kind": Trouble.REFUSE, "times": "3"}, "whole numbers"),
    ],
)
def test_a_fault_that_would_never_strike_is_refused(options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        RegistryFault(**options)


def test_only_faults_of_a_registry_are_added(registry):
    with pytest.raises(TypeError, match="a RegistryFault is added"):
        registry.faults.add("banana")


def test_hostile_requests_are_refused_and_nothing_breaks(registry, client):
    deep = b"[" * 100_000
    answer = client.put_manifest("team/driver", "1", deep, OCI_MANIFEST)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_INVALID"])
    for body in (
        {"schemaVersion": 2, "config": 1, "layers": []},
        {"schemaVersion": 2, "config": {"digest": 1}, "layers": [None]},
        {"schemaVersion": 2, "config": {"digest": "sha256:../../etc"}, "layers": []},
    ):
        answer = client.put_manifest("team/driver", "1", json.dumps(body).encode(), OCI_MANIFEST)
        assert answer.status == 400
    for path in ("/v2/../../etc/blobs/x", "/v2/a/blobs/uploads/..%2F..%2Fetc?_state=0", "/v2/a/manifests/%00"):
        assert client.ask("GET", path).status in (400, 404)
    assert client.manifest("team/driver", "1").status == 200
