"""Where signatures are made, and what they read there: what signers say of it, before anything is rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kmm.contract import ModuleRef, Place, Placed, Signer
from kmm.core import names
from kmm.core.mapping import merge_signs
from kmm.core.rendered import RendererError
from kmm.core.view import Operator, SecretFacts, Subject, Task
from kmm.errors import PluginError
from kmm.job import is_name


def place_of(signer: Signer, module: ModuleRef, params: Mapping[str, Any]) -> Place:
    """Return where a signer works for a Module. Raises RendererError."""
    if not isinstance(signer, Placed):
        return Place()
    try:
        made: Any = signer.place(module, params)
    except Exception as error:  # a plugin may raise anything, and must stop nobody else
        raise RendererError(f'"{signer.name}" could not render: {type(error).__name__}: {error}'[:500]) from None
    named = {*made.secrets, made.certificate, made.alone} - {""} if isinstance(made, Place) else {None}
    if not isinstance(made, Place) or not all(is_name(each) for each in named) or not named <= {*made.secrets}:
        raise RendererError(f'"{signer.name}" says no place where it works')
    return made


def namespace_of(place: Place, module: ModuleRef, operator: Operator) -> str:
    """Return the namespace that a place is in."""
    return operator.namespace if place.operators else module.namespace


def secret_key(namespace: str, name: str, module: ModuleRef) -> str:
    """Return by what a view has a Secret: its name, and behind its namespace where that is not the Module's."""
    return name if namespace == module.namespace else f"{namespace}/{name}"


def mark(namespace: str, name: str, facts: SecretFacts) -> str:
    """Return what stands for a Secret that is read alone, and for what it holds."""
    return names.digest(namespace, name, facts.sealed, length=32)


def is_kept(task: Task, module: ModuleRef, secrets: Mapping[str, SecretFacts]) -> bool:
    """Whether a task stays, whatever else changes, while the Secret that it reads alone holds what it held.

    Its pods would outlive it, and use what nobody would hear of; or it alone remembers that this is refused.
    """
    namespace = task.namespace or module.namespace
    facts = secrets.get(secret_key(namespace, task.alone_with, module))
    return task.keeps_others_out and facts is not None and task.alone == mark(namespace, task.alone_with, facts)


def places(
    subject: Subject, signer: Callable[[str | None], Signer], operator: Operator
) -> Iterator[tuple[str, Place]]:
    """Yield the places of all that a Module wants signed, with their namespaces: those that can be told."""
    loader = subject.spec.module_loader if subject.spec else None
    container = loader.container if loader else None
    for mapping in container.kernel_mappings if container else ():
        if (sign := merge_signs(container.sign if container else None, mapping.sign)) is None:
            continue
        try:
            place = place_of(signer(sign.signer), subject.ref, sign.params)
        except PluginError:
            continue  # it is told where it is in the way
        yield namespace_of(place, subject.ref, operator), place
