"""`kmm manifests`: what has to be applied to a cluster beside the definitions."""

from __future__ import annotations

import json
from typing import Any

import yaml

from kmm.catalog import Catalog
from kmm.errors import ConfigError
from kmm.runtime.rbac import manifests


def rbac(namespace: str, output: str, catalog: Catalog) -> int:
    """Print the operator's service accounts, and the rules that it needs and no more."""
    if output not in ("yaml", "json"):
        raise ConfigError(f'output "{output}" is unknown: it is yaml or json')
    found: list[dict[str, Any]] = manifests(catalog, namespace)
    if output == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}, indent=2))
    else:
        print(yaml.safe_dump_all(found, sort_keys=False), end="")
    return 0
