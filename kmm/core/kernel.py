"""Kernel versions: how they are matched, and what they are in templates."""

from __future__ import annotations

import re

from kmm.api import template
from kmm.contract import ModuleRef
from kmm.errors import SpecError

_PIECES = 3
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def candidates(kernel: str) -> tuple[str, ...]:
    """Return what a mapping is compared with: the kernel verbatim, then without one trailing `+`."""
    return (kernel, kernel[:-1]) if kernel.endswith("+") else (kernel,)


def tag_safe(kernel: str) -> str:
    """Return a kernel as it stands in image names."""
    return _UNSAFE.sub("_", kernel.removesuffix("+"))


def expand(text: str, module: ModuleRef, kernel: str | None, *, in_image: bool = False) -> str:
    """Replace the variables of `text` for one kernel (None: where only `MOD_*` are known).

    Raises SpecError, which says what is wrong with the template or which variable this kernel has not.
    """
    try:
        return template.expand(text, _lookup(module, kernel, in_image=in_image))
    except template.TemplateError as error:
        raise SpecError(f'"{text[:80]}" {error}') from None


def _lookup(module: ModuleRef, kernel: str | None, *, in_image: bool) -> template.Lookup:
    def spell(piece: str) -> str:
        return _UNSAFE.sub("_", piece) if in_image else piece

    def lookup(name: str) -> str | None:
        if name == "MOD_NAME":
            return module.name
        if name == "MOD_NAMESPACE":
            return module.namespace
        if kernel is None or name not in template.VARIABLES:
            return None
        spelled = kernel.removesuffix("+") if in_image else kernel
        if name in ("KERNEL_FULL_VERSION", "KERNEL_VERSION"):
            return spell(spelled)
        pieces = re.split(r"[.,-]", spelled)
        if len(pieces) < _PIECES:
            raise SpecError(f'the kernel "{kernel[:80]}" has fewer than three parts, which ${name} is made of')
        x, y, z = map(spell, pieces[:_PIECES])
        return {"KERNEL_X": x, "KERNEL_Y": y, "KERNEL_Z": z}.get(name, f"{x}.{y}.{z}")

    return lookup
