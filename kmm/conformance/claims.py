"""What is told at the end: for each claim whether it holds, in a line each and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kmm import __version__
from kmm.admission import printable
from kmm.conformance.contract import Contract, excuse, rules
from kmm.contract import CONTRACT_VERSION

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

_PROPERTY = "kmm"
_WHY_LONGEST = 600
HOLDS, BROKEN, EXCUSED, UNJUDGED = "holds", "broken", "excused", "unjudged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One rule for one plugin or offer of it. `of`: such as `builder kaniko`; `why`: where it does not just hold."""

    plugin: str
    of: str
    rule: str
    says: str
    result: str
    why: str = ""


def note(item: pytest.Item) -> None:
    """Note on a test which rule it is, where it is one, for whichever process tells of it."""
    contract = getattr(item, "cls", None)
    name = getattr(item, "originalname", item.name)
    if not isinstance(contract, type) or not issubclass(contract, Contract) or name not in rules(contract):
        return
    asked: Mapping[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    item.user_properties.append(
        (
            _PROPERTY,
            {
                "plugin": asked.get("plugin", contract.__name__),
                "of": " ".join(filter(None, (contract.noun, asked.get("offer", "")))),
                "rule": name.removeprefix("test_"),
                "says": rule_text(rules(contract)[name]),
                "excuse": excuse(contract, name),
            },
        )
    )


def rule_text(rule: Any) -> str:
    """Return a rule in one line."""
    return " ".join((rule.__doc__ or "").split())


def tell(reporter: TerminalReporter, path: str | None) -> None:
    """Print a line for each claim, and write all of them as JSON where a path is given."""
    claims = list(_claims(reporter.stats))
    if claims:
        reporter.section(f"plugin contract {CONTRACT_VERSION}, kmm {__version__}")
        for each in claims:
            good, bad = each.result == HOLDS, each.result == BROKEN
            why = f" -- {each.why}" if each.why else ""
            line = f"{each.result:<9}{each.plugin}, {each.of}: {each.says}{why}"
            reporter.write_line(printable(line), green=good, red=bad, yellow=not good and not bad)
    if path:
        report = {"contract": CONTRACT_VERSION, "kmm": __version__, "claims": [asdict(each) for each in claims]}
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _claims(stats: Mapping[str, Sequence[Any]]) -> Iterator[Claim]:
    """Yield the claims in the order in which they were judged. A test has several reports; the worst counts."""
    worst: dict[str, Claim] = {}
    reports = [each for found in stats.values() for each in found if isinstance(each, pytest.TestReport)]
    for report in sorted(reports, key=lambda each: each.start):
        noted = dict(report.user_properties).get(_PROPERTY)
        if not isinstance(noted, dict):
            continue
        claim = _claim(noted, report)
        before = worst.get(report.nodeid)
        if before is None or before.result == HOLDS:
            worst[report.nodeid] = claim
    yield from worst.values()


def _claim(noted: Mapping[str, str], report: pytest.TestReport) -> Claim:
    excused = noted["excuse"]
    result, why = HOLDS, ""
    if excused:
        result, why = EXCUSED, excused
    elif report.failed:
        result, why = BROKEN, report.longreprtext
    elif report.skipped:
        result = UNJUDGED
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return Claim(
        plugin=noted["plugin"],
        of=noted["of"],
        rule=noted["rule"],
        says=noted["says"],
        result=result,
        why=" ".join(why.removeprefix("Skipped: ").split())[:_WHY_LONGEST],
    )
