"""What has to be known of a Dockerfile before it is built: which images it begins from, and how it mounts Secrets.

Only as much is read of it as that needs. What cannot be read is passed over: buildah itself judges the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile

from kmm.api.template import TemplateError, expand
from kmm.oci import reference

_IMAGES_MOST = 50
_VALUE_LONGEST = 4096  # characters
_DIRECTIVE = re.compile(r"#\s*[A-Za-z]+\s*=.*")
_ESCAPE = re.compile(r"#\s*escape\s*=\s*`\s*", re.IGNORECASE)
_ARG = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:=(\"[^\"]*\"|'[^']*'|\S*))?")
_HEREDOC = re.compile(r"(?:^|\s)\d*<<(-?)([\"']?)([A-Za-z_][A-Za-z0-9_]*)\2(?=$|[\s;|&>)])")
_TRANSPORTS = frozenset(
    {
        "containers-storage",
        "dir",
        "docker",
        "docker-archive",
        "docker-daemon",
        "oci",
        "oci-archive",
        "ostree",
        "sif",
        "tarball",
    }
)
_HAVE_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})


def base_images(text: str, args: Mapping[str, str], architecture: str) -> tuple[str, ...]:
    """Return the images that a Dockerfile begins or copies from, without repeats, in its order.

    `args`: those of the build, which win over what its ARGs say.
    """
    known = {"TARGETOS": "linux", "TARGETARCH": architecture, "TARGETPLATFORM": f"linux/{architecture}"}
    stages = {"scratch"}
    found: dict[str, None] = {}
    for name, rest in instructions(text):
        if name == "ARG":
            for key, default in _ARG.findall(rest):
                known[key] = args.get(key) or _expanded(default.strip("\"'"), known) or known.get(key, "")
            continue
        words = [word for word in rest.split() if not word.startswith("--")] if name == "FROM" else []
        for word in words[:1] or _copied_from(name, rest):
            image = _expanded(word.strip("\"'"), known)
            if image.lower() not in stages and not image.isdecimal() and _is_image(image):
                found[image] = None
        stages |= {word.lower() for word in words[2:3]}  # FROM image AS stage
    return tuple(found)[:_IMAGES_MOST]


def secrets_as_files(text: str) -> frozenset[str]:
    """Return the ids of the Secrets that a RUN mounts as `/run/secrets/<id>`, as it does where it names no target."""
    found: set[str] = set()
    for name, rest in instructions(text):
        for mount in _mounts(rest) if name == "RUN" else ():
            if mount.get("type") == "secret" and not mount.keys() & {"target", "dst", "destination"}:
                found.add(mount.get("id", ""))
    return frozenset(found)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction's name, in capitals, and what follows it, without comments and heredocs."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    escape = "`" if any(map(_ESCAPE.fullmatch, takewhile(_DIRECTIVE.fullmatch, lines))) else "\\"
    parts: list[str] = []
    ends: list[tuple[str, str]] = []
    for line in lines:
        if ends:
            dash, end = ends[0]
            if (line.lstrip("\t") if dash else line) == end:
                ends.pop(0)
            continue
        bare = line.strip()
        if bare.startswith("#") or not bare:
            continue
        if bare.endswith(escape):
            parts.append(line.rstrip()[:-1])
            continue
        name, *more = "".join((*parts, line)).split(maxsplit=1)
        parts, rest = [], "".join(more)
        if name.upper() in _HAVE_HEREDOCS:
            ends = [(dash, end) for dash, _, end in _HEREDOC.findall(rest)]
        yield name.upper(), rest


def _copied_from(name: str, rest: str) -> list[str]:
    """Return the images or stages that a COPY, an ADD or a RUN reads from."""
    if name in ("COPY", "ADD"):
        return [flag.removeprefix("--from=") for flag in _flags(rest) if flag.startswith("--from=")]
    return [mount["from"] for mount in _mounts(rest) if "from" in mount] if name == "RUN" else []


def _mounts(rest: str) -> Iterator[dict[str, str]]:
    for flag in _flags(rest):
        if flag.startswith("--mount="):
            fields = (field.partition("=") for field in flag.removeprefix("--mount=").split(","))
            yield {key.lower(): value for key, _, value in fields}


def _flags(rest: str) -> Iterator[str]:
    return takewhile(lambda word: word.startswith("--"), rest.split())


def _expanded(text: str, known: Mapping[str, str]) -> str:
    """Return a text with its variables replaced; none where it becomes longer than any image's name, as ARGs can."""
    left = _VALUE_LONGEST

    def look_up(name: str) -> str | None:
        nonlocal left
        value = known.get(name)
        left -= len(value or "")
        if left < 0:
            raise TemplateError("is too long")
        return value

    try:
        return expand(text, look_up) if len(text) <= _VALUE_LONGEST else ""
    except TemplateError:
        return ""


def _is_image(text: str) -> bool:
    if text.partition(":")[0] in _TRANSPORTS:
        return False  # to buildah it is a file or a folder, and nothing that needs credentials
    try:
        reference.parse(text)
    except reference.ReferenceError:
        return False
    return True
