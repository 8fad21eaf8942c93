"""`kmm plan`: what the operator would do with a Module, for which kernels and nodes, and why not for the others.

Without a cluster: the nodes, the images that exist and what a Module refers to come from files.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from kmm.admission import is_ours, judge, line, printable
from kmm.api.manifest import ManifestError, documents, items, read_limited
from kmm.api.module import ModuleSpec
from kmm.api.schema import at
from kmm.catalog import Catalog
from kmm.cli.validate import flat
from kmm.contract import BaseImages, ModuleRef
from kmm.core import names
from kmm.core.actions import Create, Plan, Probe
from kmm.core.choice import builder_to_keep
from kmm.core.images import learn
from kmm.core.place import secret_key
from kmm.core.placement import Node, by_kernel, is_targeted, node_of, targeted, why_not
from kmm.core.reasons import Reason
from kmm.core.spoke import is_privileged, plan_module
from kmm.core.view import (
    Answer,
    Listed,
    Missing,
    Operator,
    Present,
    Question,
    SecretFacts,
    Subject,
    Unknown,
    View,
)
from kmm.errors import ConfigError

_KERNELS_SHOWN = 8


@dataclass
class _World:
    """What the files say there is."""

    modules: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    dockerfiles: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    secrets: dict[tuple[str, str], SecretFacts] = field(default_factory=dict)
    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    nodes: list[Node] | None = None
    images: dict[str, tuple[str, ...]] = field(default_factory=dict)
    others: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan for one Module, and what was assumed for it."""

    subject: Subject
    view: View
    plan: Plan
    nodes: tuple[Node, ...]
    notes: tuple[str, ...]


def plan(files: Sequence[str], nodes: str | None, images: str | None, output: str, catalog: Catalog) -> int:
    """Print what would be done. Return 1 where a Module is wrong, else 0. Raises ConfigError for wrong use."""
    if output not in ("table", "yaml", "json"):
        raise ConfigError(f'output "{output}" is unknown: it is table, yaml or json')
    if [*files, nodes, images].count("-") > 1:
        raise ConfigError("standard input (-) can be read only once")
    world = _World()
    for file in files:
        _read_manifests(file, world)
    if nodes is not None:
        world.nodes = _read_nodes(nodes)
    if images is not None:
        world.images = _read_images(images)
    if not world.modules:
        raise ConfigError(f"{', '.join(files)}: no Module in it: there is nothing to plan")
    failed = False
    found: list[Planned] = []
    for file, manifest in world.modules:
        judgement = judge(manifest, catalog)
        for finding in judgement.errors:
            print(printable(f"{file}: {_title(manifest)}: ") + line(finding), file=sys.stderr)
        if judgement.errors:
            failed = True
        elif manifest.get("kind") != "Module":
            print(printable(f"{file}: {_title(manifest)}: only Modules are planned"), file=sys.stderr)
        else:
            found.append(_plan(manifest, judgement.value.spec, world, catalog))
    _print(found, output)
    return int(failed)


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _reading(file: str) -> Iterator[BinaryIO]:
    try:
        if file == "-":
            yield sys.stdin.buffer
        else:
            with Path(file).open("rb") as stream:
                yield stream
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except ManifestError as error:
        raise ConfigError(f"{file}: {error}") from None


def _read_manifests(file: str, world: _World) -> None:
    with _reading(file) as stream:
        values = [document.value for document in documents(read_limited(stream))]
    for value in (each for whole in values for each in flat(whole)):
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{file}: holds something that is not an object: a manifest begins with apiVersion and kind"
            )
        if is_ours(value):
            known = {_title(each) for _, each in world.modules}
            if _title(value) in known:
                raise ConfigError(f"{file}: {_title(value)} is there a second time")
            world.modules.append((file, value))
        else:
            _take(value, world)


def _take(value: Mapping[str, Any], world: _World) -> None:
    key = (str(at(value, "metadata", "namespace") or "default"), str(at(value, "metadata", "name") or ""))
    match value.get("kind"):
        case "ConfigMap":
            for name in ("dockerfile", "Dockerfile"):
                if isinstance(text := at(value, "data", name), str):
                    world.dockerfiles.setdefault(key, (name, text))
        case "Secret":
            data = {**_object(value, "stringData"), **_object(value, "data")}
            world.secrets[key] = SecretFacts(keys=tuple(sorted(data)), digest=names.digest(data))
        case "Namespace":
            world.namespaces[key[1]] = _object(value.get("metadata") or {}, "labels")
        case _:
            world.others.append(value)


def _object(of: object, key: str) -> Mapping[str, Any]:
    found = at(of, key)
    return found if isinstance(found, Mapping) else {}


def _read_nodes(file: str) -> list[Node]:
    nodes = []
    with _reading(file) as stream:
        for number, item in enumerate(items(stream), 1):
            if not isinstance(item, Mapping) or item.get("kind", "Node") != "Node":
                raise ConfigError(
                    f"{file}: item {number} is no Node: it must be what `kubectl get nodes -o json` prints"
                )
            node = node_of(item)
            if not node.name or not node.kernel:
                raise ConfigError(f"{file}: item {number} has no metadata.name or no status.nodeInfo.kernelVersion")
            nodes.append(node)
    return nodes


def _read_images(file: str) -> dict[str, tuple[str, ...]]:
    """Read the images that exist: one a line, a list, or a map of images to lists of architectures."""
    with _reading(file) as stream:
        (value, *more) = [document.value for document in documents(read_limited(stream))]
    if isinstance(value, str):
        return dict.fromkeys(value.split(), ())
    if isinstance(value, list) and not more:
        return dict.fromkeys(map(str, value), ())
    if (
        isinstance(value, Mapping)
        and not more
        and all(each is None or isinstance(each, list) for each in value.values())
    ):
        return {key: tuple(map(str, below or ())) for key, below in value.items()}
    raise ConfigError(f"{file}: must name images: one a line, a list, or a map of images to architectures")


# ── Planning ──────────────────────────────────────────────────────────────────────────────────────────────────


def _plan(manifest: Mapping[str, Any], spec: ModuleSpec, world: _World, catalog: Catalog) -> Planned:
    namespace = str(at(manifest, "metadata", "namespace") or "default")
    name = str(at(manifest, "metadata", "name") or at(manifest, "metadata", "generateName"))
    notes: list[str] = []
    uid = at(manifest, "metadata", "uid")
    if not isinstance(uid, str):
        uid = hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:32]
        notes.append("the Module has no uid yet: names of objects end in other characters in a cluster")
    operator, labels = Operator(), world.namespaces.get(namespace)
    if labels is None and not is_privileged(namespace, {}, operator):
        operator = replace(operator, privileged_namespaces=frozenset({namespace}))
        notes.append(
            f"the Namespace {namespace} is not in the files: privileged pods are assumed to be allowed there"
        )
    nodes = world.nodes
    if nodes is None:
        nodes = _imagined(spec)
        notes.append(
            "no --nodes: planned for one imagined node with each kernel that a mapping names literally"
            if nodes
            else "no --nodes, and no mapping names its kernel literally: there is nothing to plan for"
        )
    subject = Subject(ref=ModuleRef(namespace=namespace, name=name), uid=uid, spec=spec)
    view = View(
        targets=by_kernel(targeted(spec, nodes)),
        kernels=frozenset(node.kernel for node in nodes),
        dockerfiles={key[1]: value for key, value in world.dockerfiles.items() if key[0] == namespace},
        secrets={secret_key(*key, subject.ref): value for key, value in world.secrets.items()},
        namespace_labels=labels or {},
        operator=operator,
        base_images={argument: _listed(offer, world) for argument, offer in catalog.base_images.items()},
    )
    if chosen := builder_to_keep(spec, catalog, view):
        notes.append(f"nobody names a builder: {chosen} builds, but openshift-build in clusters that have its API")
    made = plan_module(subject, view, catalog, 0.0)
    while questions := [each.question for each in made.actions if isinstance(each, Probe)]:
        for question in questions:
            view = replace(view, answers=learn(view.answers, question, _answer(question, world)))
        made = plan_module(subject, view, catalog, 0.0)
    return Planned(subject=subject, view=view, plan=made, nodes=tuple(nodes), notes=tuple(notes))


def _listed(offer: BaseImages, world: _World) -> Listed | Unknown:
    """Return what the files say of base images."""
    listing = offer.listing
    if listing is None:
        return Listed(by_version=offer.images(None))
    for each in world.others:
        if (
            each.get("apiVersion"),
            each.get("kind"),
            at(each, "metadata", "namespace"),
            at(each, "metadata", "name"),
        ) == (
            listing.kind.api_version,
            listing.kind.kind,
            listing.namespace,
            listing.name,
        ):
            return Listed(by_version=offer.images(each))
    return Unknown(message=f"{listing.kind.kind} {listing.namespace}/{listing.name} is not in the files")


def _imagined(spec: ModuleSpec) -> list[Node]:
    container = spec.module_loader.container if spec.module_loader else None
    return [
        Node(name=f"imagined-{index}", kernel=mapping.literal, labels=spec.selector)
        for index, mapping in enumerate(container.kernel_mappings if container else ())
        if mapping.literal is not None
    ]


def _answer(question: Question, world: _World) -> Answer:
    if question.image in world.images:
        digest = f"sha256:{hashlib.sha256(question.image.encode()).hexdigest()}"
        return Present(digest=digest, architectures=world.images[question.image])
    return Missing()


# ── Printing ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 -- PyYAML's own signature
        return True


def _print(found: Sequence[Planned], output: str) -> None:
    objects = [each.manifest for planned in found for each in planned.plan.actions if isinstance(each, Create)]
    if output == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2))
    elif output == "yaml":
        print(yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=110, explicit_start=True), end="")
    if output == "table":
        for planned in found:
            print("\n".join(printable(each) for each in _table(planned)))
    else:
        for planned in found:
            for note in planned.notes:
                print(
                    printable(f"{planned.subject.ref.namespace}/{planned.subject.ref.name}: {note}"), file=sys.stderr
                )


def _table(planned: Planned) -> Iterator[str]:
    ref, spec = planned.subject.ref, planned.subject.spec
    yield f"Module {ref.namespace}/{ref.name}"
    creates = [each for each in planned.plan.actions if isinstance(each, Create)]
    by = {each.manifest["metadata"]["annotations"].get(names.VERBATIM_KERNEL, ""): each for each in creates}
    rows = [("KERNEL", "NODES", "CREATES", "WHY")]
    for kernel, nodes in sorted(planned.view.targets.items()):
        made = by.get(kernel)
        what = f"{made.kind.kind} {made.name}" if made else "nothing"
        why = planned.plan.reasons.get(kernel, "")
        if made and why.startswith(Reason.LOADING):
            why = f"loads {made.manifest['spec']['template']['spec']['containers'][0]['image']}"
        rows.append((kernel, str(nodes.nodes), what, why))
    if made := by.get(""):
        rows.append(("(device plugin)", "", f"{made.kind.kind} {made.name}", "runs where the module is loaded"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows if len(rows) > 1 else ():
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        yield "  " + "  ".join([*cells, row[3]]).rstrip()
    if blocked := planned.plan.reasons.get(""):
        yield f"  nothing is done: {blocked}"
    elif len(rows) == 1:
        yield "  no node is targeted, so nothing is created" if planned.nodes else "  there are no nodes to plan for"
    others = (
        Counter(why_not(spec, node) for node in planned.nodes if not is_targeted(spec, node)) if spec else Counter()
    )
    for why, count in others.most_common(_KERNELS_SHOWN):
        yield f"  not for {count} node{'s' * (count > 1)} {why}"
    if any(why.startswith(Reason.INPUT_MISSING) for why in planned.plan.reasons.values()):
        yield "  note: what a Module refers to is looked for in the files of -f alone"
    for note in planned.notes:
        yield f"  note: {note}"


def _title(manifest: Mapping[str, Any]) -> str:
    namespace, name = at(manifest, "metadata", "namespace"), at(manifest, "metadata", "name")
    return f"{manifest.get('kind')} {f'{namespace}/' if namespace else ''}{name or '(no name)'}"[:400]
