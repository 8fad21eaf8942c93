"""Credentials from Secrets of both docker types, matched to images as Kubernetes' keyring does. Pure.

A `Credential` with a token and no user name is a bearer token (`registrytoken`); one with a token and a user name
is an identity token (`identitytoken`), to be exchanged for bearer tokens.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from kmm.contract import Credential
from kmm.oci.reference import Reference

DOCKER_CONFIG_JSON = "kubernetes.io/dockerconfigjson"
DOCKER_CFG = "kubernetes.io/dockercfg"
SECRET_KEYS: Mapping[str, str] = {DOCKER_CONFIG_JSON: ".dockerconfigjson", DOCKER_CFG: ".dockercfg"}
"""The key that a Secret of each type keeps its file under."""

SIZE_MOST = 2 * 1024 * 1024
ENTRIES_MOST = 10_000
_PATTERN_LONGEST = 512
_DEFAULT = "index.docker.io"
_HUB = frozenset({"docker.io", _DEFAULT})
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")


class CredentialsError(ValueError):
    """A file of credentials that cannot be read at all. The text repeats nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A credential and the pattern of the images it is for: `host[:port][/path]`, the host perhaps with globs."""

    pattern: str
    credential: Credential


def read_secret(kind: str, data: Mapping[str, bytes]) -> tuple[Entry, ...]:
    """Read the data (decoded) of a Secret of type `kind`.

    Raises CredentialsError where it is none of docker's types or lacks its key, and as `read_config`.
    """
    key = SECRET_KEYS.get(kind)
    if key is None:
        raise CredentialsError(f"is no Secret of type {DOCKER_CONFIG_JSON} or {DOCKER_CFG}")
    if key not in data:
        raise CredentialsError(f'lacks the key "{key}"')
    return read_config(data[key]) if kind == DOCKER_CONFIG_JSON else read_cfg(data[key])


def read_config(data: bytes) -> tuple[Entry, ...]:
    """Read a docker `config.json`: `{"auths": {…}}`. Entries that are wrong are left out.

    Raises CredentialsError where it is no such file.
    """
    found = _json(data).get("auths", {})
    if found is not None and not isinstance(found, dict):
        raise CredentialsError('has "auths" that are no object')
    return _entries(found or {})


def read_cfg(data: bytes) -> tuple[Entry, ...]:
    """Read the older `.dockercfg`: the bare map. As `read_config` otherwise."""
    return _entries(_json(data))


def matching(entries: Iterable[Entry], reference: Reference) -> tuple[Credential, ...]:
    """Return the credentials for `reference` in the order to try them, without repeats.

    As Kubernetes has it: the longer and plainer pattern first (patterns in reverse order of their letters), those
    of one pattern in the order given; Docker Hub's `index.docker.io` only where nothing else fits.
    """
    host = "docker.io" if reference.host in _HUB else reference.host
    target = urlsplit(f"https://{host}/{reference.name}")
    ordered = sorted(entries, key=lambda each: each.pattern, reverse=True)
    found = [each.credential for each in ordered if _fits(each.pattern, target)]
    if not found and host in _HUB:
        found = [each.credential for each in ordered if each.pattern == _DEFAULT]
    return tuple(dict.fromkeys(found))


def _json(data: bytes) -> dict[str, Any]:
    if len(data) > SIZE_MOST:
        raise CredentialsError(f"is larger than {SIZE_MOST // 1024 // 1024} MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise CredentialsError("is no JSON") from None
    if not isinstance(found, dict):
        raise CredentialsError("is no JSON object")
    if len(found) > ENTRIES_MOST:
        raise CredentialsError(f"has more than {ENTRIES_MOST:,} entries")
    return found


def _entries(raw: Mapping[str, Any]) -> tuple[Entry, ...]:
    if len(raw) > ENTRIES_MOST:
        raise CredentialsError(f"has more than {ENTRIES_MOST:,} entries")
    found: list[Entry] = []
    for where, said in raw.items():
        pattern, credential = _pattern(where), _credential(said)
        if pattern and credential:
            found.append(Entry(pattern=pattern, credential=credential))
    return tuple(found)


def _pattern(where: str) -> str:
    """Return what an entry is for without scheme and API version, or an empty text."""
    if len(where) > _PATTERN_LONGEST:
        return ""
    parts = _split(where if where.startswith(("https://", "http://")) else f"https://{where}")
    if parts is None or not parts.netloc or "@" in parts.netloc:
        return ""
    path = parts.path[3:] if parts.path.startswith(("/v1/", "/v2/")) else parts.path
    return parts.netloc + path if path not in ("", "/") else parts.netloc


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _fits(pattern: str, target: SplitResult) -> bool:
    wanted = _split(f"https://{pattern}")
    if wanted is None or not target.path.startswith(wanted.path):
        return False
    globs, port = _labels(wanted)
    labels, its_port = _labels(target)
    return (
        port == its_port
        and len(globs) == len(labels)
        and all(
            label == glob or fnmatch.fnmatchcase(label, glob.replace("[^", "[!"))
            for glob, label in zip(globs, labels, strict=True)
        )
    )


def _labels(parts: SplitResult) -> tuple[list[str], int | None]:
    host = parts.netloc if parts.port is None else parts.netloc.rpartition(":")[0]
    return ([host] if host.startswith("[") and ":" in host else host.split(".")), parts.port


def _credential(said: Any) -> Credential | None:
    if not isinstance(said, dict):
        return None
    texts = {key: value for key, value in said.items() if isinstance(value, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if auth := texts.get("auth"):
        decoded = _decoded(auth)
        if decoded is None:
            return None
        username, password = decoded
    if identity := texts.get("identitytoken"):
        return Credential(username=username or "<token>", token=identity) if _TOKEN.fullmatch(identity) else None
    if token := texts.get("registrytoken"):
        return Credential(token=token) if _TOKEN.fullmatch(token) else None
    # A user name may be empty where the password is a token; a colon in it cannot be sent.
    if ":" in username or not (username or password):
        return None
    return Credential(username=username, password=password)


def _decoded(auth: str) -> tuple[str, str] | None:
    bare = "".join(auth.split()).rstrip("=")
    try:
        text = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    username, colon, password = text.partition(":")
    return (username, password.strip("\0")) if colon else None
