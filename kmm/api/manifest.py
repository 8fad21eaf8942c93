"""Reading files of manifests that may be anything: bounded in size, depth and time, nothing guessed.

YAML (1.1, as kubectl reads it) and JSON, several documents to a file. What JSON cannot say is refused; what
YAML would silently turn into something else (timestamps, base-60 numbers, keys that are no strings) stays text.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import yaml

SIZE_MOST = 3 * 1024 * 1024
"""Bytes. The API server takes no larger object either."""
VALUES_MOST = 50_000
"""In one file, keys apart."""
DEPTH_MOST = 64
DOCUMENTS_MOST = 1_000


class ManifestError(ValueError):
    """A file that cannot be read as manifests. The text says what and, where it is known, on which line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document: its value as JSON has it, and the line (from 1) on which it begins."""

    value: Any
    line: int


def read_limited(stream: BinaryIO) -> bytes:
    """Return what is in `stream`. Raises ManifestError where that is more than SIZE_MOST bytes.

    A file of a known size is refused unread; of a pipe or a device no more than the limit is read.
    """
    size = os.fstat(stream.fileno()).st_size if stream.seekable() else 0
    data = b"" if size > SIZE_MOST else stream.read(SIZE_MOST + 1)
    if size > SIZE_MOST or len(data) > SIZE_MOST:
        raise ManifestError(
            f"is larger than {SIZE_MOST // 1024 // 1024} MiB, more than the API server takes: split it into several "
            "files"
        )
    return data


def documents(data: bytes) -> list[Document]:
    """Return the documents in `data`, without the empty ones. Raises ManifestError, or returns at least one."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:2]:
        raise ManifestError("is UTF-16 text, or none: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"is not UTF-8 text (line {line:,} has byte {data[error.start]:#x}): save it as UTF-8"
        ) from None
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _json(text)
        except json.JSONDecodeError:
            pass  # YAML has braces too
    found: list[Document] = []
    for document in _yaml(text):
        if document.value is not None:
            found.append(document)
            _bound_number(found)
    if not found:
        raise ManifestError("is empty: it holds no manifest")
    return found


def items(stream: BinaryIO) -> Iterator[Any]:
    """Yield the objects of a JSON list (what `kubectl get -o json` prints) one by one, however many they are.

    Anything else, YAML for instance, is read whole and within the limits of `documents`. Raises ManifestError.
    """
    head = stream.read(_CHUNK)
    if head.lstrip()[:1] != b"{" or not _ITEMS.search(head.decode("utf-8", "replace")):
        rest = stream.read(SIZE_MOST + 1 - len(head)) if len(head) <= SIZE_MOST else b""
        if len(head) + len(rest) > SIZE_MOST:
            raise ManifestError("is larger than 3 MiB and not a JSON list: print it with -o json")
        for document in documents(head + rest):
            value = document.value
            below = value.get("items") if isinstance(value, dict) else None
            yield from below if isinstance(below, list) else [value]
        return
    decode = codecs.getincrementaldecoder("utf-8")().decode
    parse = json.JSONDecoder().raw_decode
    try:
        text, ended = _ITEMS.split(decode(head), maxsplit=1)[1], False
        while True:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                value, end = parse(text)
            except json.JSONDecodeError:
                if ended or len(text) > SIZE_MOST:
                    raise ManifestError(
                        "is a JSON list that breaks off, or holds something that is no JSON"
                    ) from None
                more = stream.read(_CHUNK)
                ended = not more
                text += decode(more, final=ended)
                continue
            yield value
            text = text[end:]
    except RecursionError:
        raise ManifestError(_too_deep()) from None
    except UnicodeDecodeError:
        raise ManifestError("is not UTF-8 text: save it as UTF-8") from None


_CHUNK = 1 << 18
_ITEMS = re.compile(r'"items"\s*:\s*\[')


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _json(text: str) -> list[Document]:
    count = 0

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal count
        count += len(found)
        if count > VALUES_MOST:
            raise ManifestError(_too_many())
        made: dict[str, Any] = {}
        for key, value in found:
            if key in made:
                raise ManifestError(f"has the key {_quoted(key)} twice in one object")
            made[key] = value
        return made

    decoder = json.JSONDecoder(
        object_pairs_hook=pairs, parse_constant=_no_number, parse_int=_integer, parse_float=_float
    )
    values: list[Document] = []
    at = _past_space(text, 0)
    line = text.count("\n", 0, at) + 1
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except RecursionError:
            raise ManifestError(_too_deep()) from None
        values.append(Document(value=value, line=line))
        _bound_number(values)
        at, before = _past_space(text, end), at
        line += text.count("\n", before, at)
    everything = [document.value for document in values]
    _bound(everything)
    try:
        json.dumps(everything, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ManifestError("has half of a surrogate pair (\\ud800 to \\udfff): no text can hold it") from None
    return values


def _past_space(text: str, at: int) -> int:
    found = re.compile(r"[^ \t\r\n]").search(text, at)
    return found.start() if found else len(text)


def _bound_number(found: list[Document]) -> None:
    if len(found) > DOCUMENTS_MOST:
        raise ManifestError(f"holds more than {DOCUMENTS_MOST:,} documents: split it up")


def _bound(value: Any) -> None:
    """Refuse a value that is too deep or too large, without recursion."""
    waiting, depth, count = [value], 0, 0
    while waiting:
        depth += 1
        count += len(waiting)
        if depth > DEPTH_MOST:
            raise ManifestError(_too_deep())
        if count > VALUES_MOST:
            raise ManifestError(_too_many())
        waiting = [
            below
            for outer in waiting
            for below in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]


# ── YAML ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Loader(yaml.CSafeLoader):
    """Resolves what JSON has (and kubectl's booleans); all else is a string."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own name and type


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"),
    list("yYnNtTfFoO"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


def _yaml(text: str) -> Iterator[Document]:
    try:
        _scan(text)
        loader = _Loader(text)
        try:
            while loader.check_node() and (node := loader.get_node()):
                yield Document(value=_Reader().value(node), line=node.start_mark.line + 1)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" on line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        if mark and text[mark.index : mark.index + 1] == "\t":
            where += ": YAML is indented with spaces, not with tabs"
        elif "escape character" in str(error.problem):
            where += ": put a text with backslashes, such as a regexp, in single quotes"
        elif error.context and error.context_mark and mark and error.context_mark.line != mark.line:
            where += f", {error.context} that begins on line {error.context_mark.line + 1}"
        raise ManifestError(f"is not YAML: {error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise ManifestError(f"is not YAML: {_one_line(error)}") from None


def _scan(text: str) -> None:
    """Refuse what is too deep or too large before any of it is built: the reader itself recurses."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MOST:
                raise ManifestError(_too_deep(event.start_mark.line + 1 if event.start_mark else 0))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if count > VALUES_MOST:
            raise ManifestError(_too_many())


class _Reader:
    """Makes one document's value; aliases cost what they stand for."""

    def __init__(self) -> None:
        self.count = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        self.count += 1
        if self.count > VALUES_MOST:
            raise ManifestError(_too_many())
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, line)
        if id(node) in self.open:
            raise ManifestError(f"refers to itself on line {line}: an alias cannot stand inside its own anchor")
        if len(self.open) >= DEPTH_MOST:
            raise ManifestError(_too_deep(line))
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                _expect(node, "tag:yaml.org,2002:seq", line)
                return [self.value(below) for below in node.value]
            _expect(node, "tag:yaml.org,2002:map", line)
            return self.mapping(node)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.Node) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, below in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ManifestError(f"has a key on line {line} that is not a string")
            if key.tag == "tag:yaml.org,2002:merge":
                sources = self.value(below)
                for source in sources if isinstance(sources, list) else [sources]:
                    if not isinstance(source, dict):
                        raise ManifestError(f'has "<<" on line {line} before something that is not an object')
                    merged = {**source, **merged}
                continue
            name = _key(key, line)
            if name in found:
                raise ManifestError(f"has the key {_quoted(name)} a second time in one object, on line {line}")
            found[name] = self.value(below)
        return {**merged, **found}


def _key(node: yaml.ScalarNode, line: int) -> str:
    """Return a key as the string that kubectl makes of it: `yes` is "true", `0x10` is "16"."""
    if node.tag in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int"):
        return json.dumps(_scalar(node, line))
    return str(node.value)


def _expect(node: yaml.Node, tag: str, line: int) -> None:
    if node.tag != tag:
        raise ManifestError(f"has the tag {_quoted(node.tag)} on line {line}, which no manifest needs")


def _scalar(node: yaml.ScalarNode, line: int) -> Any:
    text: str = node.value
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "str" | "merge":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() in ("y", "yes", "true", "on")
        case "int":
            return _integer(text, line)
        case "float":
            return _float(text, line)
    raise ManifestError(f"has the tag {_quoted(node.tag)} on line {line}, which no manifest needs")


def _integer(text: str, line: int = 0) -> int:
    digits = text.replace("_", "").lower()
    unsigned = digits.lstrip("+-")
    try:
        if len(unsigned) > 1 and unsigned[0] == "0" and unsigned[1] in "01234567":
            return int(digits, 8)
        found = int(digits, 0)
    except ValueError:
        found = 1 << 64
    if not -(1 << 63) <= found < 1 << 63:
        raise ManifestError(f"has a number{_on(line)} that does not fit into 64 bits")
    return found


def _float(text: str, line: int = 0) -> float:
    try:
        found = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ManifestError(f"has a number{_on(line)} that JSON cannot write")
    return found


def _no_number(text: str) -> None:
    raise ManifestError(f"has {text}, a number that JSON cannot write")


def _on(line: int) -> str:
    return f" on line {line}" if line else ""


def _too_many() -> str:
    return f"holds more than {VALUES_MOST:,} values (aliases count as what they stand for): split it up"


def _too_deep(line: int = 0) -> str:
    return f"is nested more than {DEPTH_MOST} deep{_on(line)}"


def _quoted(value: str) -> str:
    return f'"{value[:80]}"'


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
