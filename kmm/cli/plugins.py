"""`kmm plugins`: lists what is installed, what it offers, and what was refused and why; or only what is wrong."""

from __future__ import annotations

from kmm.admission import printable
from kmm.catalog import Catalog, Plugin
from kmm.core.reasons import reason_of


def plugins(catalog: Catalog) -> int:
    """Print the catalog. Return 1 where a plugin was refused, else 0."""
    for plugin in catalog.plugins:
        print(printable(f"{plugin.name} ({plugin.distribution} {plugin.version})"))
        for offer in _offers(plugin) or ["offers nothing"]:
            print(printable(f"  {offer}"))
        for each in plugin.deprecated:
            print(printable(f"  deprecated: {each}"))
    for refusal in catalog.refusals:
        print(printable(f"{refusal.name} ({refusal.distribution} {refusal.version})"))
        print(printable(f"  refused: {refusal.reason}: {refusal.message}"))
    if not catalog.plugins and not catalog.refusals:
        print("no plugins are installed: pip install 'kmm-operator[standard]'")
    return 1 if catalog.refusals else 0


def check(catalog: Catalog) -> int:
    """Print what is refused, why, and what to do, and how many are used. Return 1 where one is refused, else 0."""
    for refusal in catalog.refusals:
        who = f"{refusal.name} ({refusal.distribution} {refusal.version})"
        print(printable(f"{who} is refused: {refusal.reason}: {refusal.message}"))
        if (reason := reason_of(refusal.reason)) and reason.remedy:
            print(printable(f"  what to do: {reason.remedy}"))
    for plugin in catalog.plugins:
        for each in plugin.deprecated:
            print(printable(f"{plugin.name} ({plugin.distribution} {plugin.version}) uses what will go: {each}"))
    print(f"plugins used: {len(catalog.plugins)}, refused: {len(catalog.refusals)}")
    return 1 if catalog.refusals else 0


def _offers(plugin: Plugin) -> list[str]:
    offers = [f"registry {each.name} for {', '.join(each.hosts)}" for each in plugin.registries]
    for noun, found in (
        ("builder", plugin.builders),
        ("signer", plugin.signers),
        ("device-plugin renderer", plugin.device_plugins),
    ):
        offers += [f"{noun} {each.name} (makes {', '.join(kind.kind for kind in each.owns)})" for each in found]
    offers += [
        f"driver {each.name}" + (f": {each.description}" if each.description else "") for each in plugin.drivers
    ]
    offers += [f"base images {each.name} (build argument {each.argument})" for each in plugin.base_images]
    if plugin.validate_module:
        offers.append("judges Modules")
    if plugin.observe:
        offers.append("is told what the operator does")
    return offers
