"""What the kubelet reads for a pod: its volumes as real folders, its environment."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kmm.embedded.objects import Objects


class Absent(Exception):
    """Something that a pod needs is not there; the text is the kubelet's."""


class Volumes:
    """The volumes of one pod, below a folder of its own. `hosts`: where nodes' own files are."""

    def __init__(self, objects: Objects, pod: Mapping[str, Any], folder: Path, kernel: str) -> None:
        self._objects, self._pod, self._folder, self._kernel = objects, pod, folder, kernel
        self._namespace: str = pod["metadata"]["namespace"]

    def check(self) -> None:
        """Look whether all that the volumes name is there.

        Raises:
            Absent: what is not, as the FailedMount event says it.
        """
        for volume in self._pod["spec"].get("volumes") or ():
            try:
                self._check(volume)
            except Absent as absent:
                raise Absent(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {absent}') from absent

    def mounts(self, container: Mapping[str, Any]) -> dict[str, Path]:
        """Write the volumes of a container; return its mount paths with the real ones."""
        volumes = {volume["name"]: volume for volume in self._pod["spec"].get("volumes") or ()}
        self._folder.mkdir(0o700, parents=True, exist_ok=True)  # for whatever the files in it allow
        found = {}
        for mount in container.get("volumeMounts") or ():
            place = self._write(volumes[mount["name"]])
            found[mount["mountPath"].rstrip("/")] = _inside(place, mount.get("subPath", ""))
        log = self._folder / f"{container['name']}.termination-log"
        log.write_bytes(b"")
        found[container.get("terminationMessagePath", "/dev/termination-log")] = log
        return found

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Return the environment of a container.

        Raises:
            Absent: a Secret, ConfigMap or key is not there.
        """
        found: dict[str, str] = {}
        for source in container.get("envFrom") or ():
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    data = self._data(kind, source[key])
                    prefix = source.get("prefix", "")
                    found |= {prefix + name: value.decode(errors="replace") for name, value in data.items()}
        for variable in container.get("env") or ():
            if (value := self._value(variable, found)) is not None:
                found[variable["name"]] = value
        return found

    def _value(self, variable: Mapping[str, Any], known: Mapping[str, str]) -> str | None:
        source = variable.get("valueFrom")
        if not source:
            return expanded(variable.get("value", ""), known)
        if "fieldRef" in source:
            value: Any = self._pod
            for step in source["fieldRef"]["fieldPath"].split("."):
                value = value.get(step, "") if isinstance(value, Mapping) else ""
            return str(value)
        for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            if key in source:
                reference = source[key]
                data = self._data(kind, reference)
                if reference["key"] in data:
                    return data[reference["key"]].decode(errors="replace")
                if reference.get("optional"):
                    return None
                raise Absent(f"couldn't find key {reference['key']} in {kind} {self._namespace}/{reference['name']}")
        return ""

    def _data(self, kind: str, reference: Mapping[str, Any]) -> dict[str, bytes]:
        name = reference.get("name") or reference.get("secretName", "")
        record = self._objects.storage.get(self._objects.resource(kind), self._namespace, name)
        if record is None:
            if reference.get("optional"):
                return {}
            raise Absent(f'{kind.lower()} "{name}" not found')
        body = record.read()
        if kind == "Secret":
            return {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
        plain = {key: value.encode() for key, value in (body.get("data") or {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in (body.get("binaryData") or {}).items()}

    def _sources(self, volume: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for source in (volume, *(volume.get("projected") or {}).get("sources", ())):
            for kind, key in (("Secret", "secret"), ("ConfigMap", "configMap")):
                if key in source:
                    yield kind, source[key]

    def _check(self, volume: Mapping[str, Any]) -> None:
        for kind, source in self._sources(volume):
            data = self._data(kind, source)
            for item in source.get("items") or ():
                if item["key"] not in data and not source.get("optional"):
                    raise Absent(
                        f"references non-existent secret key: {item['key']}"
                        if kind == "Secret"
                        else f"configmap references non-existent config key: {item['key']}"
                    )
        host = volume.get("hostPath") or {}
        # The one thing that is known of a simulated node's files: the kernel that it runs.
        of_kernel = re.match(r"/(?:usr/)?lib/modules/([^/]+)", host.get("path", ""))
        if host.get("type") == "Directory" and of_kernel and of_kernel[1] != self._kernel:
            raise Absent(f"hostPath type check failed: {host['path']} is not a directory")

    def _write(self, volume: Mapping[str, Any]) -> Path:
        if "hostPath" in volume:
            host = self._folder.parent.parent / "hosts" / str(self._pod["spec"]["nodeName"])
            place = host / str(volume["hostPath"]["path"]).lstrip("/")
        else:
            place = self._folder / "volumes" / str(volume["name"])
        place.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            place.chmod(0o777)
        for kind, source in self._sources(volume):
            data = self._data(kind, source)
            mode: Any = source.get("defaultMode", (volume.get("projected") or {}).get("defaultMode", 0o644))
            items: list[Any] = source.get("items") or [{"key": key, "path": key} for key in data]
            for item in items:
                if item["key"] in data:
                    path = _inside(place, item["path"])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)  # it may be there, and not be writable
                    path.write_bytes(data[item["key"]])
                    path.chmod(item.get("mode", mode))
        return place


def _inside(folder: Path, path: str) -> Path:
    found = folder / path
    if not found.resolve().is_relative_to(folder.resolve()):
        raise Absent(f"{path} leads out of its volume")
    return found


def expanded(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` where the name is known; `$$` is a dollar."""
    return re.sub(
        r"\$\$|\$\(([^)]+)\)",
        lambda found: "$" if found[1] is None else known.get(found[1], found[0]),
        text,
    )
