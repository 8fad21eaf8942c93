"""Jobs: a toolkit for builders and signers, whose work is one pod that runs once.

The Job around a pod, where it runs, what it mounts, what may be configured of it, and how far it has come.
Standard library only; the core needs nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kmm.contract import BuildArg, BuildRequest, Kind, Manifest, Progress, SecretFiles, SignRequest, State, nearest

JOB = Kind(api_version="batch/v1", kind="Job", plural="jobs")
SECRETS = "/run/secrets"

_ARCHITECTURE = "kubernetes.io/arch"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_LONGEST = 253
_MODE = 0o440
_QUANTITY = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?([eE][0-9]{1,2}|[numkKMGTPE]|[KMGTPE]i)?")
_DEADLINE_LONGEST_S = 7 * 24 * 3600
_SAID_LONGEST = 900  # characters: with what is said before it, less than the core keeps
_LOG_LONGEST = 2048 - 3  # bytes: what the kubelet keeps of a log, but for a character that it has cut in two
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_FINAL = "PodFailurePolicy"  # why a Job has failed whose container ended with one of its codes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What may be configured of a Job, for all Modules or in one's `params`. `resources`: of its container."""

    deadline_s: int = 3600
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A volume of a pod, and where its container has it."""

    volume: Manifest
    mount: Manifest


JOB_OPTIONS = ("activeDeadlineSeconds", "resources")
"""The keys that `job_options` reads."""


def job_options(given: Mapping[str, Any], otherwise: JobOptions, where: str) -> JobOptions:
    """Read `activeDeadlineSeconds` and `resources` of a plugin's options, or of a Module's `params`.

    What is absent is as in `otherwise`. `where`: what the user calls `given`, such as `build.params`.
    Raises ValueError, which says what is wrong and what would be right.
    """
    deadline_s = given.get("activeDeadlineSeconds", otherwise.deadline_s)
    if type(deadline_s) is not int or not 0 < deadline_s <= _DEADLINE_LONGEST_S:
        raise ValueError(f"{where}.activeDeadlineSeconds: must be a whole number from 1 to {_DEADLINE_LONGEST_S}")
    resources = otherwise.resources
    if "resources" in given:
        resources = _resources(given["resources"], f"{where}.resources")
    return JobOptions(deadline_s=deadline_s, resources=resources)


def job_params(params: Mapping[str, Any], otherwise: JobOptions, where: str) -> JobOptions:
    """Read a Module's `params` that are a Job's options and nothing else. Raises ValueError as `job_options`."""
    refuse_unknown(params, JOB_OPTIONS, where)
    return job_options(params, otherwise, where)


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise ValueError for a key of a Module's `params` that is not in `known`. `where`: what users call them."""
    for key in given:
        if key not in known:
            shown = str(key)[:100]
            raise ValueError(f'{where}: unknown "{shown}"{nearest(shown, known)} (known: {", ".join(known)})')


def build_sections(module: Manifest, builder: str) -> Iterator[tuple[str, Manifest]]:
    """Yield the `build` sections of a Module's manifest that ask for a builder by its name, and where they are."""
    return _sections(module, "build", "builder", builder)


def sign_sections(module: Manifest, signer: str) -> Iterator[tuple[str, Manifest]]:
    """Yield the `sign` sections of a Module's manifest that ask for a signer by its name, and where they are."""
    return _sections(module, "sign", "signer", signer)


def _sections(module: Manifest, part: str, provider: str, name: str) -> Iterator[tuple[str, Manifest]]:
    where = "spec.moduleLoader.container"
    container = _map(_map(_map(module, "spec"), "moduleLoader"), "container")
    default, mappings = _map(container, part), container.get("kernelMappings")
    found = [(f"{where}.{part}", default)]
    for index, mapping in enumerate(mappings if isinstance(mappings, list | tuple) else ()):
        own = _map(mapping, part) if isinstance(mapping, Mapping) else {}
        found.append((f"{where}.kernelMappings[{index}].{part}", own))
    return ((path, section) for path, section in found if (section.get(provider) or default.get(provider)) == name)


def need_argument(arg: BuildArg) -> None:
    """Raise ValueError for a build argument that would be another one on a command line, or none."""
    if not arg.name or "=" in arg.name or "\0" in arg.name + arg.value:
        raise ValueError(f'build.buildArgs: "{arg.name[:100]}" is the name of none, or its value holds a NUL')


def is_name(text: object) -> bool:
    """Whether it can be the name of a Secret or a ConfigMap."""
    return isinstance(text, str) and len(text) <= _NAME_LONGEST and _NAME.fullmatch(text) is not None


def job(pod: Manifest, deadline_s: int, final_codes: Sequence[int] = ()) -> dict[str, Any]:
    """Return the Job that runs a pod once: the core makes the next attempt. `pod`: its spec; empty fields go.

    `final_codes`: of a container that ends with one of them, `observe_job` says that the failure is final. The Job
    itself keeps that, whatever becomes of its pod.
    """
    spec = {"restartPolicy": "Never", "enableServiceLinks": False, **pod}
    fails = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(final_codes)}}
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_s,
            **({"podFailurePolicy": {"rules": [fails]}} if final_codes else {}),
            "template": {"spec": without_empty(spec)},
        },
    }


def literal(argument: str) -> str:
    """Return what makes of it the same argument in a container: Kubernetes replaces `$(NAME)` and `$$` there."""
    return argument.replace("$", "$$")


def placement(request: BuildRequest | SignRequest) -> dict[str, Any]:
    """Return the fields of a pod's spec that say where it runs, and with which Secret its image is pulled."""
    native = {_ARCHITECTURE: request.architecture} if isinstance(request, BuildRequest) else {}
    return {
        "nodeSelector": {**native, **request.node_selector},
        "tolerations": [dict(each) for each in request.tolerations],
        "imagePullSecrets": [{"name": request.push_secret}] if request.push_secret else [],
    }


def secret_mounts(secrets: Iterable[SecretFiles]) -> list[Mounted]:
    """Return each Secret as the folder `/run/secrets/<name>`. A Secret's name may be too long for a volume's.

    Raises ValueError for what no Secret can be called, as it would be another folder.
    """
    secrets = tuple(secrets)
    for each in secrets:
        _need_secret(each.name)
    return [
        Mounted(
            volume={"name": f"secret-{index}", "secret": {"secretName": each.name}},
            mount={"name": f"secret-{index}", "mountPath": f"{SECRETS}/{each.name}", "readOnly": True},
        )
        for index, each in enumerate(secrets)
    ]


def secret_files_mount(volume: str, secret: str, files: Mapping[str, str], folder: str) -> Mounted:
    """Return keys of a Secret as files in a folder, by the names of the files, for the pod's fsGroup alone.

    What is not there is left out: whoever looks for it says more than a pod that never starts. Raises ValueError for
    what no Secret can be called.
    """
    _need_secret(secret)
    items = [{"key": key, "path": path} for key, path in files.items()]
    source = {"secretName": secret, "items": items, "optional": True, "defaultMode": _MODE}
    return Mounted(
        volume={"name": volume, "secret": source},
        mount={"name": volume, "mountPath": folder, "readOnly": True},
    )


def dockerfile_mount(request: BuildRequest, folder: str) -> Mounted:
    """Return the ConfigMap's Dockerfile as the file `Dockerfile` in a folder, which holds nothing else."""
    items = [{"key": request.dockerfile_key, "path": "Dockerfile"}]
    return Mounted(
        volume={"name": "dockerfile", "configMap": {"name": request.dockerfile_config_map, "items": items}},
        mount={"name": "dockerfile", "mountPath": folder, "readOnly": True},
    )


def docker_config_mount(secret: str, folder: str) -> Mounted:
    """Return a Secret of type kubernetes.io/dockerconfigjson as the file `config.json` in a folder.

    A Secret of another kind leaves the folder empty: a push that is refused says more than a pod that never starts.
    """
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    return Mounted(
        volume={"name": "docker-config", "secret": {"secretName": secret, "items": items, "optional": True}},
        mount={"name": "docker-config", "mountPath": folder, "readOnly": True},
    )


def authorities_mount(config_map: str, folder: str) -> Mounted:
    """Return a ConfigMap's keys, each a PEM file of authorities, as files in a folder: none where it is not there."""
    return Mounted(
        volume={"name": "authorities", "configMap": {"name": config_map, "optional": True}},
        mount={"name": "authorities", "mountPath": folder, "readOnly": True},
    )


def without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that say something: not None, and no empty text, list or map."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def observe_job(objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
    """Say how far the first Job among `objects` has come, and why it failed or does not start. Never raises.

    Where it succeeded: what its containers have left as their termination message.
    Why it failed is, in this order: that a pod was taken away, what its containers said last, and the Job's own
    condition. Of a long last word the last whole lines are kept, so that the core finds secrets in them. A reason
    that is no word is left out.
    """
    found = next((each for each in _maps(objects) if each.get("kind", JOB.kind) == JOB.kind), None)
    if found is None:
        return Progress(state=State.PENDING)
    conditions = {_text(each, "type"): each for each in _conditions(_map(found, "status")) if _holds(each)}
    # As they were told of may differ from time to time.
    named = sorted(_maps(pods), key=lambda each: _text(_map(each, "metadata"), "name"))
    statuses = [_map(each, "status") for each in named]
    if "Complete" in conditions:
        return Progress(state=State.SUCCEEDED, message="; ".join(left for each in statuses for left in _left(each)))
    if failed := conditions.get("Failed"):
        reason = _reason(failed) or "Failed"
        said = [why for each in statuses for why in _why(each)]
        message = "; ".join([*_deadline(found, reason), *said]) or _text(failed, "message") or reason
        return Progress(state=State.FAILED, reason=reason, message=message, final=_is_final(found, reason, statuses))
    if suspended := conditions.get("Suspended"):
        return Progress(state=State.PENDING, reason=_reason(suspended), message="the Job is suspended")
    # A pod is Pending as long as its init containers run.
    runs = any("running" in state for each in statuses for _, state in _containers(each))
    if runs or {_text(each, "phase") for each in statuses} & {"Running", "Succeeded", "Failed"}:
        return Progress(state=State.RUNNING)
    reason, message = why_pending(named)
    return Progress(state=State.PENDING, reason=reason, message=message)


def _need_secret(name: str) -> None:
    if not is_name(name):
        raise ValueError(f'"{name[:100]}" is the name of no Secret')


def why_pending(pods: Sequence[Manifest]) -> tuple[str, str]:
    """Return why the first of the pods that says so does not start: a word and a sentence, or two empty texts."""
    statuses = (_map(each, "status") for each in _maps(pods))
    return next((why for each in statuses for why in _waits(each)), ("", ""))


def last_lines(text: str) -> str:
    """Return the last whole lines of a text, at least one. A line is never cut: a secret in it could not be found."""
    kept: list[str] = []
    for line in reversed(text.strip().splitlines()):
        if kept and sum(map(len, kept)) + len(kept) + len(line) > _SAID_LONGEST:
            break
        kept.append(line)
    return "\n".join(reversed(kept))


def _deadline(found: Mapping[str, Any], reason: str) -> Iterator[str]:
    if reason == "DeadlineExceeded":
        limit_s = _map(found, "spec").get("activeDeadlineSeconds")
        yield "it did not end within its activeDeadlineSeconds" + (f", {limit_s}" if type(limit_s) is int else "")


def _why(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a pod failed."""
    if reason := _reason(status):
        yield _said(f"its pod was ended by the node: {reason}", status)
    for each in _conditions(status):
        if each.get("type") == "DisruptionTarget" and _holds(each):
            yield _said(f"its pod was taken away: {_reason(each)}", each)
    for name, state in _containers(status):
        ended = _map(state, "terminated")
        code, reason = ended.get("exitCode"), _reason(ended)
        said = {"message": _uncut(_text(ended, "message"))}
        if reason == "OOMKilled":
            yield _said(f"{name} used more memory than its resources.limits.memory", said)
        elif type(code) is int and code != 0:
            why = f" ({reason})" if reason not in ("", "Error") else ""
            yield _said(f"{name} ended with exit code {code}{why}", said)


def _is_final(found: Mapping[str, Any], reason: str, statuses: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a container ended with one of the Job's final codes. An old API server looks at none: pods tell it."""
    if reason == _FINAL:
        return True
    rules = _maps(_map(_map(found, "spec"), "podFailurePolicy").get("rules"))
    listed = [_map(each, "onExitCodes").get("values") for each in rules]
    final = [code for each in listed if isinstance(each, list | tuple) for code in each]
    codes = [_map(state, "terminated").get("exitCode") for each in statuses for _, state in _containers(each)]
    return any(type(code) is int and code in final for code in codes)


def _left(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield what containers that succeeded have left."""
    for _, state in _containers(status):
        ended = _map(state, "terminated")
        if ended.get("exitCode") == 0 and (left := last_lines(_text(ended, "message"))):
            yield left


def _waits(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield why a pod does not start: a word, and what is said of it."""
    for name, state in _containers(status):
        waiting = _map(state, "waiting")
        reason = _reason(waiting)
        if reason not in ("", "ContainerCreating", "PodInitializing"):
            yield reason, _said(f"{name} cannot be started: {reason}", waiting)
    for each in _conditions(status):
        if (each.get("type"), each.get("status")) == ("PodScheduled", "False"):
            reason = _reason(each)
            yield reason, _said(f"no node takes its pod: {reason}", each)


def _said(what: str, said: Mapping[str, Any]) -> str:
    return f"{what}: {last_lines(_text(said, 'message'))}".strip(": ")


def _uncut(log: str) -> str:
    """Return what the kubelet has kept of a log without its first line, if that is cut, though it be the only one."""
    return log.partition("\n")[2] if len(log.encode(errors="replace")) >= _LOG_LONGEST else log


def _containers(status: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the state of each container."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for each in _maps(status.get(key)):
            yield _text(each, "name") or "a container", _map(each, "state")


def _conditions(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return _maps(status.get("conditions"))


def _holds(condition: Mapping[str, Any]) -> bool:
    return condition.get("status") == "True"


def _map(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list | tuple) else iter(())


def _text(parent: Mapping[str, Any], key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def _reason(parent: Mapping[str, Any]) -> str:
    value = _text(parent, "reason")
    return value if _WORD.fullmatch(value) else ""


def _resources(given: Any, where: str) -> Mapping[str, Mapping[str, str]]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: must be an object, such as {{limits: {{memory: 2Gi}}}}")  # noqa: TRY004 -- as documented
    refuse_unknown(given, ("limits", "requests"), where)
    return {part: _quantities(value, f"{where}.{part}") for part, value in given.items()}


def _quantities(given: Any, where: str) -> Mapping[str, str]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: must be an object, such as {{memory: 2Gi}}")  # noqa: TRY004 -- as documented
    for name, value in given.items():
        if type(value) not in (str, int, float) or not _QUANTITY.fullmatch(str(value)):
            raise ValueError(f'{where}.{str(name)[:100]}: must be a quantity, such as 2, 500m or "2Gi"')
    return {str(name): str(value) for name, value in given.items()}
