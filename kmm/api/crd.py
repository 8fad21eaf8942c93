"""CustomResourceDefinitions, made from the schemas that also judge what users write."""

from __future__ import annotations

from typing import Any

from kmm.api.kinds import ApiKind, Column
from kmm.api.metadata import VERSION
from kmm.api.schema import object_openapi


def custom_resource_definition(kind: ApiKind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind, as the API server takes it."""
    singular = kind.kind.lower()
    names: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": singular,
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def _root(kind: ApiKind) -> dict[str, Any]:
    said = object_openapi(kind.model)
    of = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
    said["properties"] |= {
        "apiVersion": {
            "type": "string",
            "description": f"Version of the schema that the object follows; see {of}",
        },
        "kind": {"type": "string", "description": f"Kind of the object; see {of}"},
        "metadata": {"type": "object"},  # the API server knows its own
    }
    said["required"] = ["spec"]
    return said


def _column(column: Column) -> dict[str, Any]:
    said: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.doc:
        said["description"] = column.doc
    if column.wide:
        said["priority"] = 1
    return said
