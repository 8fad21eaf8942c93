"""The commands that load and unload a kernel module inside its own image.

Images need only `modprobe` and `sleep`: a single modprobe is an argv without a shell. `/bin/sh -c` is used where
there are several steps, and every word in it is quoted. Users' words are split as a shell would, never expanded.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from itertools import pairwise

from kmm.api.module import Modprobe
from kmm.errors import SpecError

FIRMWARE = "/var/lib/firmware"
# Beside the image's own modprobe.d, not instead of it: modprobe reads this folder too.
_ORDER_FOLDER = "/run/modprobe.d"

# Removes from $2 what is in the folder $1, and folders left empty, but not $2 itself; without `find`, which
# small images lack.
_REMOVE_COPIED = (
    'remove() { [ "$1" -ef "$2" ] && return; for f in "$1"/* ${3:+"$1"/.[!.]*}; do '
    '[ -e "$f" ] || [ -L "$f" ] || continue; '
    'if [ -d "$f" ] && [ ! -L "$f" ]; then ( remove "$f" "$2/${f##*/}" all ); rmdir "$2/${f##*/}" 2>/dev/null; '
    'else rm -f "$2/${f##*/}"; fi; done; :; }'
)


def load_command(modprobe: Modprobe, in_tree_modules: tuple[str, ...]) -> tuple[str, ...]:
    """Return the argv that loads. Raises SpecError for words whose quotes do not close."""
    load = ("modprobe", *_load_words(modprobe))
    steps = [_quoted(("modprobe", "-r", *in_tree_modules))] if in_tree_modules else []
    if modprobe.firmware_path:
        steps.append(f"cp -r {shlex.quote(modprobe.firmware_path)}/* {FIRMWARE}")
    if modprobe.modules_loading_order:
        lines = _quoted(softdeps(modprobe.modules_loading_order))
        steps.append(f"mkdir -p {_ORDER_FOLDER} && printf '%s\\n' {lines} > {_ORDER_FOLDER}/kmm-order.conf")
    return _shell([*steps, _quoted(load)]) if steps else load


def unload_command(modprobe: Modprobe, kernel: str) -> tuple[str, ...]:
    """Return the argv that unloads. Raises SpecError for words whose quotes do not close.

    The kubelet runs it also after a failed load: so what is missing is no error, but `modprobe -r` always runs and
    its exit code counts. In a shell, nothing is done on another kernel than the one that it was made for.
    """
    unload = ("modprobe", *_unload_words(modprobe))
    if not modprobe.firmware_path:
        return unload
    return _shell(
        [_quoted(unload)],
        before=[
            f'[ "$(uname -r)" = {shlex.quote(kernel)} ] || exit 0',
            _REMOVE_COPIED,
            f"remove {shlex.quote(modprobe.firmware_path)} {FIRMWARE}",
        ],
    )


def softdeps(order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines that make modprobe load each module after the one behind it in `order`."""
    return tuple(f"softdep {module} pre: {needed}" for module, needed in pairwise(order))


def words(texts: Iterable[str]) -> tuple[str, ...]:
    """Split users' texts into words as a POSIX shell would, without any expansion. Raises SpecError."""
    found: list[str] = []
    for text in texts:
        try:
            found += shlex.split(text)
        except ValueError as error:
            raise SpecError(f'"{text[:80]}" cannot be split into words: {str(error).lower()}') from None
    return tuple(found)


def _load_words(modprobe: Modprobe) -> tuple[str, ...]:
    if modprobe.raw_args and modprobe.raw_args.load:
        return words(modprobe.raw_args.load)
    options = words(modprobe.args.load) if modprobe.args and modprobe.args.load else ("-v",)
    return (*options, "-d", modprobe.dir_name, _module_name(modprobe), *words(modprobe.parameters))


def _unload_words(modprobe: Modprobe) -> tuple[str, ...]:
    if modprobe.raw_args and modprobe.raw_args.unload:
        return words(modprobe.raw_args.unload)
    options = words(modprobe.args.unload) if modprobe.args and modprobe.args.unload else ("-rv",)
    return (*options, "-d", modprobe.dir_name, _module_name(modprobe))


def _module_name(modprobe: Modprobe) -> str:
    if modprobe.module_name is None:
        raise SpecError("modprobe has neither a moduleName nor rawArgs with both load and unload")
    return modprobe.module_name


def _quoted(argv: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, argv))


def _shell(steps: list[str], before: Iterable[str] = ()) -> tuple[str, ...]:
    """Run `before` one by one whatever happens, then `steps` until one fails; keep why for the pod's status."""
    script = [
        *before,
        f"said=$( {{ {' && '.join(steps)}; }} 2>&1 )",
        "code=$?",
        "printf '%s\\n' \"$said\"",
        '[ "$code" = 0 ] || printf \'%s\\n\' "$said" > /dev/termination-log',
        'exit "$code"',
    ]
    return ("/bin/sh", "-c", "\n".join(script))
