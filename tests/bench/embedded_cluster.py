"""The embedded cluster's figures: requests a second, memory, start-up, with 5,000 nodes of 11 kB.

Run by bench.py; `serve` is the process that is measured, `ask` one of those that ask it.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path

NODES = 5_000
SECONDS = 3.0


def realistic(node: dict) -> None:
    """Make a node as large as they are: 11 kB, most of it the list of images."""
    node["metadata"]["labels"] |= {f"feature.node.kubernetes.io/cpu-feature-{n}": "true" for n in range(40)}
    node["metadata"]["annotations"] = {f"csi.volume.kubernetes.io/annotation-{n}": "x" * 60 for n in range(10)}
    node["status"]["images"] = [
        {
            "names": [
                f"registry.example.com/team-{n}/image@sha256:{n:064d}",
                f"registry.example.com/team-{n}/image:v1.{n}",
            ],
            "sizeBytes": 123_456_789 + n,
        }
        for n in range(32)
    ]


def memory(pid: int | str = "self") -> dict[str, float]:
    """Return what a process has in memory, and the most it had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}


def serve() -> None:
    began = time.perf_counter()
    from kmm.embedded.cluster import Cluster  # noqa: PLC0415 -- part of what is measured

    imported = time.perf_counter()
    with Cluster() as cluster:
        started = time.perf_counter()
        empty = memory()
        for number in range(NODES):
            cluster.add_node(f"node-{number}", f"6.1.0-{number % 3}", more=realistic)
        filled = time.perf_counter()
        size = len(cluster.call(lambda: cluster.objects.get(cluster.objects.resource("Node"), "", "node-7").body))
        say = {
            "url": cluster.url,
            "ca": str(cluster.ca_file),
            "token": cluster.admin_token,
            "import_s": imported - began,
            "start_s": started - imported,
            "fill_s": filled - started,
            "empty": empty,
            "filled": memory(),
            "size": size,
        }
        print(json.dumps(say), flush=True)
        sys.stdin.readline()
        print(json.dumps(memory()), flush=True)


def ask(url: str, ca: str, token: str, what: str) -> None:
    host, _, port = url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=ssl.create_default_context(cafile=ca))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
    count, until, taken = 0, time.perf_counter() + SECONDS, []
    while time.perf_counter() < until:
        count += 1
        began = time.perf_counter()
        node = f"/api/v1/nodes/node-{count % NODES}"
        if what == "get":
            connection.request("GET", node, headers=headers)
        elif what == "patch":
            body = json.dumps({"metadata": {"labels": {"x": f"{time.time_ns()}"}}})
            connection.request("PATCH", node, body, headers)
        else:
            connection.request("GET", "/api/v1/nodes?limit=250", headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            raise SystemExit(content.decode())
        taken.append(time.perf_counter() - began)
    taken.sort()
    print(count / SECONDS, taken[len(taken) // 2] * 1e3, taken[int(len(taken) * 0.99)] * 1e3)


def measure() -> None:
    with subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin
        assert server.stdout
        said = json.loads(server.stdout.readline())
        print(f"\nembedded cluster, {NODES:,} nodes of {said['size'] / 1000:.1f} kB, over HTTPS")
        print(f"  import {said['import_s'] * 1e3:.0f} ms, start {said['start_s'] * 1e3:.0f} ms, ", end="")
        print(f"{NODES:,} nodes joined in {said['fill_s']:.1f} s")
        for what, name in (("get", "get a node"), ("patch", "merge-patch a node"), ("list", "a page of 250 nodes")):
            clients = [
                subprocess.Popen(
                    [sys.executable, __file__, "ask", said["url"], said["ca"], said["token"], what],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for _ in range(2)
            ]
            found = [[float(each) for each in client.communicate()[0].split()] for client in clients]
            print(
                f"  {name:24} {sum(each[0] for each in found):8,.0f} requests/s   "
                f"median {found[0][1]:5.2f} ms   p99 {found[0][2]:6.2f} ms"
            )
        server.stdin.write("\n")
        server.stdin.flush()
        last = json.loads(server.stdout.readline())
        print(
            f"  memory: empty {said['empty']['VmRSS']:.0f} MiB, "
            f"filled {said['filled']['VmRSS']:.0f} MiB, peak with all that {last['VmHWM']:.0f} MiB"
        )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        ask(*sys.argv[2:])
