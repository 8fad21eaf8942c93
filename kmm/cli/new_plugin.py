"""`kmm new-plugin`: writes a package that is a plugin already, for a vendor to go on from.

It is made of what stands in `templates`: the plugin `acme` of each kind, and what all kinds have in common.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from kmm import __version__
from kmm.admission import printable
from kmm.contract import ENTRY_POINT_GROUP, nearest
from kmm.errors import ConfigError
from kmm.loader import OWN_DISTRIBUTIONS

KINDS: Mapping[str, str] = {
    "builder": "builder of images",
    "signer": "signer of kernel modules",
    "registry": "client of a registry",
    "device-plugin": "renderer of device plugins",
    "driver": "driver",
    "base-images": "list of base images",
}
"""The kinds of plugins that there are templates of, and what one is."""

_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".in"
_USE = "use.md"  # goes into the README
_SETTINGS = "conformance.yaml"  # of a plugin that needs some to be asked
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_LONGEST = 63
_PLACEHOLDER = re.compile(r"acme[-_]kmm|[Aa]cme|@[a-z]+@")


def new_plugin(name: str, kind: str, directory: Path | None) -> int:
    """Write the package of a plugin, and print what to do with it. Return 0.

    `directory`: where to; `NAME-kmm`, else. Raises ConfigError, and has then written nothing.
    """
    if kind not in KINDS:
        raise ConfigError(
            f'there is no kind of plugin "{kind[:80]}"{nearest(kind, KINDS)} (kinds: {", ".join(KINDS)})'
        )
    _need_name(name)
    folder = directory or Path(f"{name}-kmm")
    files = package(name, kind)
    _write(folder, files)
    print(printable(f"{folder}: a {KINDS[kind]}"))
    for path in files:
        print(f"  {path}{'  <- the plugin' if path.endswith('/__init__.py') else ''}")
    print("It keeps the contract as it stands. See that, and go on from there:")
    commands = (f"cd {shlex.quote(str(folder))}", "pip install --editable '.[dev]'", "pytest")
    for command in (*commands, _conformance(name, files)):
        print(printable(f"  {command}"))
    return 0


def package(name: str, kind: str) -> dict[str, str]:
    """Return the files of a plugin's package: their texts by their paths."""
    found = {**_files("common"), **_files(kind)}
    use = found.pop(_USE)
    words = {
        "acme": name,
        "Acme": "".join(part.capitalize() for part in name.split("-")),
        "acme-kmm": f"{name}-kmm",
        "acme_kmm": f"{name.replace('-', '_')}_kmm",
        "@group@": ENTRY_POINT_GROUP,
        "@noun@": KINDS[kind],
        "@version@": __version__,
        "@conformance@": _conformance(name, found),
    }

    def filled(text: str) -> str:
        return _PLACEHOLDER.sub(lambda each: words[each[0]], text)

    words["@use@"] = filled(use).strip()
    return {filled(path): filled(text) for path, text in sorted(found.items())}


def _files(template: str) -> dict[str, str]:
    return dict(_read(_TEMPLATES / template))


def _read(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob(f"*{_SUFFIX}"):
        yield path.relative_to(folder).as_posix().removesuffix(_SUFFIX), path.read_text(encoding="utf-8")


def _conformance(name: str, files: Mapping[str, str]) -> str:
    return f"kmm conformance {name}" + (f" --config {_SETTINGS}" if _SETTINGS in files else "")


def _need_name(name: str) -> None:
    """Raise ConfigError for what cannot be the name of a plugin, a distribution and a module at once."""
    if len(name) > _NAME_LONGEST or not _NAME.fullmatch(name):
        raise ConfigError(
            f'"{name[:80]}" cannot be the name of a plugin: that is at most {_NAME_LONGEST} lower-case letters, '
            "digits and single dashes, beginning with a letter, such as acme-nic"
        )
    if name in ("kmm", "kmm-operator") or f"kmm-{name}" in OWN_DISTRIBUTIONS:
        raise ConfigError(
            f'"{name}" is the operator\'s own: a plugin of yours needs another name, such as acme-{name}'
        )
    for own in (name.removesuffix("-kmm"), name.removeprefix("kmm-")):
        if own != name:
            raise ConfigError(
                f'"{name}" would become {name}-kmm: the distribution gets its kmm by itself; name it {own}'
            )


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files that are not there yet, all of them or none."""
    for path in files:
        if os.path.lexists(folder / path):
            raise ConfigError(
                f"{folder / path} is there already, and nothing was written: move it away, or name another folder "
                "with --directory"
            )
    written: list[Path] = []
    target = folder
    try:
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as stream:
                written.append(target)
                stream.write(text)
    except OSError as error:
        for each in written:
            each.unlink(missing_ok=True)
        raise ConfigError(f"{target} cannot be written, and nothing was: {error.strerror}") from None
