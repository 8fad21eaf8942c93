"""`kmm validate`: judges files of manifests and prints what is wrong, where, and what would be right."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kmm.admission import is_ours, judge, kind_of, line, printable
from kmm.api.kinds import KIND_BY_NAME
from kmm.api.manifest import ManifestError, documents, read_limited
from kmm.api.schema import at
from kmm.catalog import Catalog
from kmm.contract import Finding, Severity


def validate(files: Sequence[str], catalog: Catalog, *, strict: bool = False) -> int:
    """Judge `files` (`-`: standard input) and print it.

    Return 1 where there is an error (or, if `strict`, a warning), else 0.
    """
    failed = False
    for file in files:
        try:
            values = [value for document in documents(_read(file)) for value in flat(document.value)]
        except (OSError, ManifestError) as error:
            reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            print(printable(f"{file}: {reason}"))
            failed = True
            continue
        ours = 0
        for number, value in enumerate(values, 1):
            if not is_ours(value) and isinstance(value, Mapping) and isinstance(value.get("kind"), str):
                continue  # another kind beside them, such as the ConfigMap of a Dockerfile
            ours += 1
            failed |= _print(file, value, number, catalog, strict)
        if not ours:
            print(printable(f"{file}: holds nothing of ours to check, only {_kinds(values)}"))
    return int(failed)


def _print(file: str, value: Any, number: int, catalog: Catalog, strict: bool) -> bool:
    judgement = judge(value, catalog)
    subject = printable(f"{file}: {_subject(value, number)}")
    for finding in judgement.findings:
        warning = "warning: " if finding.severity is Severity.WARNING else ""
        print(f"{subject}: {warning}{line(finding)}")
    if not judgement.errors:
        count = len(judgement.warnings)
        print(f"{subject}: valid" + (f", with {count} warning{'s' * (count > 1)}" if count else ""))
    return bool(judgement.errors or (strict and judgement.warnings))


def _subject(value: Any, number: int) -> str:
    kind = kind_of(value)
    named = at(value, "kind") if isinstance(kind, Finding) else kind.kind
    name = at(value, "metadata", "name") or at(value, "metadata", "generateName")
    if name is None:
        return f"document {number}" + (f" ({named})" if named else "")
    namespace = at(value, "metadata", "namespace")
    return f"{named or 'object'} {f'{namespace}/' if namespace else ''}{name}"[:400]


def flat(value: Any) -> Iterator[Any]:
    """Yield the objects of a list, which may be a Kubernetes `List` or that of one of our kinds."""
    if isinstance(value, Mapping) and isinstance(value.get("kind"), str) and value["kind"] in _LISTS:
        items = value.get("items")
        if not isinstance(items, list):
            raise ManifestError(f'has a {value["kind"]} whose "items" is not a list')
        for item in items:
            yield from flat(item)  # as deep as files may be nested, no deeper
    else:
        yield value


_LISTS = ("List", *(f"{kind}List" for kind in KIND_BY_NAME))


def _kinds(values: Sequence[Any]) -> str:
    return ", ".join(sorted({str(value["kind"])[:80] for value in values})) or "empty lists"


def _read(file: str) -> bytes:
    if file == "-":
        if sys.stdin is None:
            raise ManifestError("is standard input, which is closed")
        return read_limited(sys.stdin.buffer)
    with Path(file).open("rb") as stream:
        return read_limited(stream)
