"""The figures that the issues ask for, measured here and now: `make bench`. Nothing in it fails on time."""

from __future__ import annotations

import copy
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/cli")]

import build_cost  # noqa: E402
import embedded_cluster  # noqa: E402
import hsm_cost  # noqa: E402
import image_signing_cost  # noqa: E402
import openshift_cost  # noqa: E402
import operator_cost  # noqa: E402
import plugin_cost  # noqa: E402
import registry_cost  # noqa: E402
import secure_boot_cost  # noqa: E402
import signing_cost  # noqa: E402

from kmm.admission import judge  # noqa: E402
from kmm.api.manifest import documents  # noqa: E402
from kmm.api.module import Module  # noqa: E402
from kmm.api.schema import load  # noqa: E402
from kmm.contract import ModuleRef  # noqa: E402
from kmm.core import names  # noqa: E402
from kmm.core.node import plan_node  # noqa: E402
from kmm.core.placement import Node, by_kernel, targeted  # noqa: E402
from kmm.core.spoke import plan_module  # noqa: E402
from kmm.core.view import Operator, Pod, Subject, View  # noqa: E402
from kmm.loader import load_catalog  # noqa: E402


def median_us(function, repeats: int = 15, times: int = 200) -> float:
    function()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(times):
            function()
        taken.append((time.perf_counter() - began) / times * 1e6)
    return statistics.median(taken)


def child(code: str, *arguments: str) -> tuple[float, float]:
    """Return the median seconds and the largest resident MiB of fresh interpreters that run `code`."""
    # Not ru_maxrss, which counts what the parent had when it forked.
    report = (
        "\nimport sys; print(*[l.split()[1] for l in open('/proc/self/status') if 'VmHWM' in l], file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(ROOT / ".cache/pycache")}
    seconds, memory = [], []
    for _ in range(6):
        began = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-c", code + report, *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        seconds.append(time.perf_counter() - began)
        memory.append(int(ran.stderr.splitlines()[-1]) / 1024)
    return statistics.median(seconds[1:]), max(memory)


def validation() -> None:
    catalog = load_catalog()
    print("\nvalidation of one Module                     load µs   judge µs   read YAML µs")
    for name in ("prebuilt", "build", "device-plugin"):
        text = (ROOT / f"examples/{name}.yaml").read_bytes()
        module = next(each.value for each in documents(text) if each.value["kind"] == "Module")
        print(
            f"  {name:40}  {median_us(lambda m=module: load(Module, m)):7.0f}   "
            f"{median_us(lambda m=module: judge(m, catalog)):7.0f}   "
            f"{median_us(lambda t=text: documents(t), times=50):7.0f}"
        )
    large = copy.deepcopy(module)
    container = large["spec"]["moduleLoader"]["container"]
    container["kernelMappings"] = [{"literal": f"6.1.0-{n}", "containerImage": "a"} for n in range(1024)]
    print(f"  {'with 1,024 kernel mappings':40}  {median_us(lambda: load(Module, large), 3, 2):7.0f}")


def imports() -> None:
    empty_s, empty_mib = child("pass")
    print(f"\nimport, over an empty interpreter ({empty_s * 1e3:.0f} ms, {empty_mib:.0f} MiB)      ms    MiB")
    for name, code in {
        "kmm.contract": "import kmm.contract",
        "kmm.api": "import kmm.api.kinds, kmm.api.manifest",
        "what kmm run imports": "import kmm.runtime.process",
        "the same, plugins loaded": "import kmm.admission, kmm.config; from kmm.loader import load_catalog as l; l()",
        "kmm --version": "import sys; sys.argv = ['kmm', '--version']\ntry:\n  import kmm.cli; kmm.cli.main()\n"
        "except SystemExit: pass",
    }.items():
        seconds, mib = child(code)
        print(f"  {name:44}  {(seconds - empty_s) * 1e3:6.0f}   {mib - empty_mib:5.1f}")


def worst_input() -> None:
    from test_commands import WORST  # noqa: PLC0415 -- the tests' own table

    print("\nkmm validate of the worst files (bounds: 1 s, 200 MB)      s    MiB")
    code = "import sys; sys.argv[0] = 'kmm'\ntry:\n  from kmm.cli import main; main()\nexcept SystemExit: pass"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in WORST.items():
            path = Path(folder) / f"{name}.yaml"
            path.write_text(text)
            seconds, mib = child(code, "validate", str(path))
            print(f"  {name:52}  {seconds:5.2f}   {mib:4.0f}")


def planning() -> None:
    catalog = load_catalog()
    made = documents((ROOT / "examples/device-plugin.yaml").read_bytes())[0].value
    spec = judge(made, catalog).value.spec
    subject = Subject(ref=ModuleRef(namespace="drivers", name="kmm-ci-a"), uid="u", spec=spec)
    operator = Operator(privileged_namespaces=frozenset({"drivers"}))
    print("\nplan_module, one Module with a device plugin           ms   (the view from scratch: ms)")
    for nodes, kernels in ((500, 6), (5000, 6), (5000, 1), (5000, 60)):
        cluster = [
            Node(
                name=f"n{n}",
                kernel=f"6.1.0-{n % kernels}-amd64",
                labels={**spec.selector, "n": str(n)},
                architecture="amd64",
            )
            for n in range(nodes)
        ]
        gathering = median_us(lambda c=cluster: by_kernel(targeted(spec, c)), 5, 1) / 1e3
        targets = by_kernel(targeted(spec, cluster))
        first = View(targets=targets, kernels=frozenset(targets), operator=operator)
        planned = median_us(lambda v=first: plan_module(subject, v, catalog, 0.0), 7, 5) / 1e3
        print(
            f"  {nodes:5,} nodes, {kernels:2} kernels, nothing there yet          {planned:6.2f}   ({gathering:.2f})"
        )
    pods = [
        Pod(
            name="p",
            uid="p",
            module=ModuleRef(namespace="n", name=f"m{n}"),
            module_uid=f"u{n}",
            role=names.LOADER,
            node="n",
            kernel="6.1",
            ready=True,
        )
        for n in range(10)
    ]
    modules = {pod.module: pod.module_uid for pod in pods}
    labels = {
        f"kmm.node.kubernetes.io/{name}": "" for m in modules for name in (f"n.{m.name}.ready", f"{m.name}.ready")
    }
    node = Node(name="n", kernel="6.1", labels={**labels, names.KERNEL: "6.1"})
    kernels = frozenset(f"6.{n}" for n in range(6))
    taken = median_us(lambda: plan_node(node, pods, modules, kernels))
    print(f"plan_node, 10 Modules ready, nothing to change       {taken:6.0f} µs")


def lines() -> None:
    print("\nlines of Python by folder")
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    count: dict[str, int] = {}
    for name in tracked.split():
        parts = Path(name).parts
        folder = "/".join(parts[:2]) if parts[0] in ("kmm", "plugins") and len(parts) > 2 else parts[0]
        count[folder] = count.get(folder, 0) + len((ROOT / name).read_text().splitlines())
    for folder, number in sorted(count.items()):
        print(f"  {folder:44}  {number:6,}")


def main() -> None:
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
    validation()
    imports()
    planning()
    worst_input()
    embedded_cluster.measure()
    operator_cost.measure()
    registry_cost.measure()
    build_cost.measure()
    signing_cost.measure()
    hsm_cost.measure()
    openshift_cost.measure()
    image_signing_cost.measure()
    plugin_cost.measure()
    secure_boot_cost.measure()
    lines()


if __name__ == "__main__":
    main()
