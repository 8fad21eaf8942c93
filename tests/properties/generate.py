"""Modules by chance: mostly well-formed by the schema, with something wrong here and there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

HOSTILE = (
    "",
    "a",
    "kmm_ci_a",
    "-x",
    "..",
    "/opt",
    "/a/../b",
    "/",
    "//",
    "/opt/",
    "$(reboot)",
    "'; reboot; '",
    "`reboot`",
    '"unbalanced',
    "a=1 b=2",
    "${KERNEL_XYZ}",
    "${never closed",
    "$$",
    "(a+)+$",
    "((",
    "a{1001}",
    "Always",
    "registry.example.com/a:${KERNEL_FULL_VERSION}",
    "x" * 64,
    "y" * 300,
    "z" * 1025,
    "1",
    "500m",
    "é\u202e",
    "a\nb",
    "a\x00b",
    "\x1b[31m",
)
JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    6.1,
    1 << 40,
    [],
    {},
    [None],
    {"a": None},
    "x",
    ["a", "a"],
    [[]],
)


def modules(seed: int, count: int, schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield `count` Modules, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 -- tests
    for _ in range(count):
        wildness = chance.choice((0.0, 0.0, 0.01, 0.05))
        spec = _value(schema["properties"]["spec"], chance, wildness, 0)
        if isinstance(spec, dict) and chance.random() < 0.8:
            _make_whole(spec, chance)
        yield {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
            "kind": "Module",
            "metadata": {"name": "m", "namespace": "n"},
            "spec": spec,
        }


def _make_whole(spec: dict[str, Any], chance: random.Random) -> None:
    """Most Modules by chance break a rule that crosses fields: mend the commonest breaks, most of the time."""
    if chance.random() < 0.9:
        spec.setdefault("selector", {"a": "b"})
    if chance.random() < 0.15:
        spec["driver"] = "acme"
        return
    spec.pop("driver", None)
    loader = spec.setdefault("moduleLoader", {})
    container = loader.setdefault("container", {}) if isinstance(loader, dict) else None
    if not isinstance(container, dict):
        return
    modprobe = container.setdefault("modprobe", {})
    if isinstance(modprobe, dict) and chance.random() < 0.9:
        if chance.random() < 0.7:
            modprobe["moduleName"] = "kmm_ci_a"
            modprobe.pop("rawArgs", None)
            if chance.random() < 0.5:
                modprobe.pop("modulesLoadingOrder", None)
            else:
                modprobe["modulesLoadingOrder"] = ["kmm_ci_a", "kmm_ci_b"]
        else:
            for key in ("moduleName", "modulesLoadingOrder"):
                modprobe.pop(key, None)
            modprobe["rawArgs"] = {"load": ["a"], "unload": ["b"]}
    mappings = container.setdefault("kernelMappings", [{}])
    for mapping in mappings if isinstance(mappings, list) else ():
        if isinstance(mapping, dict) and chance.random() < 0.9:
            mapping.pop(chance.choice(("literal", "regexp")), None)
            if not mapping.get("literal") and not mapping.get("regexp"):
                mapping["regexp"] = "^6"
            if chance.random() < 0.9:
                mapping["containerImage"] = "registry.example.com/a"


def _value(schema: Mapping[str, Any], chance: random.Random, wildness: float, depth: int) -> Any:
    if chance.random() < wildness:
        return chance.choice(JUNK)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return chance.choice((1, "1", "500m", "x"))
    match schema.get("type"):
        case "object":
            return _object(schema, chance, wildness, depth)
        case "array":
            least = schema.get("minItems", 0)
            return [
                _value(schema["items"], chance, wildness, depth + 1) for _ in range(chance.randint(least, least + 2))
            ]
        case "boolean":
            return chance.random() < 0.5
        case "integer":
            return chance.choice((0, 1, 80))
    if wildness and chance.random() < 0.3:
        return chance.choice(HOSTILE)
    pattern = schema.get("pattern", "")
    if "/" in pattern:
        return chance.choices(("/opt", "/var/lib/firmware/x"), (30, 1))[0]
    return chance.choice(("kmm_ci_a", "x", "b1"))


def _object(schema: Mapping[str, Any], chance: random.Random, wildness: float, depth: int) -> Any:
    if "properties" not in schema:
        inner = schema.get("additionalProperties")
        keys = chance.sample(("a", "b.example/c", "d"), chance.randint(0, 2))
        return {key: _value(inner, chance, wildness, depth + 1) if inner else chance.choice(JUNK) for key in keys}
    required = schema.get("required", ())
    # Kubernetes' own types have dozens of fields: a few of them at a time will do.
    often = min(
        0.6 if depth < 5 else 0.15,
        4 / len(schema["properties"]) if depth > 2 and len(schema["properties"]) > 14 else 1,
    )
    made = {
        key: _value(below, chance, wildness, depth + 1)
        for key, below in schema["properties"].items()
        if chance.random() < (1 - wildness if key in required else often)
    }
    if chance.random() < wildness:
        made["unknwon"] = chance.choice(JUNK)
    return made
