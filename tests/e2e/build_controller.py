"""What OpenShift's build controller does with Builds, done here with the buildah of this machine.

It looks at nothing but the Build's own fields, and at the Secrets that they name. Needs root.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import openshift
from apiserver.client import Api
from apiserver.samples import core

_POLL_S = 0.2
_LINES = 5  # of its log that a Build shows, as OpenShift does
_FAILED = "Docker build strategy has failed."


class BuildController:
    """Carries out the Builds of a namespace, each in a thread. `trusted`: a folder with the cluster's authorities.

    `node`: the docker configuration of the nodes, which has the cluster's pull secret. For a registry that the Secret
    of a Build names, that takes its place. `lost`: the Modules whose build pods the cluster loses. `logs`: what was
    said, by the Build's name.
    """

    def __init__(self, api: Api, namespace: str, folder: Path, trusted: Path, node: str) -> None:
        self._api, self._namespace, self._folder, self._trusted = api, namespace, folder, trusted
        self._node = node
        self._stopping = threading.Event()
        self._running: dict[str, subprocess.Popen[str] | None] = {}
        self._threads = [threading.Thread(target=self._run, name="build-controller")]
        self.lost: set[str] = set()
        self.logs: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for process in self._running.values():
            if process:
                process.kill()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            found = self._api.get(openshift.builds(self._namespace)).body["items"]
            for build in found:
                uid, status = build["metadata"]["uid"], build.get("status") or {}
                if uid not in self._running:
                    self._running[uid] = None
                    thread = threading.Thread(target=self._build, args=(build,), name=f"build-{uid}")
                    self._threads.append(thread)
                    thread.start()
                elif status.get("cancelled") and (process := self._running[uid]):
                    process.kill()
            there = {each["metadata"]["uid"] for each in found}
            for uid, process in self._running.items():
                if uid not in there and process:
                    process.kill()  # who deletes a Build ends it

    def _build(self, build: Mapping[str, Any]) -> None:
        meta = build["metadata"]
        if meta["labels"]["kmm.node.kubernetes.io/module.name"] in self.lost:
            self._say(build, "Error", reason="BuildPodDeleted", message="The pod for this build was deleted.")
            return
        self._say(build, "Running")
        folder = self._folder / meta["uid"]
        try:
            for command in self._commands(build["spec"], folder):
                code = self._execute(meta, command)
                if code:
                    self._failed(build, command)
                    return
        except (AssertionError, KeyError) as error:
            self._say(build, "Error", reason="GenericBuildFailed", message=repr(error))
            raise
        self._say(build, "Complete")

    def _failed(self, build: Mapping[str, Any], command: list[str]) -> None:
        meta = build["metadata"]
        answer = self._api.get(f"{openshift.builds(self._namespace)}/{meta['name']}")
        if answer.code != 200:  # it has been deleted meanwhile
            return
        if (answer.body.get("status") or {}).get("cancelled"):
            self._say(build, "Cancelled", reason="CancelledBuild", message="The build was cancelled by the user.")
            return
        pushed = "push" in command
        reason, message = (
            ("PushImageToRegistryFailed", "Failed to push the image to the registry.")
            if pushed
            else (
                "DockerBuildFailed",
                _FAILED,
            )
        )
        snippet = "\n".join(self.logs[meta["name"]].strip().splitlines()[-_LINES:])
        self._say(build, "Failed", reason=reason, message=message, logSnippet=snippet)

    def _say(self, build: Mapping[str, Any], phase: str, **status: str) -> None:
        if phase != "Running":
            status["completionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = build["metadata"]
        path = f"{openshift.builds(self._namespace)}/{meta['name']}"
        patch = {"metadata": {"uid": meta["uid"]}, "status": {"phase": phase, **status}}
        assert self._api.patch(path, patch).code in (200, 404, 409)  # it may have been deleted meanwhile

    def _execute(self, meta: Mapping[str, Any], command: list[str]) -> int:
        # What it says on both is one log, as a pod's is.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._running[meta["uid"]] = process
        if self._stopping.is_set():
            process.kill()
        said, _ = process.communicate()
        self.logs[meta["name"]] = self.logs.get(meta["name"], "") + said
        return process.returncode

    def _commands(self, spec: Mapping[str, Any], folder: Path) -> Iterator[list[str]]:
        """Yield what builds, then what pushes."""
        assert spec["serviceAccount"] == "builder"
        assert (spec["source"]["type"], spec["strategy"]["type"]) == ("Dockerfile", "Docker")
        strategy, output = spec["strategy"]["dockerStrategy"], spec.get("output") or {}
        (folder / "context").mkdir(parents=True)
        (folder / "Dockerfile").write_text(spec["source"]["dockerfile"])
        store = [
            *("buildah", "--storage-driver", "vfs"),
            *("--root", str(folder / "root"), "--runroot", str(folder / "runroot")),
        ]
        trusted = [f"--cert-dir={self._trusted}"] if spec.get("mountTrustedCA") else []
        yield [
            *(*store, "bud", "--isolation=chroot", f"--file={folder / 'Dockerfile'}", "--tag=localhost/built"),
            *trusted,
            *self._credentials(strategy.get("pullSecret"), folder / "pull", json.loads(self._node)["auths"]),
            *(f"--build-arg={each['name']}={each['value']}" for each in strategy.get("buildArgs", ())),
            *(f"--label={each['name']}={each['value']}" for each in output.get("imageLabels", ())),
            *self._volumes(strategy.get("volumes", ()), folder),
            str(folder / "context"),
        ]
        if "to" in output:
            assert output["to"]["kind"] == "DockerImage"
            credentials = self._credentials(output.get("pushSecret"), folder / "push")
            image = output["to"]["name"]
            yield [*store, "push", *trusted, *credentials, "localhost/built", f"docker://{image}"]

    def _credentials(
        self, secret: Mapping[str, str] | None, folder: Path, auths: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Return how they are given: a Secret's, and `auths` for the registries that it does not name."""
        if secret:
            (content,) = [value for key, value in self._secret(secret["name"]).items() if key == ".dockerconfigjson"]
            auths = {**(auths or {}), **json.loads(content)["auths"]}
        if not auths:
            return []
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"auths": auths}))
        return [f"--authfile={folder / 'config.json'}"]

    def _volumes(self, volumes: Any, folder: Path) -> Iterator[str]:
        for volume in volumes:
            assert volume["source"]["type"] == "Secret"
            path = folder / "volumes" / volume["name"]
            path.mkdir(parents=True)
            for key, content in self._secret(volume["source"]["secret"]["secretName"]).items():
                (path / key).write_bytes(content)
            for mount in volume["mounts"]:
                yield f"--volume={path}:{mount['destinationPath']}:ro"

    def _secret(self, name: str) -> dict[str, bytes]:
        body = self._api.get(f"{core(self._namespace, 'secrets')}/{name}").body
        return {key: base64.b64decode(value) for key, value in body["data"].items()}
