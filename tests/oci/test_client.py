from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from oci.served import USER, WRONG

from kmm.contract import Access, Forbidden, Tls, Unavailable
from kmm.embedded.registry_fault import RegistryFault, Trouble
from kmm.oci import manifest
from kmm.oci.address import Addresses
from kmm.oci.client import Client
from kmm.oci.reference import parse
from kmm.oci.session import Session

FILES = {"/opt/x.ko": b"driver"}


def fault(served, kind, **filters):
    served.registry.faults.add(RegistryFault(kind=kind, **{"times": None, **filters}))


# ── What is there ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("auth", ["none", "basic", "bearer"])
def test_images_and_indexes_are_resolved_whatever_the_registry_asks_for(serve, auth, tls, docker):
    served = serve(auth=auth, tls=tls)
    digest = served.registry.push_image("team/app:1", FILES, docker=docker)
    index = served.registry.push_index("team/app:all", {"amd64": digest, "arm64": digest}, docker=docker)
    client = served.client(USER)
    found = client.resolve(served.reference("team/app:1"))
    assert (found.digest, found.architectures, found.manifest) == (digest, (), None)
    found = client.resolve(served.reference("team/app:all"))
    assert (found.digest, found.architectures) == (index, ("amd64", "arm64"))
    assert client.resolve(served.reference(f"team/app@{digest}")).digest == digest
    assert client.resolve(served.reference(f"team/app:all@{digest}")).digest == digest
    assert client.resolve(served.reference("team/app:none")) is None
    assert client.resolve(served.reference("team/none:1")) is None


def test_one_manifest_costs_one_request_and_an_index_two(served):
    digest = served.registry.push_image("a:1", FILES)
    served.registry.push_index("a:all", {"amd64": digest})
    client = served.client()
    client.resolve(served.reference("a:1"))
    assert served.requests() == [("HEAD", "manifest", 200)]
    client.resolve(served.reference("a:all"))
    assert served.requests(1) == [("HEAD", "manifest", 200), ("GET", "manifest", 200)]


def test_annotations_are_read_where_they_are_wanted(served):
    served.registry.push_image("a:1", FILES, annotations={"b": "c"})
    client = served.client()
    assert client.resolve(served.reference("a:1")).annotations == {}
    assert client.resolve(served.reference("a:1"), annotations=True).annotations == {"b": "c"}


def test_a_manifest_is_read_with_its_bytes(served):
    digest = served.registry.push_image("a:1", FILES)
    found = served.client().manifest(served.reference("a:1"))
    assert manifest.digest_of(found.data) == found.digest == digest
    assert json.loads(found.data)["layers"][0]["digest"] == found.manifest.layers[0].digest
    assert "mediaType" not in repr(found.data and found)


def test_an_index_without_an_image_for_linux_counts_for_no_architecture(served):
    body = {"schemaVersion": 2, "manifests": []}
    client = served.client()
    client.push_manifest("a", json.dumps(body).encode(), manifest.OCI_INDEX, "all")
    assert client.resolve(served.reference("a:all")).architectures == ("none",)


@pytest.mark.parametrize("code", [400, 405, 501])
def test_where_head_is_refused_get_answers(served, code):
    digest = served.registry.push_image("a:1", FILES)
    fault(served, Trouble.REFUSE, code=code, methods=("HEAD",))
    client = served.client()
    assert client.resolve(served.reference("a:1")).digest == digest
    assert client.resolve(served.reference("a:none")) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Trouble.MISNAME, ""), (Trouble.MISNAME, "nonsense"), (Trouble.MISTYPE, "text/html")],
)
def test_where_the_headers_of_head_say_nothing_get_answers(served, kind, value):
    digest = served.registry.push_image("a:1", FILES)
    fault(served, kind, value=value, methods=("HEAD",))
    assert served.client().resolve(served.reference("a:1")).digest == digest


def test_a_lying_content_type_does_not_hide_an_index(served):
    digest = served.registry.push_image("a:1", FILES)
    served.registry.push_index("a:all", {"amd64": digest})
    fault(served, Trouble.MISTYPE, value=manifest.OCI_MANIFEST, methods=("GET",))
    assert served.client().resolve(served.reference("a:all")).architectures == ("amd64",)


def test_a_client_asks_its_own_registry_alone(served):
    with pytest.raises(ValueError, match="cannot ask quay"):
        served.client().resolve(parse("quay.io/a"))


# ── What could not be seen is never missing ──────────────────────────────────────────────────────────────────────


def unavailable(served, name="a:1", said="", **options):
    """Resolve, and return the error that says why it cannot be."""
    with pytest.raises(Unavailable) as raised:
        served.client(**options).resolve(served.reference(name))
    assert served.registry.host in str(raised.value)
    assert said in str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("kind", "filters", "said"),
    [
        (Trouble.REFUSE, {"code": 500}, "answered 500"),
        (Trouble.REFUSE, {"code": 502, "methods": ("HEAD",)}, "answered 502"),
        (Trouble.REFUSE, {"code": 418}, "answered 418"),
        (Trouble.REFUSE, {"code": 429}, "answered 429"),
        (Trouble.PAGE, {"code": 404}, "answered 404, but not as a registry does"),
        (Trouble.PAGE, {"code": 503}, "answered 503"),
        (Trouble.RESET, {}, "broke off the connection"),
        (Trouble.CORRUPT, {}, "does not have the digest it should"),
        (Trouble.TRUNCATE, {"after_bytes": 30}, "does not have the digest it should"),
        (Trouble.CUT, {"after_bytes": 30}, "broke off the connection"),
        (Trouble.FLOOD, {}, ""),
    ],
)
def test_what_goes_wrong_is_unavailable_and_says_where_and_what(served, kind, filters, said):
    served.registry.push_image("a:1", FILES)
    fault(served, kind, **filters)
    with pytest.raises(Unavailable) as raised:
        served.client().resolve(served.reference("a:1"), annotations=True)
    assert str(raised.value).startswith(f"{served.registry.host}: ")
    assert said in str(raised.value)


def test_the_codes_of_the_specification_are_told(served):
    fault(served, Trouble.REFUSE, code=429, methods=("GET",))
    fault(served, Trouble.REFUSE, code=405, methods=("HEAD",))
    unavailable(served, said="answered 429 (TOOMANYREQUESTS)")


@pytest.mark.parametrize(("told", "expected"), [(7, 7.0), (10**6, 3600.0), (None, None)])
@pytest.mark.parametrize("code", [429, 503])
def test_a_registry_may_say_when_to_come_back_but_not_for_ever(served, code, told, expected):
    fault(served, Trouble.REFUSE, code=code, retry_after_s=told)
    assert unavailable(served).retry_after_s == expected


@pytest.mark.parametrize("kind", [Trouble.HANG, Trouble.DRIP])
def test_what_takes_longer_than_the_deadline_is_given_up(served, kind):
    served.registry.push_image("a:1", FILES)
    fault(served, kind, **({"delay_s": 1} if kind is Trouble.DRIP else {}))
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"did not answer in 0\.5 s"):
        served.client(deadline_s=0.5).manifest(served.reference("a:1"))
    assert time.monotonic() - began < 5  # it drips for 8 s


def test_a_deadline_is_for_everything_that_a_client_does(served):
    client = served.client(deadline_s=0)
    with pytest.raises(Unavailable, match="did not answer in 0 s"):
        client.resolve(served.reference("a:1"))
    assert served.registry.log == []


def test_an_absent_repository_that_is_hidden_is_forbidden(serve):
    served = serve(auth="bearer")
    fault(served, Trouble.HIDE)
    with pytest.raises(Forbidden, match="access to none was refused with 1 credential and anonymously"):
        served.client(USER).resolve(served.reference("none:1"))


def test_a_digest_that_the_registry_lies_about_is_noticed(served):
    served.registry.push_image("a:1", FILES)
    fault(served, Trouble.MISNAME, value="sha256:" + "0" * 64)
    with pytest.raises(Unavailable, match="does not have the digest it should"):
        served.client().manifest(served.reference("a:1"))


# ── Connections ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_there_to_be_connected_to_is_told_apart(session):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    for host, said in ((closed, "refused the connection"), ("registry.invalid", "does not resolve")):
        client = Client(host, Access(), session=session, deadline_s=20)
        with pytest.raises(Unavailable) as raised:
            client.resolve(parse(f"{host}/a"))
        assert str(raised.value) == f"{host}: {said}"


def test_a_certificate_of_an_unknown_authority_is_not_taken(served):
    assert str(unavailable(served, ca_pem=None)).endswith("TLS: certificate signed by unknown authority")


def test_a_certificate_for_another_name_is_not_taken(served, session):
    host = f"127.1:{served.registry.host.partition(':')[2]}"
    client = Client(host, served.access(), session=session, deadline_s=20)
    with pytest.raises(Unavailable, match=r"127\.1:\d+: TLS: certificate is for another name"):
        client.resolve(parse(f"{host}/a"))


def test_any_certificate_is_taken_where_that_is_asked_for_and_nobody_is_warned(served):
    digest = served.registry.push_image("a:1", FILES)
    client = served.client(ca_pem=None, tls=Tls(skip_verify=True))
    assert client.resolve(served.reference("a:1")).digest == digest


def test_authorities_that_cannot_be_read_are_told_of(served):
    unavailable(served, ca_pem="-----BEGIN CERTIFICATE-----\nno\n", said="CA certificates cannot be read")


def test_plain_http_where_tls_is_expected_and_the_other_way_round_is_told(serve):
    unavailable(serve(tls=False), tls=Tls(), said="TLS: it does not speak TLS")
    served = serve()
    unavailable(served, tls=Tls(insecure=True))


def test_clients_with_the_same_tls_settings_share_connections(served, session):
    served.registry.push_image("a:1", FILES)
    for name in ("a:1", "a:none", "none:1") * 3:
        served.client().resolve(served.reference(name))
    (pool,) = session.connections._pools.values()
    port = int(served.registry.host.partition(":")[2])
    assert pool.connection_from_host("127.0.0.1", port, "https").num_connections == 1


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "2130706433", "127.1"])
def test_this_machine_is_not_connected_to_unless_that_is_allowed(served, name):
    host = f"{name}:{served.registry.host.partition(':')[2]}"
    session = Session(environ={})
    client = Client(host, served.access(), session=session, deadline_s=20)
    with pytest.raises(Unavailable, match="is a loopback address, which is not allowed"):
        client._registry.ask("GET", "/v2/", "a")
    assert served.registry.log == []


class First(Addresses):
    """Allows the first connection, and none of this machine after it."""

    asked = False

    def check(self, address):
        if type(self).asked:
            super().check(address)
        type(self).asked = True


def first():
    """Return a session whose first connection is allowed."""
    return Session(type("Own", (First,), {})(), environ={})


def test_a_redirect_to_an_address_that_is_not_allowed_is_not_followed(served):
    served.registry.push_image("a:1", FILES)
    session = first()
    client = served.client(session=session)
    layer = client.manifest(served.reference("a:1")).manifest.layers[0]
    fault(served, Trouble.REDIRECT)
    with pytest.raises(Unavailable) as raised:
        client.blob("a", layer)
    assert str(raised.value) == f"{served.registry.store}: is a loopback address, which is not allowed"
    assert served.requests()[-1] == ("GET", "blob", 307)
    session.close()


def test_a_token_service_at_an_address_that_is_not_allowed_is_not_asked(serve):
    served = serve(auth="bearer")
    served.registry.realm = served.registry.realm.replace("127.0.0.1", "localhost")
    session = first()
    with pytest.raises(Unavailable, match=r"^localhost:\d+: is a loopback address, which is not allowed$"):
        served.client(USER, session=session).resolve(served.reference("a:1"))
    assert served.requests() == [("GET", "base", 401)]
    session.close()


# ── Credentials ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_each_credential_is_tried_in_its_order_then_none(serve, auth):
    served = serve(auth=auth, public=["open"])
    digest = served.registry.push_image("a:1", FILES)
    assert served.client(WRONG, USER).resolve(served.reference("a:1")).digest == digest
    with pytest.raises(Forbidden) as raised:
        served.client(WRONG).resolve(served.reference("a:1"))
    assert str(raised.value) == (f"{served.registry.host}: access to a was refused with 1 credential and anonymously")
    with pytest.raises(Forbidden, match=r"was refused anonymously$"):
        served.client().resolve(served.reference("a:1"))


def test_a_registry_that_refuses_without_asking_for_anything_is_asked_once(served):
    fault(served, Trouble.REFUSE, code=403, on=("manifest",))
    with pytest.raises(Forbidden, match=r"was refused anonymously$"):
        served.client(USER, WRONG).resolve(served.reference("a:1"))
    assert served.requests() == [("GET", "base", 200), ("HEAD", "manifest", 403)]


def test_many_at_once_ask_once_what_the_registry_wants_and_for_one_token(serve):
    served = serve(auth="bearer")
    served.registry.push_image("a:1", FILES)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(served.client(USER).resolve, served.reference("a:1")) for _ in range(24)]
    assert all(each.result() for each in found)
    assert len(served.registry.log) == 26


def test_what_is_public_is_found_though_the_credential_is_wrong(serve):
    served = serve(auth="bearer", public=["open"])
    digest = served.registry.push_image("open:1", FILES)
    assert served.client(WRONG).resolve(served.reference("open:1")).digest == digest
    assert served.client().resolve(served.reference("open:1")).digest == digest


def test_the_registry_is_asked_once_what_it_wants_and_one_token_serves_all_clients(serve):
    served = serve(auth="bearer")
    for number in range(5):
        served.registry.push_image(f"a:{number}", FILES)
    for number in range(5):
        served.client(USER).resolve(served.reference(f"a:{number}"))
    assert served.requests() == [
        ("GET", "base", 401),
        ("GET", "token", 200),
        *[("HEAD", "manifest", 200)] * 5,
    ]


def test_no_credential_goes_where_a_redirect_leads(serve):
    served = serve(auth="basic")
    served.registry.push_image("a:1", FILES)
    client = served.client(USER)
    found = client.manifest(served.reference("a:1"))
    fault(served, Trouble.REDIRECT)
    with client.blob("a", found.manifest.layers[0]) as blob:
        assert b"".join(blob)
    shown = {entry.kind: entry.scheme for entry in served.registry.log}
    assert (shown["blob"], shown["store"]) == ("Basic", "")


def test_no_secret_and_no_word_of_the_registry_is_in_an_error(serve):
    for auth in ("basic", "bearer"):
        served = serve(auth=auth)
        for kind in (Trouble.PAGE, Trouble.REFUSE, Trouble.HIDE):
            fault(served, kind, on=("manifest", "token"), code=403)
            with pytest.raises((Forbidden, Unavailable)) as raised:
                served.client(USER, WRONG).resolve(served.reference("a:1"))
            assert not any(each in str(raised.value) for each in ("s3cret", "wr0ng", "<html", "dXNlcjp"))
            assert raised.value.__cause__ is None
            served.registry.faults.clear()
