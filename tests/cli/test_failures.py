"""What a tired administrator does wrong: one line says what it is and what to do, and the exit code is 2."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
import yaml

from kmm.embedded.cluster import Cluster
from kmm.embedded.fault import Fault, Kind

ROOT = Path(__file__).parents[2]
QUIET = {"KMM_METRICS_ADDRESS": "127.0.0.1:0", "KMM_HEALTH_ADDRESS": "127.0.0.1:0"}
OLD = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
AN_HOUR = dt.timedelta(hours=1)


def kmm(*arguments, **variables):
    """Run a command; return its one line on standard error, without its name."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("KMM_", "KUBE", "OPERATOR_"))
    }
    run = subprocess.run(
        [sys.executable, "-c", "from kmm.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**environment, **QUIET, **variables},
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (2, ""), run.stderr
    (line,) = [each for each in run.stderr.splitlines() if not each.startswith("{")]  # the operator's log
    assert line.startswith("kmm: ")
    return line.removeprefix("kmm: ")


@pytest.fixture(params=["status", "run"])
def command(request):
    """Both commands that ask a cluster."""
    return request.param


@pytest.fixture
def kubeconfig(tmp_path):
    def write(server="https://127.0.0.1:1", user=None, context="a", ca=None, **cluster):
        if ca is not None:
            cluster["certificate-authority-data"] = base64.b64encode(ca.cert_pem.bytes()).decode()
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "a", "cluster": {"server": server, **cluster}}],
            "users": [{"name": "a", "user": user or {"token": "t"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(value))
        return path

    return write


@contextmanager
def answering(wrap) -> Iterator[int]:
    """Listen at a free port, and let `wrap` greet whoever comes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.settimeout(5)
            with client, suppress(OSError):
                wrap(client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def tls(certificate, trusted=None):
    """Greet by TLS; with `trusted`, only clients with a certificate of that authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    if trusted is not None:
        trusted.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # its refusal comes before anything else is sent

    def greet(client):
        with context.wrap_socket(client, server_side=True) as secured:
            secured.recv(1)

    return greet


# ── The kubeconfig ────────────────────────────────────────────────────────────────────────────────────────────


def test_one_that_is_not_there(command, tmp_path):
    path = tmp_path / "none"
    said = "there is no kubeconfig: name one with --kubeconfig, or with $KUBECONFIG"
    assert kmm(command, "--kubeconfig", path) == f"{path}: {said}"
    assert kmm(command, KUBECONFIG=str(path)) == f"{path}: {said}"
    assert kmm(command, HOME=str(tmp_path)) == f"{tmp_path}/.kube/config: {said}"


@pytest.mark.parametrize("content", [b": : [", b"[1, 2]", b"\xff\xfe\x00", b"hello"])
def test_one_that_is_something_else(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    said = kmm("status", "--kubeconfig", path)
    assert said == f"{path}: is no kubeconfig: it must be YAML, such as `kubectl config view --raw` prints"


def test_one_that_cannot_be_read(tmp_path):
    assert kmm("status", "--kubeconfig", tmp_path) == f"{tmp_path}: the kubeconfig cannot be read: Is a directory"


def test_one_that_names_what_it_does_not_hold(kubeconfig, tmp_path):
    path = kubeconfig(context="b")
    said = kmm("status", "--kubeconfig", path)
    assert "Expected object with name b" in said
    assert said.endswith("`kubectl config view --minify` shows what it says")
    assert 'its server "hello" is no URL' in kmm("status", "--kubeconfig", kubeconfig(server="hello"))
    missing = tmp_path / "ca.crt"
    assert str(missing) in kmm("status", "--kubeconfig", kubeconfig(**{"certificate-authority": str(missing)}))


def test_one_whose_login_fails(command, kubeconfig):
    login = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "no-such-login",
        "interactiveMode": "Never",
    }
    assert "its login fails: " in kmm(command, "--kubeconfig", kubeconfig(user={"exec": login}))


# ── The way to the API server ─────────────────────────────────────────────────────────────────────────────────


def test_nobody_listens(command, kubeconfig):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = kmm(command, "--kubeconfig", kubeconfig(f"https://127.0.0.1:{port}"))
    assert said.startswith(f"https://127.0.0.1:{port}: there is no answer: check that the cluster is up, ")


def test_a_name_that_nobody_knows(kubeconfig):
    said = kmm("status", "--kubeconfig", kubeconfig("https://nowhere.invalid"))
    assert said.startswith("https://nowhere.invalid: the name cannot be resolved: check the kubeconfig's server, ")


def test_a_certificate_that_has_expired(command, kubeconfig):
    ca = trustme.CA()
    old = ca.issue_cert("127.0.0.1", not_before=OLD, not_after=OLD + AN_HOUR)
    with answering(tls(old)) as port:
        said = kmm(command, "--kubeconfig", kubeconfig(f"https://127.0.0.1:{port}", ca=ca))
    assert "the API server's certificate has expired, or the clock here is wrong: have it renewed" in said


def test_a_certificate_of_a_stranger(command, kubeconfig):
    with answering(tls(trustme.CA().issue_cert("127.0.0.1"))) as port:
        said = kmm(command, "--kubeconfig", kubeconfig(f"https://127.0.0.1:{port}", ca=trustme.CA()))
    assert "of an unknown authority: check the kubeconfig's certificate-authority-data" in said


def test_a_certificate_for_another_name(kubeconfig):
    ca = trustme.CA()
    with answering(tls(ca.issue_cert("example.com"))) as port:
        said = kmm("status", "--kubeconfig", kubeconfig(f"https://127.0.0.1:{port}", ca=ca))
    assert "the API server's certificate is for another name: use that name" in said


def test_an_authority_that_is_no_certificate(kubeconfig):
    with answering(tls(trustme.CA().issue_cert("127.0.0.1"))) as port:
        path = kubeconfig(f"https://127.0.0.1:{port}", **{"certificate-authority-data": "Zm9v"})
        said = kmm("status", "--kubeconfig", path)
    assert "a certificate in the kubeconfig cannot be read: check certificate-authority-data" in said


def test_a_client_certificate_that_is_not_accepted(kubeconfig):
    ca, other = trustme.CA(), trustme.CA()
    mine = other.issue_cert("me@example.com")
    user = {
        "client-certificate-data": base64.b64encode(mine.cert_chain_pems[0].bytes()).decode(),
        "client-key-data": base64.b64encode(mine.private_key_pem.bytes()).decode(),
    }
    with answering(tls(ca.issue_cert("127.0.0.1"), trusted=ca)) as port:
        said = kmm("status", "--kubeconfig", kubeconfig(f"https://127.0.0.1:{port}", user=user, ca=ca))
    assert "does not accept the client certificate: renew client-certificate-data" in said


def test_a_port_without_tls(kubeconfig):
    def greet(client):
        client.recv(1)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        client.recv(1 << 16)

    with answering(greet) as port:
        said = kmm("status", "--kubeconfig", kubeconfig(f"https://127.0.0.1:{port}"))
    assert "there is no TLS at that address: check the port" in said


# ── Rights ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cluster(tmp_path):
    with Cluster(folder=tmp_path / "cluster") as made:
        yield made


def test_a_token_that_has_expired(command, cluster, kubeconfig):
    ca = base64.b64encode(cluster.ca_file.read_bytes()).decode()
    path = kubeconfig(cluster.url, **{"certificate-authority-data": ca})
    said = kmm(command, "--kubeconfig", path)
    assert said.startswith(
        f"{cluster.url} does not know you: the token or client certificate is wrong or has expired"
    )


def test_no_right(command, kubeconfig):
    message = (
        'modules.kmm.sigs.x-k8s.io is forbidden: User "tired" cannot list resource "modules" in API group '
        '"kmm.sigs.x-k8s.io" at the cluster scope'
    )
    body = json.dumps({"kind": "Status", "reason": "Forbidden", "message": message, "details": {}}).encode()

    def greet(client):
        client.recv(1 << 16)
        client.sendall(
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )

    with answering(greet) as port:
        said = kmm(command, "--kubeconfig", kubeconfig(f"http://127.0.0.1:{port}"))
    assert said == (
        "tired may not list modules.kmm.sigs.x-k8s.io in the whole cluster: ask an administrator for that right; "
        "`kmm manifests rbac` prints those of the operator"
    )


def test_what_is_forbidden_otherwise_is_said_as_it_came(cluster):
    path = cluster.kubeconfig(cluster.token("tired"))
    cluster.faults.add(Fault(kind=Kind.REFUSE, user="tired", code=403, times=None))
    assert kmm("status", "--kubeconfig", path) == f"{cluster.url}: forbidden: as asked for"


def test_a_cluster_that_knows_no_modules(cluster):
    said = kmm("status", "--kubeconfig", cluster.kubeconfig())
    assert said == f"{cluster.url} knows no Modules: `kmm crds | kubectl apply -f -` makes them known"


@pytest.mark.parametrize("variable", list(QUIET))
def test_a_port_that_is_taken(cluster, variable):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        said = kmm("run", "--kubeconfig", cluster.kubeconfig(), **{variable: address})
    assert address in said
    assert variable in said, "what would be right"


# ── make ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make(tmp_path):
    """Run make in a folder that has nothing but the Makefile, with programs of ours before the system's."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text("")
    programs = tmp_path / "programs"
    programs.mkdir()

    def run(*arguments, **scripts):
        for name, script in scripts.items():
            path = programs / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        # Without the system's uv, if it has one.
        for name in ("sh", "sed", "grep", "mkdir", "tail", "cut", "touch", "echo", "make"):
            found = next(Path(each) / name for each in ("/usr/bin", "/bin") if (Path(each) / name).exists())
            if not (programs / name).exists():
                (programs / name).symlink_to(found)
        ran = subprocess.run(
            ["/usr/bin/make", "setup", *arguments],
            cwd=tmp_path,
            env={"PATH": str(programs), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 2
        (line,) = [each for each in ran.stderr.splitlines() if not each.startswith("make: ***")]
        return line

    return run


GOOD = 'case "$*" in *version_info*) exit 0;; esac\n'


def test_make_without_python(make):
    assert make() == "kmm needs Python 3.11 or newer, and there is no python3: make PYTHON=python3.12 ..."


def test_make_with_an_old_python(make):
    old = 'case "$*" in *platform*) echo 3.9.18;; *) exit 1;; esac'
    assert make(python3=old) == "kmm needs Python 3.11 or newer, python3 is 3.9.18: make PYTHON=python3.12 ..."


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("WARNING: Retrying (Retry(total=0)) after connection broken", "no package index can be reached: set "),
        ("SSLError(SSLCertVerificationError(1, 'certificate verify failed'))", "the package index is not trusted: "),
        ("/usr/bin/python3: No module named pip", "python3 has no pip: install it "),
        ("No space left on device", "setting up failed: No space left on device; more in .cache/setup.log"),
    ],
)
def test_make_when_pip_fails(make, said, told):
    assert make(python3=f'{GOOD}echo "{said}" >&2; exit 1').startswith(told)
