from __future__ import annotations

import email.utils
import socket
import ssl
import threading
import time
from contextlib import contextmanager

import pytest
import urllib3
from oci.served import LOOPBACK

from kmm.contract import Access, Tls, Unavailable
from kmm.oci.connection import Connections, Deadline, Origin, failure, fingerprint, origin_of, retry_after_s

PLAIN = Access(tls=Tls(insecure=True))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://A.example.com/v2/?a=b", Origin("https", "a.example.com", 443)),
        ("http://a:5000", Origin("http", "a", 5000)),
        ("http://[fd00::1]:5000/x", Origin("http", "[fd00::1]", 5000)),
        ("https://a:/x", Origin("https", "a", 443)),
        ("", None),
        ("/v2/", None),
        ("//a/v2/", None),
        ("ftp://a/", None),
        ("https://", None),
        ("https://user:password@a/", None),
        ("https://a:99999/", None),
        ("https://a:b/", None),
        ("https://a b/", None),
        ("https://a/\r\nX: y", None),
        ("https://[::1/", None),
        ("https://é/", None),
        ("https://a/" + "x" * 9000, None),
    ],
)
def test_only_urls_that_are_safe_to_ask_have_an_origin(url, expected):
    assert origin_of(url) == expected


def test_an_origin_is_shown_without_the_usual_port():
    assert str(Origin("https", "a", 443)) == "a"
    assert str(Origin("http", "a", 443)) == "a:443"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("9" * 99, 3600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_never_too_long(said, expected):
    assert retry_after_s(said) == expected


def test_retry_after_may_be_a_date_soon():
    assert 0 < retry_after_s(email.utils.formatdate(time.time() + 600)) <= 600


@pytest.mark.parametrize("said", ["", "soon", "-1", "1.5", "²", "Fri, 99 Foo 2020", "x" * 100_000])
def test_a_retry_after_that_says_nothing_is_none(said):
    assert retry_after_s(said) is None


def test_what_one_trust_learnt_is_not_for_another():
    kinds = [Access(), PLAIN, Access(tls=Tls(skip_verify=True)), Access(ca_pem="a"), Access(ca_pem="b")]
    assert len({fingerprint(each) for each in kinds}) == len(kinds)


@contextmanager
def answering(serve):
    """Serve one connection after the other by `serve(connection, stopped)`, and return the address."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            while not stopped.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        serve(connection, stopped)
                    except OSError:
                        continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            stopped.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def drip(connection, stopped):
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-A: " + b"a" * 1000:
        if stopped.wait(0.05):
            return
        connection.sendall(bytes((byte,)))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_headers_or_a_handshake_that_drip_do_not_outlast_the_deadline(scheme):
    connections = Connections(LOOPBACK, environ={})
    with answering(drip) as address:
        deadline = Deadline(0.5)
        with pytest.raises(Unavailable, match=r"did not answer in 0\.5 s|TLS|broke off"):
            connections.send("GET", f"{scheme}://{address}/", PLAIN, deadline, {})
        assert time.monotonic() < deadline.until + 20  # dripping would go on for 50 s
    connections.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_unavailable(said):
    def serve(connection, _):
        connection.recv(65536)
        connection.sendall(said)

    connections = Connections(LOOPBACK, environ={})
    with answering(serve) as address, pytest.raises(Unavailable, match=rf"^{address}: "):
        connections.send("GET", f"http://{address}/", PLAIN, Deadline(20), {}).whole(1000)
    connections.close()


def test_a_proxy_is_asked_for_what_is_elsewhere_and_is_told_nothing_of_what_is_not_allowed():
    asked = []

    def serve(connection, _):
        asked.append(connection.recv(65536).split(b"\r\n"))
        connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    with answering(serve) as address:
        proxy = f"http://user:s3cret@{address}"
        connections = Connections(environ={"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": "direct.invalid"})
        with pytest.raises(Unavailable, match=r"^registry\.invalid: the proxy refused to connect to it$"):
            connections.send("GET", "https://registry.invalid/v2/", Access(), Deadline(20), {})
        assert asked[0][0].startswith(b"CONNECT registry.invalid:443 HTTP/1.")
        assert any(line.lower().startswith(b"proxy-authorization: basic") for line in asked[0])
        assert connections.send("GET", "http://registry.invalid/v2/", PLAIN, Deadline(20), {}).status == 403
        assert asked[1][0] == b"GET http://registry.invalid/v2/ HTTP/1.1"
        with pytest.raises(Unavailable, match="does not resolve"):
            connections.send("GET", "https://direct.invalid/v2/", Access(), Deadline(20), {})
        for host in ("169.254.169.254", "localhost", "127.1"):
            with pytest.raises(Unavailable, match=r"is a (link-local|loopback) address, which is not allowed"):
                connections.send("GET", f"https://{host}/v2/", Access(), Deadline(20), {})
        assert len(asked) == 2
        connections.close()


def test_a_proxy_that_is_none_is_told_of():
    connections = Connections(environ={"HTTPS_PROXY": "socks5://a:s3cret@b"})
    with pytest.raises(
        Unavailable, match=r"^a\.invalid: the proxy that the environment names for it is none for HTTP$"
    ):
        connections.send("GET", "https://a.invalid/", Access(), Deadline(20), {})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ssl.SSLEOFError(8, "eof"), "broke off the connection"),
        (ConnectionResetError(104, "reset"), "broke off the connection"),
        (urllib3.exceptions.SSLError(ssl.SSLError(1, "[SSL: SOME_NEW] s3cret")), "TLS: no agreement"),
        (urllib3.exceptions.LocationParseError("s3cret"), "did not answer as HTTP has it"),
        (TimeoutError("s3cret"), "did not answer in 3 s"),
    ],
)
def test_errors_are_told_in_our_words(error, said):
    assert str(failure("a", error, Deadline(3))) == f"a: {said}"
