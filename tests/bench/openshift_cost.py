"""What the driver toolkit costs: from an ImageStream's new tag to a waiting build, and looking up a kernel's image.

Run by bench.py, or by itself. The cluster, the operator and who measures are one process.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

import openshift  # noqa: E402
from apiserver.client import eventually  # noqa: E402
from apiserver.samples import a_module, core, modules  # noqa: E402
from kmm_driver_toolkit import DriverToolkit  # noqa: E402
from runtime.conftest import CONFIG, EmbeddedWorld  # noqa: E402
from world import NAMESPACE  # noqa: E402

from kmm.catalog import Plugin, build_catalog  # noqa: E402
from kmm.core.base_images import base_image_args  # noqa: E402
from kmm.core.view import KernelNodes, Listed, View  # noqa: E402
from kmm.embedded.cluster import Cluster  # noqa: E402
from kmm.loader import load_catalog  # noqa: E402
from kmm.runtime.app import Options  # noqa: E402

RELEASES, ROUNDS = 20, 3
DOCKERFILE = "ARG DTK_AUTO\nFROM ${DTK_AUTO}\nRUN make"
TOOLKITS = {f"{400 + number}.94.20240529{number:04}-0": f"{openshift.TOOLKIT}{number}" for number in range(RELEASES)}


class Empty:
    """A registry that has nothing. `asked`: how often it was asked."""

    name = "empty"
    hosts = ("*",)
    asked = 0

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        self.asked += 1


def waiting(folder: Path) -> tuple[float, list[str], int]:
    """Return the seconds from a new tag to the Build for it, what the operator asked, and registry requests."""
    with Cluster(folder=folder) as cluster:
        world = EmbeddedWorld(cluster)
        registry = Empty()
        installed = [each for each in load_catalog().plugins if not each.registries]
        plugin = Plugin(name="empty", distribution="empty", version="1", registries=(registry,))
        world.catalog = build_catalog([*installed, plugin])
        openshift.add_builds(world.api)
        openshift.add_image_streams(world.api)
        *earlier, (version, image) = TOOLKITS.items()
        openshift.set_toolkits(world.api, dict(earlier))
        for number, release in enumerate(TOOLKITS):
            system = {"osImage": f"Red Hat Enterprise Linux CoreOS {release} (Plow)"}
            world.add_node(f"n{number}", f"5.14.0-{number}")
            assert world.api.patch(f"/api/v1/nodes/n{number}/status", {"status": {"nodeInfo": system}}).code == 200
        body = {"metadata": {"name": "d"}, "data": {"dockerfile": DOCKERFILE}}
        assert world.api.post(core(NAMESPACE, "configmaps"), body).code == 201
        mapping = {
            "regexp": ".*",
            "containerImage": "registry.example.com/m:${KERNEL_FULL_VERSION}",
            "build": {"dockerfileConfigMap": {"name": "d"}},
        }
        container = {"modprobe": {"moduleName": "m"}, "kernelMappings": [mapping]}
        world.operator(Options(elect=False), config=replace(CONFIG, max_builds=RELEASES))
        try:
            assert world.api.post(modules(NAMESPACE), a_module(moduleLoader={"container": container})).code == 201
            last = f"5.14.0-{RELEASES - 1}"
            eventually(lambda: world.kernel(last)["reason"] == "BaseImageMissing", within_s=120)
            eventually(lambda: len(_builds(world)) == RELEASES - 1, within_s=120)
            world.quiet()
            before, asked = world.mark(), registry.asked
            began = time.time()
            openshift.set_toolkits(world.api, {**dict(earlier), version: image})
            eventually(lambda: len(_builds(world)) == RELEASES, within_s=120)
            made = [each for each in world.entries(before) if (each.verb, each.resource) == ("create", "builds")]
            eventually(lambda: world.kernel(last)["reason"] == "Building", within_s=120)
            world.quiet()
            said = [f"{each.verb} {each.resource}" for each in world.entries(before) if each.user == world.user]
            return made[0].at_s - began, said, registry.asked - asked
        finally:
            world.stop()


def _builds(world):
    return world.api.get(openshift.builds(NAMESPACE)).body["items"]


def look_up() -> float:
    """Return the microseconds of looking up the toolkit of one kernel among all."""
    offer = DriverToolkit()
    view = View(base_images={offer.argument: Listed(by_version=TOOLKITS)})
    offers = {offer.argument: lambda: offer}
    kernels = [
        (
            f"5.14.0-{number}",
            KernelNodes(nodes=250, os_images=frozenset({f"Red Hat Enterprise Linux CoreOS {release}"})),
        )
        for number, release in enumerate(TOOLKITS)
    ]
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        for kernel, nodes in kernels:
            list(base_image_args(DOCKERFILE, (), kernel, nodes, view, offers))
        taken.append((time.perf_counter() - began) / len(kernels) * 1e6)
    return statistics.median(taken)


def measure() -> None:
    print(f"\nthe driver toolkit, {RELEASES} kernels and {RELEASES} releases")
    print(f"  the toolkit of one kernel is looked up in {look_up():.0f} µs")
    seconds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            taken_s, said, asked = waiting(Path(folder))
        seconds.append(taken_s)
    print(
        f"  from a new tag to the Build that waited for it: {statistics.median(seconds) * 1e3:.0f} ms (at most "
        f"{max(seconds) * 1e3:.0f}), {len(said)} requests ({', '.join(sorted(said))}), {asked} to registries"
    )


if __name__ == "__main__":
    measure()
