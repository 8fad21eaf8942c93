"""What building costs beside the build: the time until its image is found, requests, memory; and that nothing polls.

The cluster and the registry are a process of their own (`serve`), where a build takes as long as its argument says;
the operator is `kmm run`. Run by bench.py, or by itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from apiserver.samples import a_module, core, modules
from embedded_cluster import memory
from operator_cost import KMM, NAMESPACE, Api, cpu_s, eventually

BUILDS = 10  # one after the other
KERNELS, AT_ONCE = 50, 5
RESTS_S = 3.0  # as long nothing is asked: all is done
WATCHED_S = 10.0
REPOSITORY = "team/driver"
TEMPLATE = "${MOD_NAME}-${KERNEL_FULL_VERSION}"
FILES = {"/opt/lib/modules/driver.ko": b"driver"}


def serve(nodes: int, folder: str) -> None:
    """Serve until standard input ends; each line asks what there was so far."""
    from kmm.api.crd import custom_resource_definition  # noqa: PLC0415 -- of the process that serves alone
    from kmm.api.kinds import KINDS  # noqa: PLC0415
    from kmm.embedded.cluster import Cluster  # noqa: PLC0415
    from kmm.embedded.kubelet import Pace  # noqa: PLC0415
    from kmm.embedded.program import Exit, Run, idle  # noqa: PLC0415
    from kmm.embedded.registry import Registry  # noqa: PLC0415

    builds: list[dict[str, float]] = []

    async def program(run: Run) -> Exit:
        if run.hook or run.container["name"] != "kaniko":
            return await idle(run)
        said = dict(each.removeprefix("--").split("=", 1) for each in run.argv if "=" in each)
        given = [each.split("=", 2) for each in run.argv if each.startswith("--build-arg=")]
        began = time.time()
        await asyncio.sleep(next(float(value) for _, name, value in given if name == "SECONDS"))
        await asyncio.to_thread(registry.push_image, said["destination"].partition("/")[2], FILES)
        builds.append({"began": began, "ended": time.time()})
        return Exit()

    with (
        Registry(auth="bearer", users={"user": "password"}) as registry,
        Cluster(folder=folder, program=program, pace=Pace(relist_s=0.05)) as cluster,
    ):
        create, resource = cluster.objects.create, cluster.objects.resource
        for kind in KINDS:
            cluster.call(create, resource("CustomResourceDefinition"), "", custom_resource_definition(kind))
        cluster.call(create, resource("Namespace"), "", {"metadata": {"name": NAMESPACE}})
        for number in range(nodes):
            cluster.add_node(f"node-{number}", f"6.1.{number}", labels={"a": "b"})
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            cluster.call(create, resource("ServiceAccount"), NAMESPACE, {"metadata": {"name": name}})
        say = {
            "url": cluster.url,
            "ca": str(cluster.ca_file),
            "token": cluster.admin_token,
            "operator": str(cluster.kubeconfig(cluster.token("operator"))),
            "registry": registry.host,
            "registry_ca": str(registry.ca_file),
            "login": registry.docker_config("user"),
        }
        print(json.dumps(say), flush=True)
        for _ in sys.stdin:
            report = {
                "asked": [
                    [each.verb, each.resource, each.at_s]
                    for each in cluster.log
                    if each.user == "operator" and each.resource != "leases"
                ],
                "applied": [
                    each.at_s
                    for each in cluster.log
                    if (each.verb, each.resource) == ("create", "modules") and each.user != "operator"
                ],
                "registry": [[each.kind, each.status, each.at_s] for each in registry.log],
                "builds": builds,
            }
            print(json.dumps(report), flush=True)


class Site:
    """A cluster, a registry and an operator that builds by kaniko's Jobs."""

    def __init__(self, server: subprocess.Popen[str], folder: str) -> None:
        self._server = server
        self.said = self._read()
        self.api = Api(self.said)
        self.pid = 0
        self.config = Path(folder, "config.json")  # which is YAML too
        options = {"oci": {"allowAddresses": ["127.0.0.0/8"]}}
        told = {"caFile": self.said["registry_ca"], "builder": "kaniko", "plugins": {"options": options}}
        self.config.write_text(json.dumps(told))
        login = base64.b64encode(self.said["login"].encode()).decode()
        secret = {"metadata": {"name": "login"}, "type": "kubernetes.io/dockerconfigjson"}
        self.api.ask("POST", core(NAMESPACE, "secrets"), {**secret, "data": {".dockerconfigjson": login}})
        dockerfile = {"metadata": {"name": "d"}, "data": {"dockerfile": "FROM scratch"}}
        self.api.ask("POST", core(NAMESPACE, "configmaps"), dockerfile)

    def _read(self) -> dict[str, Any]:
        assert self._server.stdout
        return dict(json.loads(self._server.stdout.readline()))

    def report(self) -> dict[str, Any]:
        assert self._server.stdin
        self._server.stdin.write("\n")
        self._server.stdin.flush()
        return self._read()

    def apply(self, name: str, seconds: float) -> None:
        """Make a Module whose builds take so long."""
        mapping = {"regexp": ".", "containerImage": f"{self.said['registry']}/{REPOSITORY}:{TEMPLATE}"}
        build = {"dockerfileConfigMap": {"name": "d"}, "buildArgs": [{"name": "SECONDS", "value": str(seconds)}]}
        container = {"modprobe": {"moduleName": "m"}, "kernelMappings": [mapping], "build": build}
        module = a_module(name, moduleLoader={"container": container}, imageRepoSecret={"name": "login"})
        self.api.ask("POST", modules(NAMESPACE), module)

    def ready(self, name: str) -> bool:
        status = self.api.ask("GET", f"{modules(NAMESPACE)}/{name}").get("status", {})
        return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))

    def rest(self) -> dict[str, Any]:
        """Wait until nobody asks anything; return what there was."""
        while True:
            before = self.report()
            time.sleep(RESTS_S)
            after = self.report()
            if len(after["asked"]) == len(before["asked"]) and len(after["registry"]) == len(before["registry"]):
                return after


@contextmanager
def site(nodes: int) -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, __file__, "serve", str(nodes), folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as server,
    ):  # fmt: skip
        made = Site(server, folder)
        environment = {
            **os.environ,
            "OPERATOR_NAMESPACE": NAMESPACE,
            "KMM_METRICS_ADDRESS": "127.0.0.1:0",
            "KMM_HEALTH_ADDRESS": "127.0.0.1:0",
        }
        command = [KMM, "run", "--kubeconfig", made.said["operator"], "--config", made.config]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as operator:
            try:
                labelled = "/api/v1/nodes?limit=1&labelSelector=!kmm.node.kubernetes.io/kernel-version.full"
                eventually(lambda: not made.api.ask("GET", labelled)["items"], every_s=0.2)
                made.pid = operator.pid
                yield made
                operator.terminate()
                operator.wait(15)
            finally:
                operator.kill()  # one that does not get there would be waited for


def since(before: dict[str, Any], after: dict[str, Any]) -> tuple[Counter[str], Counter[str]]:
    """Return what the API server and the registry were asked between two reports."""
    asked = Counter(f"{verb} {resource}" for verb, resource, _ in after["asked"][len(before["asked"]) :])
    return asked, Counter(kind for kind, *_ in after["registry"][len(before["registry"]) :])


def told(counted: Counter[str]) -> str:
    return f"{counted.total()} ({', '.join(f'{count} {what}' for what, count in sorted(counted.items())) or 'none'})"


def first(before: dict[str, Any], after: dict[str, Any], kind: str, looks: Callable[[Any], bool]) -> float:
    """Return when something was asked first after a report."""
    return float(next(each for each in after[kind][len(before[kind]) :] if looks(each))[-1])


def one_by_one(there: Site) -> None:
    there.apply("warms-up", 0.1)
    eventually(lambda: there.ready("warms-up"), every_s=0.2)
    rows: list[tuple[float, float, float]] = []
    after = there.rest()
    for number in range(BUILDS):
        before = after
        there.apply(f"m{number}", 1.0)
        time.sleep(2)  # who looks meanwhile takes the machine's time
        eventually(lambda number=number: there.ready(f"m{number}"), every_s=0.5)
        after = there.rest()
        (build,) = after["builds"][len(before["builds"]) :]
        (applied,) = after["applied"][len(before["applied"]) :]
        job = first(before, after, "asked", lambda each: each[:2] == ["create", "jobs"])
        found = first(before, after, "registry", lambda each: each[:2] == ["manifest", 200])
        rows.append((found - applied - (build["ended"] - build["began"]), job - applied, found - build["ended"]))
    over, to_job, from_end = ([each * 1e3 for each in column] for column in zip(*rows, strict=True))
    print(
        f"  a Module applied to its image found, less the build's own time: median {statistics.median(over):.0f} ms, "
        f"most {max(over):.0f} ms, of {BUILDS}"
    )
    print(
        f"    of that to the Job {statistics.median(to_job):.0f} ms, from the container's end "
        f"{statistics.median(from_end):.0f} ms; the rest is the cluster's"
    )
    asked, registry = since(before, after)
    events = Counter({each: asked.pop(each) for each in list(asked) if each.endswith(" events")})
    print(f"    requests until it is loaded: API {told(asked)}, events {events.total()}, registry {told(registry)}")


def nothing_polls(there: Site) -> None:
    before = there.rest()
    there.apply("long", WATCHED_S + 3 * RESTS_S + 5)
    began = len(before["asked"])
    eventually(lambda: any(each[:2] == ["create", "jobs"] for each in there.report()["asked"][began:]), every_s=0.1)
    before = there.rest()
    used = cpu_s(there.pid)
    time.sleep(WATCHED_S)
    asked, registry = since(before, there.report())
    print(
        f"  while a build runs, in {WATCHED_S:.0f} s: API requests {told(asked)}, registry {told(registry)}, "
        f"{(cpu_s(there.pid) - used) * 1e3:.0f} ms of CPU"
    )
    eventually(lambda: there.ready("long"), every_s=0.5)


def many() -> None:
    with site(KERNELS) as there:
        before, rss, used = there.rest(), memory(there.pid)["VmRSS"], cpu_s(there.pid)
        there.apply("many", 1.0)
        eventually(lambda: there.ready("many"), every_s=0.5)
        after = there.rest()
        builds = after["builds"]
        if len(builds) != KERNELS:
            raise RuntimeError(f"{len(builds)} builds for {KERNELS} kernels")
        edges = sorted([(each["began"], 1) for each in builds] + [(each["ended"], -1) for each in builds])
        most = max(sum(step for _, step in edges[: number + 1]) for number in range(len(edges)))
        ended = max(each["ended"] for each in builds)
        lasted = sum(each["ended"] - each["began"] for each in builds) / AT_ONCE
        asked, registry = since(before, after)
        peak = memory(there.pid)["VmHWM"]
        print(
            f"  {KERNELS} kernels at once, builds of 1 s: {ended - after['applied'][-1]:.1f} s "
            f"({lasted:.1f} s without us), at most {most} at once, {cpu_s(there.pid) - used:.1f} s of CPU"
        )
        print(f"    memory: {rss:.1f} MiB before, peak {peak:.1f} MiB")
        print(f"    requests: API {told(asked)}, registry {told(registry)}")


def measure() -> None:
    print("\nbuilds by Jobs, kmm run against the embedded cluster and registry (HTTPS, Bearer tokens)")
    with site(1) as there:
        one_by_one(there)
        nothing_polls(there)
    many()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        measure()
