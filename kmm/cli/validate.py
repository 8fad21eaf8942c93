"""`kmm validate`: judges files of manifests and prints what is wrong, where, and what would be right."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kmm.admission import is_ours, judge, kind_of, line, printable
from kmm.api.manifest import ManifestError, documents, read_limited
from kmm.api.schema import at
from kmm.catalog import Catalog
from kmm.contract import Finding, Severity


def validate(files: Sequence[str], catalog: Catalog) -> int:
    """Judge `files` (`-`: standard input) and print it. Return 1 where there is an error, else 0."""
    failed = False
    for file in files:
        try:
            values = [value for document in documents(_read(file)) for value in _flat(document.value)]
        except (OSError, ManifestError) as error:
            reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            print(printable(f"{file}: {reason}"))
            failed = True
            continue
        ours = 0
        for value in values:
            if not is_ours(value) and isinstance(value, Mapping) and isinstance(value.get("kind"), str):
                continue  # another kind beside them, such as the ConfigMap of a Dockerfile
            ours += 1
            failed |= _print(file, value, catalog)
        if not ours:
            print(printable(f"{file}: holds nothing of ours to check, only {_kinds(values)}"))
    return int(failed)


def _print(file: str, value: Any, catalog: Catalog) -> bool:
    judgement = judge(value, catalog)
    subject = printable(f"{file}: {_subject(value)}")
    for finding in judgement.findings:
        warning = "warning: " if finding.severity is Severity.WARNING else ""
        print(f"{subject}: {warning}{line(finding)}")
    if not judgement.errors:
        print(f"{subject}: valid")
    return bool(judgement.errors)


def _subject(value: Any) -> str:
    kind = kind_of(value)
    named = at(value, "kind") if isinstance(kind, Finding) else kind.kind
    name = at(value, "metadata", "name") or at(value, "metadata", "generateName") or "(no name)"
    namespace = at(value, "metadata", "namespace")
    return f"{named or 'object'} {f'{namespace}/' if namespace else ''}{name}"[:400]


def _flat(value: Any) -> Iterator[Any]:
    """Yield the objects of a list, which may be a Kubernetes `List` or one kind's."""
    if isinstance(value, Mapping) and str(value.get("kind", "")).endswith("List"):
        items = value.get("items")
        if isinstance(items, list):
            yield from items
            return
    yield value


def _kinds(values: Sequence[Any]) -> str:
    return ", ".join(sorted({str(value["kind"])[:80] for value in values if isinstance(value, Mapping)})) or "nothing"


def _read(file: str) -> bytes:
    if file == "-":
        return read_limited(sys.stdin.buffer)
    with Path(file).open("rb") as stream:
        return read_limited(stream)
