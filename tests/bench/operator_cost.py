"""What the operator costs: memory by nodes, CPU by node updates, requests, and how soon a new kernel has its loader.

Run by bench.py; `serve` is the cluster, in a process of its own, so that the operator is measured alone.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from embedded_cluster import memory, realistic

UPDATES, RATE = 1_000, 100
NAMESPACE = "kmm-system"
KMM = Path(sys.executable).parent / "kmm"


def serve(nodes: int, folder: str) -> None:
    from kmm.api.crd import custom_resource_definition  # noqa: PLC0415 -- of the process that serves alone
    from kmm.api.kinds import KINDS  # noqa: PLC0415
    from kmm.embedded.cluster import Cluster  # noqa: PLC0415
    from kmm.embedded.kubelet import Pace  # noqa: PLC0415

    with Cluster(folder=folder, pace=Pace(relist_s=0.05)) as cluster:
        create, resource = cluster.objects.create, cluster.objects.resource
        for kind in KINDS:
            cluster.call(create, resource("CustomResourceDefinition"), "", custom_resource_definition(kind))
        cluster.call(create, resource("Namespace"), "", {"metadata": {"name": NAMESPACE}})
        for number in range(nodes):
            cluster.add_node(f"node-{number}", f"6.1.0-{number % 3}", labels={"a": "b"}, more=realistic)
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            cluster.call(create, resource("ServiceAccount"), NAMESPACE, {"metadata": {"name": name}})
        operator = str(cluster.kubeconfig(cluster.token("operator")))
        say = {"url": cluster.url, "ca": str(cluster.ca_file), "token": cluster.admin_token, "operator": operator}
        print(json.dumps(say), flush=True)
        for _ in sys.stdin:
            asked = [each for each in cluster.log if each.user == "operator" and each.resource != "leases"]
            print(len(asked), flush=True)


class Api:
    def __init__(self, said: dict[str, str]) -> None:
        host, _, port = said["url"].removeprefix("https://").partition(":")
        context = ssl.create_default_context(cafile=said["ca"])
        self._connection = http.client.HTTPSConnection(host, int(port), context=context)
        self._token = said["token"]

    def ask(self, method: str, path: str, body: object = None) -> dict:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        return json.loads(self._connection.getresponse().read())


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def eventually(look, every_s: float = 0.002) -> None:
    until = time.monotonic() + 300
    while not look():
        if time.monotonic() > until:
            raise SystemExit("the operator did not get there")
        time.sleep(every_s)


def measure() -> None:
    print("\nkmm run against the embedded cluster           VmRSS   peak   (MiB)")
    for nodes in (10, 1_000, 5_000):
        one(nodes, more=nodes == 1_000)


def one(nodes: int, *, more: bool) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, __file__, "serve", str(nodes), folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as server,
    ):  # fmt: skip
        assert server.stdin
        assert server.stdout
        said = json.loads(server.stdout.readline())

        def asked() -> int:
            assert server.stdin
            assert server.stdout
            server.stdin.write("\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        api = Api(said)
        environment = {
            **os.environ,
            "OPERATOR_NAMESPACE": NAMESPACE,
            "KMM_METRICS_ADDRESS": "127.0.0.1:0",
            "KMM_HEALTH_ADDRESS": "127.0.0.1:0",
        }
        with subprocess.Popen(
            [KMM, "run", "--kubeconfig", said["operator"]], env=environment, stderr=subprocess.DEVNULL
        ) as operator:
            try:
                labelled = "/api/v1/nodes?limit=1&labelSelector=!kmm.node.kubernetes.io/kernel-version.full"
                eventually(lambda: not api.ask("GET", labelled)["items"], every_s=0.2)
                found = memory(operator.pid)
                rss, peak = found["VmRSS"], found["VmHWM"]
                print(f"  {nodes:5,} nodes of 10 kB, all labelled            {rss:6.1f}  {peak:6.1f}")
                if more:
                    cost(api, operator.pid, nodes, asked)
                operator.terminate()
                operator.wait(15)
            finally:
                operator.kill()  # one that does not get there would be waited for


def cost(api: Api, pid: int, nodes: int, asked) -> None:
    from apiserver.samples import a_module, modules, sets  # noqa: PLC0415 -- bench.py knows where, `serve` does not

    time.sleep(3)
    before = asked()
    path = modules(NAMESPACE)
    api.ask("POST", path, a_module(selector={"kubernetes.io/hostname": "node-0"}))

    def ready() -> bool:
        conditions = api.ask("GET", f"{path}/m").get("status", {}).get("conditions", ())
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    eventually(ready)
    time.sleep(3)
    print(f"  requests from a Module's creation (1 node) to ready: {asked() - before}")
    taken = []
    for number in range(100):
        kernel = f"6.9.{number}"
        began = time.perf_counter()
        api.ask("PATCH", "/api/v1/nodes/node-0/status", {"status": {"nodeInfo": {"kernelVersion": kernel}}})
        eventually(
            lambda kernel=kernel: any(
                each["metadata"]["annotations"]["kmm.node.kubernetes.io/kernel"] == kernel
                for each in api.ask("GET", sets(NAMESPACE))["items"]
            )
        )
        taken.append((time.perf_counter() - began) * 1e3)
    taken.sort()
    p50, p99 = statistics.median(taken), taken[98]
    print(f"  a node's new kernel to its new DaemonSet, 100 times: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    time.sleep(4)
    before, began_cpu = asked(), cpu_s(pid)
    for number in range(UPDATES):
        began = time.perf_counter()
        patch = {"status": {"addresses": [{"type": "Hostname", "address": f"h{number}"}]}}
        api.ask("PATCH", f"/api/v1/nodes/node-{1 + number % (nodes - 1)}/status", patch)
        time.sleep(max(0.0, 1 / RATE - (time.perf_counter() - began)))
    time.sleep(1)
    print(
        f"  {UPDATES:,} updates of nodes at {RATE}/s: {cpu_s(pid) - began_cpu:.2f} s of CPU, "
        f"{asked() - before} requests, peak {memory(pid)['VmHWM']:.1f} MiB"
    )


if __name__ == "__main__":
    serve(int(sys.argv[2]), sys.argv[3])
