"""What goes when something else has gone: dependents of owners, and what a namespace holds."""

from __future__ import annotations

from kmm.embedded.condition import condition
from kmm.embedded.controller import Controller
from kmm.embedded.objects import FOREGROUND, ORPHAN, Deletion, now_text
from kmm.embedded.storage import Event, Record

BACKGROUND = Deletion(policy="Background")


class GarbageCollector(Controller):
    """Owner references, as Kubernetes' garbage collector follows them. Keys are uids."""

    def seen(self, event: Event) -> None:
        if event.kind == "DELETED":
            for dependent in self.storage.dependents(event.record.uid):
                self.enqueue(dependent.uid)
            for owner in event.record.owners:
                self.enqueue(owner)
        elif event.record.owners or (event.kind == "MODIFIED" and event.record.deleting):
            self.enqueue(event.record.uid)

    def sync(self, key: str) -> None:
        record = self.storage.by_uid(key)
        if record is None:
            return
        if record.deleting:
            self._let_go(record)
        if record.owners and (record := self.storage.by_uid(key)):
            self._follow_owners(record)

    def _let_go(self, record: Record) -> None:
        finalizers = record.read()["metadata"].get("finalizers", ())
        if ORPHAN in finalizers:
            for dependent in self.storage.dependents(record.uid):
                references = dependent.read()["metadata"]["ownerReferences"]
                kept = [each for each in references if each["uid"] != record.uid]
                self.objects.amend(dependent, {"ownerReferences": kept})
            self.objects.release(record, ORPHAN)
        elif FOREGROUND in finalizers:
            blocking = False
            for dependent in self.storage.dependents(record.uid):
                theirs = dependent.read()["metadata"]
                blocking |= any(
                    each["uid"] == record.uid and each.get("blockOwnerDeletion")
                    for each in theirs.get("ownerReferences", ())
                )
                if not dependent.deleting:
                    self.objects.delete(dependent, Deletion(uid=dependent.uid, policy="Foreground"))
            if not blocking or not self.storage.dependents(record.uid):
                self.objects.release(record, FOREGROUND)

    def _follow_owners(self, record: Record) -> None:
        references = record.read()["metadata"].get("ownerReferences", ())
        kept = []
        for each in references:
            owner = self.storage.by_uid(each["uid"])
            if owner is not None and owner.namespace in ("", record.namespace):
                kept.append(each)
        if len(kept) == len(references):
            return
        if kept:
            self.objects.amend(record, {"ownerReferences": kept})
        elif not record.deleting:
            self.objects.delete(record, Deletion(uid=record.uid, policy="Background"))


class NamespaceController(Controller):
    """Furnishes namespaces, and empties those that go."""

    def seen(self, event: Event) -> None:
        if event.record.resource.key == ("", "namespaces"):
            self.enqueue(event.record.name)
        elif event.kind == "DELETED" and event.record.namespace:
            self.enqueue(event.record.namespace)

    def sync(self, key: str) -> None:
        record = self.storage.get(self.objects.resource("Namespace"), "", key)
        if record is None:
            return
        if not record.deleting:
            self._furnish(key)
            return
        left: dict[str, int] = {}
        for resource in list(self.objects.resources.values()):
            if not resource.namespaced:
                continue
            for each in list(self.storage.records(resource, key)):
                if not each.deleting:
                    self.objects.delete(each, BACKGROUND)
            if remaining := sum(1 for _ in self.storage.records(resource, key)):
                left[resource.qualified] = remaining
        if not left:
            body = record.read()
            others = [each for each in body["spec"].get("finalizers", ()) if each != "kubernetes"]
            body["spec"] = {"finalizers": others}
            self.objects.update(record.resource, "", key, body, "finalize")
            return
        text = ", ".join(f"{plural}. has {count} resource instances" for plural, count in sorted(left.items()))
        message = f"Some resources are remaining: {text}"
        conditions = [condition("NamespaceContentRemaining", "SomeResourcesRemain", message, now_text())]
        self.objects.set_status(record, {"phase": "Terminating", "conditions": conditions})

    def _furnish(self, namespace: str) -> None:
        for kind, name, more in (
            ("ServiceAccount", "default", {}),
            ("ConfigMap", "kube-root-ca.crt", {"data": {"ca.crt": ""}}),
        ):
            resource = self.objects.resource(kind)
            if self.storage.get(resource, namespace, name) is None:
                self.objects.create(resource, namespace, {"metadata": {"name": name}, **more})
