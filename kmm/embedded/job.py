"""Jobs: pods that are to succeed a number of times."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kmm.embedded.builtin import ENDED
from kmm.embedded.condition import condition, condition_of
from kmm.embedded.controller import Controller
from kmm.embedded.objects import Deletion, Objects, now_text
from kmm.embedded.storage import Event, Record

TRACKING = "batch.kubernetes.io/job-tracking"
_IN = {"In": True, "NotIn": False}


class JobController(Controller):
    """Keys are the uids of Jobs. `back_off_s`: the first delay after a failed pod; it doubles up to 10 minutes."""

    component = "job-controller"

    def __init__(self, objects: Objects, *, back_off_s: float = 10) -> None:
        super().__init__(objects)
        self._back_off_s = back_off_s
        self._last_failure: dict[str, datetime] = {}

    def seen(self, event: Event) -> None:
        record = event.record
        if record.resource.key == ("batch", "jobs"):
            if event.kind == "DELETED":
                self._last_failure.pop(record.uid, None)
            self.enqueue(record.uid)
        elif record.resource.key == ("", "pods"):
            for owner in record.owners:
                self.enqueue(owner)
            if record.deleting and not record.owners:
                self.enqueue((record.uid, "orphan"))

    def sync(self, key: str | tuple[str, str]) -> None:
        if isinstance(key, tuple):
            pod = self.storage.by_uid(key[0])
            if pod is not None:
                self.objects.release(pod, TRACKING)
            return
        record = self.storage.by_uid(key)
        pods = [pod for pod in self.storage.dependents(key) if pod.resource.kind == "Pod"]
        if record is None or record.deleting:
            for pod in pods:
                self.objects.release(pod, TRACKING)
            return
        if record.resource.kind != "Job":
            return
        body = record.read()
        spec, status = body["spec"], body.get("status") or {}
        if finished := condition_of(status, "Complete") or condition_of(status, "Failed"):
            self._expire(record, spec, finished)
        else:
            self._go_on(record, body, pods)

    def _go_on(self, record: Record, body: Mapping[str, Any], pods: list[Record]) -> None:
        spec, status = body["spec"], body.get("status") or {}
        # A pod has a finalizer until it is counted: none is counted twice, none goes uncounted.
        ended = [
            pod for pod in pods if self._is_over(pod) and TRACKING in pod.read()["metadata"].get("finalizers", ())
        ]
        succeeded = status.get("succeeded", 0) + sum(pod.fields[1] == "Succeeded" for pod in ended)
        failed = status.get("failed", 0) + sum(pod.fields[1] != "Succeeded" for pod in ended)
        if failed > status.get("failed", 0):
            self._last_failure[record.uid] = datetime.now(UTC)
        active = [pod for pod in pods if not self._is_over(pod)]
        status = {key: status[key] for key in ("startTime", "conditions") if key in status}
        if not spec.get("suspend"):
            status.setdefault("startTime", now_text())
        self._suspend(record, status, suspended=bool(spec.get("suspend")))
        if spec.get("suspend"):
            self._stop(active)
        elif succeeded >= spec.get("completions", 1) and not active:
            self._finish(
                record, status, "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
            )
            status["completionTime"] = now_text()
        elif why := self._why_failed(record, spec, status, failed, pods):
            self._stop(active)
            if not any(pod.deleting for pod in pods) and not active:
                self._finish(record, status, "Failed", *why)
        else:
            active += self._fill(record, spec, spec.get("completions", 1) - succeeded, len(active), failed)
        for name, value in (("active", len(active)), ("succeeded", succeeded), ("failed", failed)):
            if value:
                status[name] = value
        ready = sum(condition_of(pod.read().get("status"), "Ready").get("status") == "True" for pod in active)
        terminating = sum(pod.deleting and pod.fields[1] not in ENDED for pod in pods)
        status |= {"ready": ready, "terminating": terminating, "uncountedTerminatedPods": {}}
        self.objects.set_status(record, status)
        for pod in ended:
            self.objects.release(pod, TRACKING)

    @staticmethod
    def _is_over(pod: Record) -> bool:
        return pod.deleting or pod.fields[1] in ENDED

    def _stop(self, active: list[Record]) -> None:
        for pod in active:
            self.objects.delete(pod)

    def _why_failed(
        self, record: Record, spec: Mapping[str, Any], status: Mapping[str, Any], failed: int, pods: list[Record]
    ) -> tuple[str, str] | None:
        limit = spec["backoffLimit"]
        if why := _of_policy(spec, pods):
            return "PodFailurePolicy", why
        restarts = 0
        if spec["template"]["spec"]["restartPolicy"] == "OnFailure":
            for pod in pods:
                statuses = (pod.read().get("status") or {}).get("containerStatuses") or ()
                restarts += sum(each["restartCount"] for each in statuses)
        if failed > limit or restarts > limit:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if (deadline_s := spec.get("activeDeadlineSeconds")) is not None and "startTime" in status:
            left_s = deadline_s - _age_s(status["startTime"])
            if left_s <= 0:
                return "DeadlineExceeded", "Job was active longer than specified deadline"
            self.enqueue(record.uid, after_s=left_s)
        return None

    def _fill(self, record: Record, spec: Mapping[str, Any], wanted: int, active: int, failed: int) -> list[Record]:
        """Create the pods that are missing; return them."""
        missing = min(spec["parallelism"], wanted) - active
        if missing <= 0:
            return []
        if failed and record.uid in self._last_failure:
            since_s = (datetime.now(UTC) - self._last_failure[record.uid]).total_seconds()
            wait_s = min(self._back_off_s * 2 ** (failed - 1), 600) - since_s
            if wait_s > 0:
                self.enqueue(record.uid, after_s=wait_s)
                return []
        template = spec["template"]
        meta = template.get("metadata") or {}
        made: list[Record] = []
        for _ in range(missing):
            pod = {
                "metadata": {
                    "labels": dict(meta.get("labels") or {}),
                    "annotations": dict(meta.get("annotations") or {}),
                    "finalizers": [TRACKING],
                },
                "spec": copy.deepcopy(template["spec"]),
            }
            created = self.create_pod(record, pod)
            if created is None:
                break
            made.append(created)
        return made

    def _finish(self, record: Record, status: dict[str, Any], kind: str, reason: str, message: str) -> None:
        since = now_text()
        status["conditions"] = [
            *status.get("conditions", ()),
            *(
                condition(each, reason, message, since) | {"lastProbeTime": since}
                for each in ("SuccessCriteriaMet" if kind == "Complete" else "FailureTarget", kind)
            ),
        ]
        if kind == "Complete":
            self.announce(record, "Normal", "Completed", "Job completed")
        else:
            self.announce(record, "Warning", reason, message)

    def _suspend(self, record: Record, status: dict[str, Any], *, suspended: bool) -> None:
        was = condition_of(status, "Suspended")
        if suspended == (was.get("status") == "True"):
            return
        said = "Suspended" if suspended else "Resumed"
        since = now_text()
        now = condition("Suspended", f"Job{said}", f"Job {said.lower()}", since, str(suspended))
        others = [each for each in status.get("conditions") or () if each is not was]
        status["conditions"] = [*others, now | {"lastProbeTime": since}]
        status.pop("startTime", None)
        if not suspended:
            status["startTime"] = since
        self.announce(record, "Normal", said, f"Job {said.lower()}")

    def _expire(self, record: Record, spec: Mapping[str, Any], finished: Mapping[str, Any]) -> None:
        ttl_s = spec.get("ttlSecondsAfterFinished")
        if ttl_s is None:
            return
        left_s = ttl_s - _age_s(finished["lastTransitionTime"])
        if left_s > 0:
            self.enqueue(record.uid, after_s=left_s)
        else:
            self.objects.delete(record, Deletion(uid=record.uid, policy="Foreground"))


def _of_policy(spec: Mapping[str, Any], pods: list[Record]) -> str:
    """Return what is said where a failed container's exit code ends the Job, by its policy; other rules are none."""
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or ()
    for body in (pod.read() for pod in pods if pod.fields[1] == "Failed"):
        where = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        for number, rule in enumerate(rules):
            asked = rule.get("onExitCodes") or {} if rule["action"] == "FailJob" else {}
            for name, code in _exit_codes(body) if asked else ():
                if asked.get("containerName") in (None, name) and (code in asked["values"]) == _IN[asked["operator"]]:
                    ended = f"Container {name} for pod {where} failed with exit code {code}"
                    return f"{ended} matching FailJob rule at index {number}"
    return ""


def _exit_codes(pod: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the containers that failed, and how they ended."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for each in (pod.get("status") or {}).get(key) or ():
            if code := ((each.get("state") or {}).get("terminated") or {}).get("exitCode"):
                yield each["name"], code


def _age_s(since: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
