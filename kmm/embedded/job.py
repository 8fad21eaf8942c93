"""Jobs: pods that are to succeed a number of times."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kmm.embedded.controller import Controller
from kmm.embedded.daemonset import owner_reference
from kmm.embedded.failure import Failure
from kmm.embedded.objects import Deletion, Objects, now_text
from kmm.embedded.storage import Event, Record


class JobController(Controller):
    """Keys are the uids of Jobs. `back_off_s`: the first delay after a failed pod; it doubles up to 10 minutes."""

    component = "job-controller"

    def __init__(self, objects: Objects, *, back_off_s: float = 10) -> None:
        super().__init__(objects)
        self._back_off_s = back_off_s

    def seen(self, event: Event) -> None:
        if event.record.resource.key == ("batch", "jobs"):
            self.enqueue(event.record.uid)
        elif event.record.resource.key == ("", "pods"):
            for owner in event.record.owners:
                self.enqueue(owner)

    def sync(self, key: str) -> None:
        record = self.storage.by_uid(key)
        if record is None or record.resource.kind != "Job" or record.deleting:
            return
        body = record.read()
        spec, status = body["spec"], body.get("status") or {}
        conditions = status.get("conditions") or []
        finished = next((each for each in conditions if each["type"] in ("Complete", "Failed")), None)
        if finished:
            self._expire(record, spec, finished)
            return
        pods = [pod for pod in self.storage.dependents(key) if pod.resource.kind == "Pod"]
        succeeded = sum(pod.fields[1] == "Succeeded" for pod in pods)
        failed = [pod for pod in pods if pod.fields[1] == "Failed" or (pod.deleting and pod.fields[1] != "Succeeded")]
        active = [pod for pod in pods if pod.fields[1] in ("Pending", "Running") and not pod.deleting]
        # Failed pods that are gone stay counted: the status remembers.
        known = {pod.uid for pod in failed}
        counted = max(len(failed), int(status.get("failed", 0)))
        status = {key: value for key, value in status.items() if key in ("startTime", "conditions", "failed")}
        if not spec.get("suspend"):
            status.setdefault("startTime", now_text())
        self._suspend(record, status, suspended=bool(spec.get("suspend")))
        if spec.get("suspend"):
            for pod in active:
                self.objects.delete(pod)
        elif succeeded >= spec.get("completions", 1) and not active:
            self._finish(
                record, status, "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
            )
            status["completionTime"] = now_text()
        elif why := self._why_failed(record, spec, status, counted, pods):
            for pod in active:
                self.objects.delete(pod)
            if not any(pod.deleting for pod in self.storage.dependents(key) if pod.resource.kind == "Pod"):
                self._finish(record, status, "Failed", *why)
        else:
            self._fill(record, body, succeeded, active, len(known))
            active = [pod for pod in self.storage.dependents(key) if pod.fields[1] == "Pending" or pod in active]
        for name, value in (("active", len(active)), ("succeeded", succeeded), ("failed", counted)):
            if value:
                status[name] = value
        ready = sum(_is_ready(pod) for pod in active)
        status |= {"ready": ready, "terminating": sum(pod.deleting for pod in pods), "uncountedTerminatedPods": {}}
        self.objects.set_status(record, status)

    def _why_failed(
        self, record: Record, spec: Mapping[str, Any], status: Mapping[str, Any], failed: int, pods: list[Record]
    ) -> tuple[str, str] | None:
        limit = spec["backoffLimit"]
        restarts = 0
        if spec["template"]["spec"]["restartPolicy"] == "OnFailure":
            for pod in pods:
                statuses = (pod.read().get("status") or {}).get("containerStatuses") or ()
                restarts += sum(each["restartCount"] for each in statuses)
        if failed > limit or restarts > max(limit, 0):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if (deadline_s := spec.get("activeDeadlineSeconds")) is not None and "startTime" in status:
            left_s = deadline_s - _age_s(status["startTime"])
            if left_s <= 0:
                return "DeadlineExceeded", "Job was active longer than specified deadline"
            self.enqueue(record.uid, after_s=left_s)
        return None

    def _fill(
        self, record: Record, body: Mapping[str, Any], succeeded: int, active: list[Record], failed: int
    ) -> None:
        spec = body["spec"]
        missing = min(spec["parallelism"], spec.get("completions", 1) - succeeded) - len(active)
        if missing <= 0:
            return
        if failed:
            newest = max(_ended(pod) for pod in self.storage.dependents(record.uid) if pod.fields[1] == "Failed")
            wait_s = min(self._back_off_s * 2 ** (failed - 1), 600) - (datetime.now(UTC) - newest).total_seconds()
            if wait_s > 0:
                self.enqueue(record.uid, after_s=wait_s)
                return
        template = spec["template"]
        meta = template.get("metadata") or {}
        for _ in range(missing):
            pod = {
                "metadata": {
                    "generateName": f"{record.name}-",
                    "labels": dict(meta.get("labels") or {}),
                    "annotations": dict(meta.get("annotations") or {}),
                    "ownerReferences": [owner_reference(record)],
                },
                "spec": copy.deepcopy(template["spec"]),
            }
            try:
                made = self.objects.create(self.objects.resource("Pod"), record.namespace, pod)
            except Failure as failure:
                self.announce(record, "Warning", "FailedCreate", f"Error creating: {failure}")
                self.enqueue(record.uid, after_s=1)
                return
            self.announce(record, "Normal", "SuccessfulCreate", f"Created pod: {made.name}")

    def _finish(self, record: Record, status: dict[str, Any], kind: str, reason: str, message: str) -> None:
        since = now_text()
        status["conditions"] = [
            *status.get("conditions", ()),
            *(
                {
                    "type": each,
                    "status": "True",
                    "reason": reason,
                    "message": message,
                    "lastProbeTime": since,
                    "lastTransitionTime": since,
                }
                for each in ("SuccessCriteriaMet" if kind == "Complete" else "FailureTarget", kind)
            ),
        ]
        if kind == "Complete":
            self.announce(record, "Normal", "Completed", "Job completed")
        else:
            self.announce(record, "Warning", reason, message)

    def _suspend(self, record: Record, status: dict[str, Any], *, suspended: bool) -> None:
        conditions = status.get("conditions") or []
        was = next((each for each in conditions if each["type"] == "Suspended"), None)
        if suspended == (was is not None and was["status"] == "True"):
            return
        said = "Suspended" if suspended else "Resumed"
        since = now_text()
        condition = {
            "type": "Suspended",
            "status": str(suspended),
            "reason": f"Job{said}",
            "message": f"Job {said.lower()}",
            "lastProbeTime": since,
            "lastTransitionTime": since,
        }
        status["conditions"] = [*(each for each in conditions if each is not was), condition]
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


def _age_s(since: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()


def _ended(pod: Record) -> datetime:
    ends = [
        state["terminated"]["finishedAt"]
        for each in (pod.read().get("status") or {}).get("containerStatuses") or ()
        if "terminated" in (state := each["state"])
    ]
    return max(map(datetime.fromisoformat, ends), default=datetime.now(UTC))


def _is_ready(pod: Record) -> bool:
    conditions = (pod.read().get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
