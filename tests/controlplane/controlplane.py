"""A Kubernetes control plane on this machine: etcd, API server, controllers, scheduler, and kwok as all the nodes.

Its programs are built once, from the Go modules that go.mod pins. By hand:

    python tests/controlplane/controlplane.py          # only builds, and prints where the programs are
    python tests/controlplane/controlplane.py FOLDER   # runs with its files in FOLDER, until Ctrl-C
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Self

import trustme

HERE = Path(__file__).resolve().parent
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
}
# One identity per component: the audit log tells them apart. RBAC decides about those without a group.
GROUPS = dict.fromkeys(("admin", "kcm", "scheduler", "kwok"), "system:masters") | {"operator": "", "nobody": ""}

SERVING = """--bind-address=127.0.0.1 --secure-port={port}
    --tls-cert-file={folder}/server.pem --tls-private-key-file={folder}/server.pem """
# Split at white space before the braces are filled in: a folder's name may have some.
COMMANDS = {
    # Without fsync it still survives whatever a test kills, which is never the machine.
    "etcd": """--data-dir={folder}/etcd --unsafe-no-fsync --quota-backend-bytes=6442450944 --log-level=warn
        --listen-client-urls=http://127.0.0.1:{port} --advertise-client-urls=http://127.0.0.1:{port}
        --listen-peer-urls=http://127.0.0.1:{peer} --initial-advertise-peer-urls=http://127.0.0.1:{peer}
        --initial-cluster=default=http://127.0.0.1:{peer}""",
    # No reconciler, as endpoints must not be on loopback. Loaders and device plugins are privileged. The admission
    # plugin is not a default one, but OpenShift has it.
    "kube-apiserver": SERVING
    + """--etcd-servers=http://127.0.0.1:{etcd} --advertise-address=127.0.0.1 --endpoint-reconciler-type=none
        --service-cluster-ip-range=10.0.0.0/24 --allow-privileged=true
        --token-auth-file={folder}/tokens.csv --authorization-mode=RBAC
        --enable-admission-plugins=OwnerReferencesPermissionEnforcement
        --service-account-issuer=https://kubernetes.default.svc
        --service-account-key-file={folder}/accounts.pem --service-account-signing-key-file={folder}/accounts.pem""",
    # The default rates, 20 and 50 requests a second, would be what tests measure.
    "kube-controller-manager": SERVING
    + """--kubeconfig={folder}/kcm.kubeconfig --authentication-skip-lookup --leader-elect=false
        --controllers={controllers} --kube-api-qps=1000 --kube-api-burst=2000
        --root-ca-file={folder}/ca.pem --service-account-private-key-file={folder}/accounts.pem""",
    "kube-scheduler": SERVING + "--config={folder}/scheduler.json --authentication-skip-lookup",
    "kwok": """--kubeconfig={folder}/kwok.kubeconfig --config={here}/kwok-stages.yaml
        --server-address=127.0.0.1:{port} --manage-all-nodes --node-lease-duration-seconds=40
        --node-ip=127.0.0.1 --cidr=10.64.0.0/10""",
}
# Blocking: no line is dropped, nor written later than its request ends. Size 0: the log is never rotated.
AUDIT = """--audit-policy-file={folder}/audit-policy.json --audit-log-path={folder}/audit.log
    --audit-log-mode=blocking --audit-log-maxsize=0"""
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
READY_WITHIN = 60.0
STOPPED_WITHIN = 0.5  # the API server would wait a minute for watches to end


class Missing(Exception):
    """This machine cannot have a control plane, and why."""


def binaries() -> Path:
    """The folder with the programs: $KUBEBUILDER_ASSETS where that is set, else the cache, which is filled first."""
    if not shutil.which("setpriv"):
        raise Missing("the control plane needs Linux, with setpriv of util-linux")
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        if lacking := [name for name in PACKAGES if not os.access(Path(assets, name), os.X_OK)]:
            raise Missing(f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(lacking)}: link them there, or unset it")
        return Path(assets).resolve()
    flags = _link_flags()
    inputs = (HERE / "go.mod").read_bytes() + (HERE / "go.sum").read_bytes() + flags.encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kmm/controlplane")
    folder = cache / hashlib.sha256(inputs).hexdigest()[:16]
    if not folder.exists():
        if not shutil.which("go"):
            raise Missing("the control plane is built with Go, and there is none here (nor KUBEBUILDER_ASSETS)")
        _say(f"building a control plane into {folder}: takes about 8 minutes the first time")
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _build(folder, flags)
    return folder


def _link_flags() -> str:
    """The linker is told the versions: programs that do not come from a release call themselves v0.0.0."""
    versions = dict(re.findall(r"^\t(\S+) (v\S+)", (HERE / "go.mod").read_text(), re.MULTILINE))
    kubernetes = versions["k8s.io/kubernetes"]
    variables = {
        "gitVersion": kubernetes,
        "gitMajor": "1",
        "gitMinor": kubernetes.split(".")[1],
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    told = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in variables.items())
    return f"-s -w {told} -X sigs.k8s.io/kwok/pkg/consts.Version={versions['sigs.k8s.io/kwok']}"


def _build(folder: Path, flags: str) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    build = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o"]
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    # etcd's program would be named after its package, v3.
    others = [package for name, package in PACKAGES.items() if name != "etcd"]
    for target in ([f"{partial}/", *others], [f"{partial}/etcd", PACKAGES["etcd"]]):
        subprocess.run([*build, *target], cwd=HERE, env=environment, check=True)
    partial.rename(folder)


def _say(line: str) -> None:
    """To the terminal itself where there is one: pytest would show it when the minutes are over."""
    try:
        with Path("/dev/tty").open("w") as terminal:
            print(line, file=terminal)
    except OSError:
        print(line, file=sys.stderr, flush=True)


def _hold_port() -> socket.socket:
    """A free port that stays ours, through restarts too.

    The kernel gives a bound port to nobody else, and since this socket allows reuse and never listens, the component
    that is told the number can.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class ControlPlane:
    """A running control plane, as a context manager; its files are in `folder`.

    Components die with the *thread* that started them, so that a killed pytest leaves nothing behind: enter it, and
    restart components, in a thread that stays.
    """

    def __init__(
        self,
        folder: Path,
        *,
        controllers: str | None = None,
        apiserver_flags: Sequence[str] = (),
        audit: bool = True,
        kwok: bool = True,
    ) -> None:
        programs = binaries()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.kubectl = programs / "kubectl"
        self.ca_file = self.folder / "ca.pem"
        self.audit_log = self.folder / "audit.log"
        self._tokens = {user: secrets.token_hex(16) for user in GROUPS}
        self.admin_token = self.token("admin")
        names = [name for name in COMMANDS if kwok or name != "kwok"]
        self._held = {name: _hold_port() for name in (*names, "peer")}
        self._ports: dict[str, int] = {name: held.getsockname()[1] for name, held in self._held.items()}
        self.url = f"https://127.0.0.1:{self._ports['kube-apiserver']}"
        self._write_files()
        self._tls = ssl.create_default_context(cafile=self.ca_file)
        self._controllers = controllers or "*"
        values = {**self._ports, "folder": self.folder, "here": HERE, "controllers": self._controllers}
        self._commands = {
            name: [
                # So the kernel kills it when we are killed.
                *("setpriv", "--pdeathsig", "KILL", "--", str(programs / name)),
                *(word.format(**values, port=self._ports[name]) for word in COMMANDS[name].split()),
            ]
            for name in names
        }
        audited = [word.format(**values) for word in AUDIT.split()] if audit else []
        self._commands["kube-apiserver"] += [*audited, *apiserver_flags]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for name in self._commands:
                self._start(name)
                self._wait(name)
            if {"*", "serviceaccount-controller"} & set(self._controllers.split(",")):
                # Before, the namespace takes no Pods.
                self._wait("kube-apiserver", "/api/v1/namespaces/default/serviceaccounts/default")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._terminate(*reversed(self._processes))
        for held in self._held.values():
            held.close()

    def kill(self, component: str, signum: int) -> None:
        """Send it the signal; `restart` starts it again."""
        os.killpg(self._processes[component].pid, signum)
        if signum == signal.SIGKILL:
            self._processes[component].wait()

    def restart(self, component: str) -> None:
        """Stop it where it runs, start it with the same port and state, and wait until it is ready."""
        self._terminate(component)
        self._start(component)
        self._wait(component)

    def compact(self) -> None:
        """Let etcd forget all but the newest version of each object."""
        connection = HTTPConnection("127.0.0.1", self._ports["etcd"], timeout=30)
        try:

            def ask(path: str, **body: object) -> dict[str, Any]:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said: dict[str, Any] = json.load(answer)
                if answer.status != HTTPStatus.OK:
                    raise RuntimeError(f"etcd: {said}")
                return said

            ask("/v3/kv/compaction", revision=ask("/v3/maintenance/status")["header"]["revision"], physical=True)
        finally:
            connection.close()

    def token(self, user: str) -> str:
        return self._tokens[user]

    def kubeconfig(self, user: str = "admin") -> Path:
        return self.folder / f"{user}.kubeconfig"

    def log(self, component: str) -> Path:
        return self.folder / f"{component}.log"

    def memory(self) -> dict[str, int]:
        """The resident bytes of the components that run."""
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            name: int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page
            for name, process in self._processes.items()
            if process.poll() is None
        }

    def _write_files(self) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1", "localhost")
        accounts = authority.issue_cert("serviceaccounts")
        authority.cert_pem.write_to_path(self.ca_file)
        server.private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
        accounts.private_key_pem.write_to_path(self.folder / "accounts.pem")
        rows = [f'{token},{user},{user},"{GROUPS[user]}"\n' for user, token in self._tokens.items()]
        (self.folder / "tokens.csv").write_text("".join(rows))
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(authority.cert_pem.bytes()).decode(),
        }
        for user, token in self._tokens.items():
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "tests", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": user, "context": {"cluster": "tests", "user": user}}],
                "current-context": user,
            }
            self.kubeconfig(user).write_text(json.dumps(config))  # JSON is YAML
        scheduler = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"kubeconfig": str(self.kubeconfig("scheduler")), "qps": 1000, "burst": 2000},
        }
        (self.folder / "scheduler.json").write_text(json.dumps(scheduler))
        (self.folder / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))

    def _start(self, name: str) -> None:
        with self.log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name],
                cwd=self.folder,
                # etcd takes settings from the environment, and kwok from the home.
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for us, who stop them in order
            )

    def _wait(self, name: str, path: str | None = None) -> None:
        path = path or {"etcd": "/health", "kube-apiserver": "/readyz"}.get(name, "/healthz")
        deadline = time.monotonic() + READY_WITHIN
        while not self._answers(name, path):
            ended = self._processes[name].poll()
            if ended is not None or time.monotonic() > deadline:
                what = f"{name} is not ready" if ended is None else f"{name} ended with {ended}"
                last = self.log(name).read_text(errors="replace").splitlines()[-20:]
                raise RuntimeError("\n".join([f"{what}; the end of {self.log(name)}:", *last]))
            time.sleep(0.03)

    def _answers(self, name: str, path: str) -> bool:
        port = self._ports[name]
        connection = (
            HTTPConnection("127.0.0.1", port, timeout=2)
            if name in {"etcd", "kwok"}
            else HTTPSConnection("127.0.0.1", port, timeout=2, context=self._tls)
        )
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.admin_token}"})
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _terminate(self, *names: str) -> None:
        running = [process for name in names if (process := self._processes[name]).poll() is None]
        for process in running:
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGCONT)  # a test may have stopped it
        deadline = time.monotonic() + STOPPED_WITHIN
        for process in running:
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main() -> None:
    if len(sys.argv) == 1:
        print(binaries())
        return
    with ControlPlane(Path(sys.argv[1])) as plane, contextlib.suppress(KeyboardInterrupt):
        print(f"export KUBECONFIG={plane.kubeconfig()}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
