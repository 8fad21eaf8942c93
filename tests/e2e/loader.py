"""What a kubelet and a container runtime do with loaders' pods, done in a virtual machine that is the node."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from e2e.contained import Contained
from e2e.container import contained, make_image
from e2e.debian import Toolkit, write_layout
from e2e.machine import Machine
from e2e.program_layer import program_layer
from e2e.site import Site
from e2e.verdict import kmod_layer

from kmm.core import names
from kmm.embedded.image import image
from kmm.embedded.program import Exit, Run

PULLED_WITHIN_S = 600
KILLED = 137
"""How a container ends that was killed."""


class Loader:
    """Runs loaders in `machine`. `access`: skopeo's options for the registry that their images are pulled from.

    `said`: how hooks ended, and the container (the hook is empty then), by the pod's Module and the hook, the latest.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.access: list[str] = []
        self._containers: dict[str, asyncio.Task[Contained]] = {}
        self.said: dict[tuple[str, str], Exit] = {}

    async def __call__(self, run: Run) -> Exit:
        uid, module = run.pod["metadata"]["uid"], run.pod["metadata"]["labels"][names.MODULE_NAME]
        if uid not in self._containers:  # it is the same one where it is started again
            self._containers[uid] = asyncio.create_task(asyncio.to_thread(self._contained, run))
        container = await asyncio.shield(self._containers[uid])
        if run.hook:
            return await asyncio.to_thread(self._hook, container, run, module)
        number = await asyncio.to_thread(container.start, run.argv)
        try:
            await run.stopped.wait()
        finally:
            done = await asyncio.to_thread(self._kill, number, module)
        return done

    # What they do is done, and told, also where the kubelet no longer waits for it.

    def _hook(self, container: Contained, run: Run, module: str) -> Exit:
        done = self.said[module, run.hook] = container.run(run.argv)
        return done

    def _kill(self, number: str, module: str) -> Exit:
        killed = self._machine.run(f"kill -KILL {number}")
        done = self.said[module, ""] = Exit(code=killed.code or KILLED)
        return done

    def _contained(self, run: Run) -> Contained:
        asked = run.container["securityContext"]
        assert not asked.get("privileged")
        assert not asked["allowPrivilegeEscalation"]
        assert asked["runAsUser"] == 0
        volumes = {each["name"]: each["hostPath"]["path"] for each in run.pod["spec"]["volumes"]}
        return Contained(
            self._machine,
            run.pod["metadata"]["uid"],
            self._layers(run.container["image"]),
            mounts={
                each["mountPath"]: (volumes[each["name"]], each.get("readOnly", False))
                for each in run.container["volumeMounts"]
            },
            added=[each.lower() for each in asked["capabilities"]["add"]],
        )

    def _layers(self, image: str) -> Iterator[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            command = ["skopeo", "copy", "--quiet", *self.access, f"docker://{image}", f"dir:{folder}"]
            subprocess.run(command, check=True, capture_output=True, timeout=PULLED_WITHIN_S)
            for each in json.loads(Path(folder, "manifest.json").read_bytes())["layers"]:
                layer = Path(folder, each["digest"].removeprefix("sha256:")).read_bytes()
                layer = gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer
                with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                    assert not any("/.wh." in f"/{name}" for name in tar.getnames()), "nothing takes files away here"
                yield layer


def loading_site(folder: Path, stack: ExitStack, tools: Toolkit, loader: Loader) -> Site:
    """Return a cluster that builds, signs and loads. Images to begin from are `base/toolkit:1`, `base/kmod:1`."""
    buildahs = make_image(folder / "image")

    async def container(run: Run) -> Exit:
        return await contained(run, buildahs)

    made = Site(
        folder,
        stack,
        release=tools.kernel,
        busybox=tools.busybox,
        builder="buildah",
        container=container,
        loader=loader,
    )
    loader.access = made.access("src-")
    shell = program_layer(Path("/bin/dash"), ["sh"])  # busybox's would take its own modprobe
    write_layout(image([made.programs, kmod_layer(), shell]), folder / "kmod")
    for name, layout in (("toolkit", tools.layout), ("kmod", folder / "kmod")):
        target = f"docker://{made.host}/base/{name}:1"
        command = ["skopeo", "copy", "--quiet", *made.access("dest-"), f"oci:{layout}", target]
        subprocess.run(command, check=True, capture_output=True, timeout=PULLED_WITHIN_S)
    return made
