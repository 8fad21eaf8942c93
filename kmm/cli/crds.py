"""`kmm crds`: prints the CustomResourceDefinitions."""

from __future__ import annotations

import json
from collections.abc import Sequence

import yaml

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KIND_BY_NAME, KINDS
from kmm.contract import nearest
from kmm.errors import ConfigError


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 -- PyYAML's own signature
        return True


def crds(output: str, kinds: Sequence[str]) -> int:
    """Print the definitions of `kinds` (all where empty) as `output` (yaml or json) says. Return 0."""
    spelled = {each.lower(): kind for kind in KINDS for each in (kind.kind, kind.plural, *kind.short_names)}
    for name in kinds:
        if name.lower() not in spelled:
            raise ConfigError(
                f'there is no kind "{name}"{nearest(name, KIND_BY_NAME)} (kinds: {", ".join(KIND_BY_NAME)})'
            )
    asked = [spelled[name.lower()] for name in kinds]
    made = [custom_resource_definition(kind) for kind in KINDS if not kinds or kind in asked]
    if output == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2))
    elif output == "yaml":
        print(yaml.dump_all(made, Dumper=_Dumper, sort_keys=False, width=110, explicit_start=True), end="")
    else:
        raise ConfigError(f'output "{output}" is unknown: it is yaml or json')
    return 0
