"""Label selectors and field selectors, as text in a request and as objects in a specification."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmm.embedded.failure import bad_request

_TERM = re.compile(
    r"""\s*(?:
      (?P<absent>!)\s*(?P<not_there>[^\s,=!()]+)
    | (?P<set_key>[^\s,=!()]+)\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)
    | (?P<key>[^\s,=!()]+)\s*(?:(?P<equal>==|=|!=)\s*(?P<value>[^\s,=!()]*))?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label."""

    key: str
    operator: str  # In, NotIn, Exists, DoesNotExist, Gt, Lt
    values: tuple[str, ...] = ()

    def accepts(self, labels: Mapping[str, str]) -> bool:
        there = labels.get(self.key)
        match self.operator:
            case "In":
                return there in self.values
            case "NotIn":
                return there not in self.values
            case "Exists":
                return there is not None
            case "DoesNotExist":
                return there is None
            case _:
                numbers = [each for each in (there or "", *self.values) if re.fullmatch(r"-?\d{1,18}", each)]
                if len(numbers) != 2:
                    return False
                return (
                    int(numbers[0]) > int(numbers[1]) if self.operator == "Gt" else int(numbers[0]) < int(numbers[1])
                )


Selector = tuple[Term, ...]


def accepts(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether every term accepts the labels; an empty selector accepts all."""
    return all(term.accepts(labels) for term in selector)


def parse_labels(text: str) -> Selector:
    """Read `a=b,c!=d,e in (f,g),h notin (i),j,!k`."""
    terms: list[Term] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TERM.match(text, at)
        if found is None:
            raise bad_request(f'unable to parse requirement: found "{text[at:].strip()}"')
        said = found.groupdict()
        if said["absent"]:
            terms.append(Term(said["not_there"], "DoesNotExist"))
        elif said["set"]:
            values = tuple(value.strip() for value in said["values"].split(","))
            terms.append(Term(said["set_key"], "In" if said["set"] == "in" else "NotIn", values))
        elif said["equal"]:
            terms.append(Term(said["key"], "NotIn" if said["equal"] == "!=" else "In", (said["value"],)))
        else:
            terms.append(Term(said["key"], "Exists"))
        at = found.end()
    return tuple(terms)


def of_object(selector: Mapping[str, Any] | None) -> Selector | None:
    """Return a `metav1.LabelSelector`; `None` (select nothing) where there is none."""
    if selector is None:
        return None
    equal = (Term(key, "In", (value,)) for key, value in (selector.get("matchLabels") or {}).items())
    return (*equal, *of_expressions(selector.get("matchExpressions") or ()))


def of_expressions(expressions: Sequence[Mapping[str, Any]]) -> Selector:
    return tuple(Term(each["key"], each["operator"], tuple(each.get("values") or ())) for each in expressions)


def parse_fields(text: str, known: Sequence[str]) -> tuple[tuple[int, str, bool], ...]:
    """Read `a=b,c!=d`; return (index in `known`, value, whether it is to be equal)."""
    terms = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([^=!]+?)(==|=|!=)(.*)", each)
        if found is None:
            raise bad_request(f'invalid selector: "{text}"; can\'t understand "{each}"')
        key, operator, value = found.groups()
        if key not in known:
            raise bad_request(f"field label not supported: {key}")
        terms.append((known.index(key), value, operator != "!="))
    return tuple(terms)
