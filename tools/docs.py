"""Write the documents that are made from the code; with --check, fail where one has drifted from it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from contract_description import describe, faults, fixtures, to_be_written, written

from kmm import conformance as suite
from kmm import contract, hookspecs
from kmm.admission import BEYOND
from kmm.api.kinds import KINDS
from kmm.api.schema import Entries, Items, Part, Strict, schema
from kmm.config import Config, variables
from kmm.conformance.contract import rules
from kmm.core.reasons import About, Reason

ROOT = Path(__file__).parent.parent
MADE = "<!-- Made by `make docs` from {}: change that. -->\n\n"


def hooks() -> str:
    """Return docs/hooks.md."""
    found = ["# Hooks and the plugin contract\n\n", MADE.format("kmm/hookspecs.py and kmm/contract.py")]
    found.append(
        f"Contract version {contract.CONTRACT_VERSION}, entry-point group `{contract.ENTRY_POINT_GROUP}`.\n\n"
    )
    found.append(f"{inspect.getdoc(contract)}\n\n## Hooks\n\n{inspect.getdoc(hookspecs)}\n")
    for name, function in vars(hookspecs).items():
        if name.startswith("kmm_"):
            found.append(f"\n### `{name}{_signature(function)}`\n\n{inspect.getdoc(function)}\n")
    found.append("\n## What hooks exchange\n")
    for name, each in vars(contract).items():
        if isinstance(each, type) and each.__module__ == contract.__name__ and not name.startswith("_"):
            found.append(f"\n### `{name}`\n\n{inspect.getdoc(each)}\n{''.join(_members(each))}")
    return "".join(found)


def _signature(function: Callable[..., object]) -> str:
    return str(inspect.signature(function)).replace("'", "").replace("collections.abc.", "")


def _members(each: type) -> Iterator[str]:
    if dataclasses.is_dataclass(each):
        yield "\n| field | type | default |\n|---|---|---|\n"
        for field in dataclasses.fields(each):
            given = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            empty = "{}" if field.default is dataclasses.MISSING else repr(field.default)
            kind = str(field.type).replace("|", "\\|")
            yield f"| `{field.name}` | `{kind}` | {f'`{empty}`' if given else 'required'} |\n"
    elif issubclass(each, Enum):
        yield f"\nOne of {', '.join(f'`{name}.{member.name}`' for name in [each.__name__] for member in each)}.\n"
    elif getattr(each, "_is_protocol", False):
        yield "\n"
        for name, member in vars(each).items():
            if name.startswith("_"):
                continue
            if isinstance(member, property) and member.fget:
                yield _item(name, f": {inspect.signature(member.fget).return_annotation}", member)
            elif inspect.isfunction(member):
                yield _item(name, _signature(member), member)


def _item(name: str, shape: str, member: object) -> str:
    return f"- `{name}{shape}`: {' '.join((inspect.getdoc(member) or '').split())}\n"


def validation() -> str:
    """Return docs/validation.md."""
    found = ["# What is checked where\n\n", MADE.format("kmm/api/ and kmm/admission.py")]
    found.append(
        "`kmm validate` and the admission function give one judgement. The API server gives the same by the\n"
        "CustomResourceDefinition (`kmm crds`), structure first and then the rules in CEL, but for what no\n"
        "CustomResourceDefinition can say. A test compares them on 10,000 Modules.\n\n"
        "As with the Go operator, an empty string equals an absent field; as with Kubernetes, so does null.\n\n"
        "## Rules across fields, in CEL and in `kmm validate`\n\n| of | rule | what it says |\n|---|---|---|\n"
    )
    for name, made in _schemas():
        rules = [*made.rules_, *getattr(made.what_, "TRANSITIONS", ())]
        found += [f"| {name} | {rule.name} | {rule.message} |\n" for rule in rules if rule.cel]
    found.append(
        "\n## Only in `kmm validate` and the admission function\n\n"
        "| check | what it refuses | why not in CEL |\n|---|---|---|\n"
    )
    found += [f"| {row.name} | {row.what} | {row.why} |\n" for row in BEYOND]
    found.append(
        "\nBoth also warn, and refuse nothing, where a field is unknown (the API server drops it), a plugin that is\n"
        "named is not installed where they run, a label can be on no node, or a build or signature has nothing to\n"
        "work on.\n"
    )
    return "".join(found)


def _schemas() -> Iterator[tuple[str, Strict]]:
    seen: set[type] = set()
    waiting: list[type] = [kind.model for kind in KINDS]
    while waiting:
        what = waiting.pop(0)
        if what in seen:
            continue
        seen.add(what)
        made = schema(what)
        yield what.__name__, made
        for field in made.by_key.values():
            part = getattr(field, "inner", getattr(field, "entry", field))
            if isinstance(part, Part) and isinstance(part.what, type):
                waiting.append(part.what)


def configuration() -> str:
    """Return docs/config.md."""
    found = ["# Configuration of the operator\n\n", MADE.format("kmm/config.py")]
    found.append(
        "A YAML file, named by `--config` or `$KMM_CONFIG`, and environment variables, which win. Unknown keys and\n"
        "variables are refused, with the nearest known one. What neither says is as in the file `$KMM_DEFAULTS`,\n"
        "which the operator's image brings ([images](images.md)); a list replaces the one there.\n\n"
        "| key | variable | what |\n|---|---|---|\n"
    )
    names = {path: name for name, path in variables().items()}
    for path, field in _keys(Config, ()):
        variable = f"`{names[path]}`" if path in names else ""
        variable += ", separated by commas" if isinstance(field, Items) else ""
        found.append(f"| `{'.'.join(path)}` | {variable} | {field.metadata['description']} |\n")
    found.append(
        "\n`plugins.allow` names distributions (what pip installs), `plugins.options` plugins (their entry points;\n"
        "`kmm plugins` lists both):\n\n```yaml\nplugins:\n  allow: [acme-kmm]\n  options:\n    acme:\n"
        "      mirror: registry.example.com\n```\n\n"
        "From the environment alone, as in the Go operator's manifests: `OPERATOR_NAMESPACE`,\n"
        "`RELATED_IMAGES_BUILD`, `RELATED_IMAGES_SIGN`, `RELATED_IMAGES_MUST_GATHER`;\n"
        "and `RELATED_IMAGES_BUILDAH`, and `RELATED_IMAGES_OPERATOR`: the operator's own image, which signs where\n"
        "`RELATED_IMAGES_SIGN` names none.\n"
    )
    return "".join(found)


def _keys(what: type, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, field in schema(what).by_key.items():
        if isinstance(field, Part) and isinstance(field.what, type):
            yield from _keys(field.what, (*path, key))
        elif isinstance(field, Entries) and isinstance(field.entry, Part) and isinstance(field.entry.what, type):
            yield (*path, key), field
            yield from _keys(field.entry.what, (*path, key, "<host>"))
        else:
            yield (*path, key), field


def reasons() -> str:
    """Return docs/reasons.md."""
    found = ["# Reasons\n\n", MADE.format("kmm/core/reasons.py")]
    found.append(
        "Every word that conditions, events, logs, `kmm status` and `kmm plugins` use for why things are so.\n"
        "In commands, capitals stand for what is yours. What a Module has: `kmm status MODULE -n NAMESPACE`.\n\n"
        f"{', '.join(f'[{each}](#{each.lower()})' for each in sorted(Reason))}\n"
    )
    for about in About:
        found.append(f"\n## {about}\n")
        for each in Reason:
            if each.about is about:
                found.append(f"\n### {each}\n\n{each.meaning}\n\n- Cause: {each.cause}\n")
                found.append(f"- What to do: {each.remedy or 'nothing.'}\n")
    return "".join(found)


def conformance() -> str:
    """Return docs/conformance.md."""
    found = ["# Conformance\n\n", MADE.format("kmm/conformance/")]
    found.append(f"{inspect.getdoc(suite)}\n\n{_DOORS}")
    for names in _SAME_RULES:
        classes = [getattr(suite, name) for name in names]
        found.append(f"\n### {', '.join(f'`{name}`' for name in names)}\n\n{' '.join(map(_flat, classes))}\n\n")
        found.append(f"| rule | what it says |\n|---|---|\n{''.join(_rules(classes[0]))}\n")
        found.append(f"| fixture | what it is |\n|---|---|\n{''.join(_fixtures(classes[0]))}")
    return "".join(found)


_SAME_RULES = (
    ("PluginContract",),
    ("BuilderContract", "SignerContract", "DevicePluginContract"),
    ("RegistryContract",),
    ("DriverContract",),
    ("BaseImagesContract",),
    ("ValidationContract",),
    ("ObservationContract",),
)
_DOORS = """\
    pip install 'kmm-operator[conformance]'
    kmm conformance acme
    kmm conformance acme --config operator.yaml --report report.json

A plugin is called as `kmm plugins` calls it. `--config` is the operator's configuration: what stands there under
`plugins.options.acme` is what the plugin gets. `--cluster` names a kubeconfig: then the API server of that cluster
judges what is rendered, and stores nothing. Exit code 0: every rule holds; 1: one is broken; 2: there is no such
plugin, or the command is wrong. At the end there is a line for each claim; the report has the same as JSON.

A registry's plugin is asked about registries on 127.0.0.1: where it refuses to connect there, its options have to
allow it.

The other door, for what cannot be guessed, is a subclass in the plugin's own tests:

```python
import pytest

from kmm.conformance import BuilderContract, PluginContract


class TestAcme(PluginContract):
    @pytest.fixture
    def plugin(self):
        return "acme"


class TestAcmeBuilder(BuilderContract):
    @pytest.fixture
    def plugin(self):
        return "acme"

    @pytest.fixture
    def params(self):
        return {"profile": "fast"}
```

A rule that a plugin breaks knowingly is overridden with `@pytest.mark.xfail(reason="…")`, and told with that reason;
to override one without saying why is refused. What is not judged is told too, and why: an offer that breaks a
simple rule is not judged by those that build on it.

| result | what |
|---|---|
| `holds` | the rule is kept |
| `broken` | it is not: why stands beside it |
| `excused` | the plugin's own tests say that it is broken, and why |
| `unjudged` | it could not be told: why stands beside it |

## Rules
"""


def _flat(what: object) -> str:
    return " ".join((inspect.getdoc(what) or "").split())


def _rules(contract_class: type) -> Iterator[str]:
    for name, rule in rules(contract_class).items():
        yield f"| `{name}` | {_flat(rule)} |\n"


def _fixtures(contract_class: type) -> Iterator[str]:
    """Yield those that a subclass may have otherwise."""
    return (f"| `{name}` | {_flat(made)} |\n" for name, made in fixtures(contract_class))


def description() -> str:
    """Return docs/contract.json."""
    now = describe()
    told = _read(ROOT / "docs/contract.json")
    return written(to_be_written(json.loads(told), now, _read(ROOT / "CHANGELOG.md")) if told else now)


DOCUMENTS = {
    "docs/conformance.md": conformance,
    "docs/config.md": configuration,
    "docs/contract.json": description,
    "docs/hooks.md": hooks,
    "docs/reasons.md": reasons,
    "docs/validation.md": validation,
}


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    drifted = [name for name, make in DOCUMENTS.items() if _read(ROOT / name) != make()]
    lacking = [*_unversioned()]
    for each in lacking:
        print(each)
    for name in drifted:
        if name == "docs/contract.json" and lacking:
            continue  # what was told before is what the change is judged by
        if check:
            print(f"{name} is not what the code says: make docs")
        else:
            (ROOT / name).write_text(DOCUMENTS[name]())
            print(f"wrote {name}")
    return 1 if lacking or (drifted and check) else 0


def _unversioned() -> Iterator[str]:
    """Yield what the plugin contract lacks to be what it is, after the one that docs/contract.json tells."""
    if told := _read(ROOT / "docs/contract.json"):
        yield from faults(json.loads(told), describe(), _read(ROOT / "CHANGELOG.md"))


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
