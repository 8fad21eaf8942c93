"""How a cluster's Modules are shown, and the operator with them."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, modules
from cli.samples import LEASES, condition, kernel, lease, written
from runtime.conftest import NAMESPACE

from kmm import __version__
from kmm.catalog import Catalog, Refusal
from kmm.cli import status as command
from kmm.embedded.fault import Fault, Kind
from kmm.embedded.program import Exit, idle
from kmm.errors import ConfigError

DEVICE_PLUGIN = {"container": {"image": "registry.example.com/dp:1"}}
KEYS = (Path(__file__).parents[2] / "docs/status.md").read_text()


@pytest.fixture
def status(capsys, monkeypatch):
    """Run the command in this process: its exit code and its lines."""
    monkeypatch.delenv("OPERATOR_NAMESPACE", raising=False)

    def run(world, module=None, namespace=None, operator=None, output="table", user=""):
        path = world.cluster.kubeconfig(world.cluster.token(user) if user else "")
        code = command.status(module, namespace, operator, path, output, watch=False)
        out = capsys.readouterr().out
        return code, json.loads(out) if output == "json" else out.splitlines()

    return run


# ── Modules ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_life_is_seen_from_nothing_to_ready(world, status):
    found = world(nodes=3, kernels=2)
    assert status(found) == (1, ["operator: none has led here yet; `kmm run` starts one", "there are no Modules"])
    found.operator()
    eventually(found.apps[0].elector.is_leader)
    code, lines = status(found)
    assert code == 0
    assert re.fullmatch(
        rf"operator in {NAMESPACE}: \S+_\S+ since [\d-]+T[\d:]+, kmm {re.escape(__version__)}", lines[0]
    )
    assert lines[1:] == ["there are no Modules"]
    found.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(found.ready)
    code, lines = status(found)
    assert (code, lines[1:]) == (
        0,
        [
            "",
            "MODULE        STATE     LOADED  DEVICE PLUGIN  IMAGE  ATTEMPTS",
            "kmm-system/m  AllReady  3/3     3/3",
            "  6.0.0       Loaded    2/2                    ready",
            "  6.1.0       Loaded    1/1                    ready",
        ],
    )


def test_why_a_driver_is_not_loaded_and_what_to_do(world, status):
    async def program(run):
        if run.hook == "postStart" and run.node == "n1":
            return Exit(code=1, output="modprobe: ERROR: could not insert 'm': Key was rejected by service\n")
        return await idle(run)

    found = world(nodes=4, kernels=2, program=program)
    found.operator()
    found.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(lambda: "KeyRejected" in found.reasons())
    eventually(lambda: found.module()["status"]["devicePlugin"]["availableNumber"] == 3)
    code, lines = status(found)
    assert code == 1
    assert lines[3:6] == [
        "kmm-system/m  not ready: KeyRejected  3/4     3/4",
        "  6.1.0       KeyRejected             1/2                    ready",
        "  6.0.0       Loaded                  2/2                    ready",
    ]
    assert lines[7].startswith("kmm-system/m, kernel 6.1.0: KeyRejected: the kernel does not trust")
    assert "Key was rejected by service" in lines[7], "what the kernel said, however long the rest is"
    assert lines[8].startswith("  what to do: On the node: `mokutil --list-enrolled`.")
    assert len(lines) == 9, "that the device plugin waits for the driver is no news"


def test_commands_are_for_this_module(world, status):
    found = world(nodes=0)
    drivers = found.namespace()
    written(found, "m", drivers, conditions=[condition("NamespaceNotPrivileged", message="not there")])
    _, lines = status(found)
    assert f"`kubectl label namespace {drivers} " in lines[-1]
    assert lines[-2] == f"{drivers}/m: NamespaceNotPrivileged: not there"


def test_of_many_kernels_the_failed_ones_are_shown_and_the_rest_is_counted(world, status):
    found = world(nodes=0)
    kernels = [kernel(f"5.{each}.0", "Loaded", "Settled", available=2) for each in range(50)]
    kernels += [kernel(f"6.{each}.0", "BuildFailed", attempts=3, message="no space") for each in range(49)]
    kernels += [kernel("6.90.0", "Building", "Pending")]
    written(found, conditions=[condition("BuildFailed", message="kernel …")], kernels=kernels, kernelsNotShown=1000)
    code, lines = status(found)
    table = lines[2:13]
    assert code == 1
    assert [each.split()[:2] for each in table[2:10]] == [
        [each["kernelVersion"], "BuildFailed"]
        for each in sorted(kernels, key=lambda each: each["kernelVersion"])
        if each["state"] == "Failed"
    ][:8]
    assert table[2].split()[2:] == ["?/2", "BuildFailed", "3"]
    assert table[10].split("  ", 2)[1].strip() == "and 1092 more"
    assert "50 Loaded, 41 BuildFailed, 1 Building" in table[10]
    assert lines[14] == "kmm-system/m, kernels 6.0.0, 6.1.0, 6.10.0 and 46 more: BuildFailed: no space"
    assert len(lines) == 16


def test_a_module_without_nodes_is_ready_and_has_a_hint(world, status):
    found = world(nodes=0)
    lease(found)
    written(found, conditions=[condition("NoNodes", holds=True, message="no node has the labels")])
    code, lines = status(found)
    assert code == 0
    assert lines[-2] == "kmm-system/m: NoNodes: no node has the labels"
    assert "kubectl get nodes --show-labels" in lines[-1]


def test_one_module_or_one_namespace_can_be_asked_for(world, status):
    found = world(nodes=0)
    drivers = found.namespace()
    for namespace, name in ((NAMESPACE, "first"), (NAMESPACE, "second"), (drivers, "second")):
        written(found, name, namespace)

    def names(*asked):
        told = status(found, *asked, output="json")[1]["modules"]
        return [f"{each['namespace']}/{each['name']}" for each in told]

    assert names() == sorted([f"{drivers}/second", f"{NAMESPACE}/first", f"{NAMESPACE}/second"])
    assert names("second", NAMESPACE) == [f"{NAMESPACE}/second"]
    assert names(f"{drivers}/second") == [f"{drivers}/second"], "as it is printed"
    assert names(None, drivers) == [f"{drivers}/second"]
    with pytest.raises(ConfigError, match=r'no Module "secnd" in any namespace; did you mean "second"\?'):
        status(found, "secnd")


def test_nothing_that_a_terminal_would_obey_is_printed(world, status):
    found = world(nodes=0)
    nasty = "\x1b[31m\nall is well\r\u202e"
    lease(found, holder=nasty)
    written(
        found,
        conditions=[condition("LoadFailed", message=nasty * 100)],
        kernels=[kernel(nasty * 20, nasty, message=nasty, image=nasty)],
    )
    _, lines = status(found)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 600


def test_the_operator_says_what_it_is_and_which_plugins_it_refuses(world, status):
    refusals = tuple(
        Refusal(name=f"p{each}", distribution="d", version="1", reason="ImportFailed", message="secret=hunter2")
        for each in range(25)
    )
    found = world(nodes=0, catalog=Catalog(refusals=refusals))
    eventually(found.operator().elector.is_leader)
    code, lines = status(found)
    assert code == 0, "who is not used holds nobody up"
    assert lines[1:3] == ["  plugin p0 is refused: ImportFailed", "  plugin p1 is refused: ImportFailed"]
    assert lines[21:23] == [
        "  and 5 more plugins",
        "  what to do: docs/reasons.md, or `kmm plugins` where the operator runs",
    ]
    assert "hunter2" not in json.dumps(found.api.get(LEASES.format(NAMESPACE)).body)


def test_every_key_is_documented(world, status):
    refusal = Refusal(name="p", distribution="d", version="1", reason="ImportFailed", message="")
    found = world(nodes=1, kernels=1, catalog=Catalog(refusals=(refusal,)))
    found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(found.ready)
    _, told = status(found, output="json")

    def keys(value) -> Iterator[str]:
        for key, below in value.items() if isinstance(value, dict) else ():
            yield key
            yield from keys(below)
        for each in value if isinstance(value, list) else ():
            yield from keys(each)

    for key in set(keys(told)):
        assert re.search(rf"[`.]{key}(\[\])?`", KEYS), key
    documented = set(re.findall(r"^\| `([^`]+)`", KEYS, re.MULTILINE))
    assert {each.rpartition(".")[2].removesuffix("[]") for each in documented} <= set(keys(told))


# ── The operator ──────────────────────────────────────────────────────────────────────────────────────────────


def test_an_operator_that_was_stopped_is_not_there(world, status):
    found = world(nodes=0)
    app = found.operator()
    eventually(app.elector.is_leader)
    app.stop()
    code, lines = status(found)
    assert code == 1
    assert lines[0] == f"operator in {NAMESPACE}: nobody leads: the last one was stopped: look at its Deployment"


def test_an_operator_that_fell_silent_is_not_there(world, status):
    found = world(nodes=0)
    lease(found, ago_s=60, duration_s=1)
    code, told = status(found, output="json")
    assert (code, told["operators"][0]["state"], told["operators"][0]["holder"]) == (1, "Expired", "somebody")
    _, lines = status(found)
    assert "nobody leads: not a word since" in lines[0]


def test_where_the_operator_runs_can_be_said(world, status, monkeypatch):
    found = world(nodes=0)
    lease(found)
    assert status(found, operator=NAMESPACE)[0] == 0
    code, lines = status(found, operator="default")
    assert code == 1
    assert lines[0] == "operator in default: none has led there; `kmm status` without -N looks in all namespaces"
    monkeypatch.setenv("OPERATOR_NAMESPACE", "default")
    assert status(found)[0] == 1


def test_who_may_not_read_leases_sees_the_modules(world, status):
    found = world(nodes=0)
    written(found, conditions=[condition("AllReady", holds=True)])
    found.cluster.faults.add(Fault(kind=Kind.REFUSE, user="reader", resource="leases", code=403, times=None))
    code, lines = status(found, user="reader")
    assert code == 0
    assert lines[0].startswith("operator: not known: ")
    assert "kmm-system/m  AllReady" in lines[3]


# ── --watch ───────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def watching(world, *arguments):
    path = world.cluster.kubeconfig()
    # Whoever runs the tests in the background lets them inherit that interrupts are ignored.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heed}; from kmm.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "status", "--watch", "--kubeconfig", str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


def test_a_change_is_shown_and_an_interrupt_is_no_failure(world):
    found = world(nodes=0)
    lease(found, duration_s=3600)
    with watching(found, "-o", "json") as (process, lines):
        eventually(lambda: len(lines) == 1, within_s=30)
        assert json.loads(lines[0])["modules"] == []
        written(found, conditions=[condition("Loading")])
        eventually(lambda: '"Loading"' in lines[-1], within_s=30)
        many = len(lines)
        found.cluster.faults.add(Fault(kind=Kind.REFUSE, resource="modules", verbs=("list",), code=503, times=1))
        eventually(lambda: len(lines) == many + 2, "it was not there, and is back", within_s=30)
        assert "error" in json.loads(lines[many])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_watching_a_cluster_that_does_not_answer_at_all_is_an_error(world):
    found = world(nodes=0)
    found.cluster.faults.add(Fault(kind=Kind.REFUSE, resource="modules", code=503, times=1))
    with watching(found) as (process, lines):
        assert process.wait(30) == 2
        assert process.stderr.read().startswith("kmm: ")
        assert lines == []


def test_colour_is_for_terminals_alone(world, status, monkeypatch):
    found = world(nodes=0)
    written(found, conditions=[condition("AllReady", holds=True)])
    assert "\x1b" not in "".join(status(found)[1])
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: True)
    assert "\x1b[32mAllReady\x1b[0m" in "".join(status(found)[1])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(status(found)[1])
