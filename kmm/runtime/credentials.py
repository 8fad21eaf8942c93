"""What a registry is asked with: the Module's credentials, else the cluster's, and whom to trust."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path

from cachetools import TTLCache

from kmm.config import Config
from kmm.contract import Access, Credential
from kmm.core.view import Question, Subject
from kmm.errors import ConfigError, KmmError
from kmm.oci import credentials, reference
from kmm.oci.credentials import Entry
from kmm.runtime.kinds import SECRET, path_of
from kmm.runtime.references import References
from kmm.runtime.transport import NotFound, Transport, Unreachable

_KEPT_S = 60.0  # many questions of one Module come at once
_MOST = 500
_TRIED = 10  # credentials of one question: more would be guessing passwords


class CredentialError(KmmError):
    """A Module's own credentials cannot be used, so that nobody was asked."""


class Credentials:
    """Finds the credentials for a question. Values of Secrets are kept for a minute, and are in nothing told."""

    def __init__(self, config: Config, transport: Transport, references: References) -> None:
        self._config, self._transport, self._references = config, transport, references
        self._lock = threading.Lock()
        self._entries: TTLCache[tuple[str, str, str], tuple[Entry, ...]] = TTLCache(
            _MOST, _KEPT_S, timer=time.monotonic
        )

    def access(self, question: Question, subject: Subject) -> Access:
        """Return what to ask with: `imageRepoSecret`, the service account's pull secrets, the cluster's, in order.

        Raises:
            CredentialError: the Module's `imageRepoSecret` does not exist, or holds no credentials.
            ApiError, Unreachable: the API server does not say.
            ConfigError: a file of the configuration cannot be read.
        """
        image = reference.parse(question.image)
        referred = self._references.read(subject)
        if referred.access != question.access:
            raise Unreachable("the credentials have changed meanwhile")
        found: dict[Credential, None] = {}  # each once, in order
        for name in referred.pull_secrets:
            try:
                entries = self._read(subject.ref.namespace, name, question.access)
            except credentials.CredentialsError as error:
                if subject.spec and subject.spec.image_repo_secret and subject.spec.image_repo_secret.name == name:
                    raise CredentialError(f'the imageRepoSecret "{name}" {error}') from None
                continue  # a service account's is passed over, as the kubelet does
            found |= dict.fromkeys(credentials.matching(entries, image))
        checked = not (question.tls.insecure or question.tls.skip_verify)
        if self._config.pull_secret_file and checked:
            text = _file("pullSecretFile", self._config.pull_secret_file)
            try:
                found |= dict.fromkeys(credentials.matching(credentials.read_config(text), image))
            except credentials.CredentialsError as error:
                raise ConfigError(f"pullSecretFile: {self._config.pull_secret_file} {error}") from None
        return Access(credentials=tuple(found)[:_TRIED], tls=question.tls, ca_pem=self._trusted(image.host))

    def _read(self, namespace: str, name: str, access: str) -> tuple[Entry, ...]:
        key = (namespace, name, access)  # which changes with their contents
        with self._lock:
            known = self._entries.get(key)
        if known is not None:
            return known
        try:
            body = self._transport.ask("GET", path_of(SECRET, namespace, name)).read()
        except NotFound:
            raise credentials.CredentialsError("does not exist") from None
        data = {each: base64.b64decode(value) for each, value in (body.get("data") or {}).items()}
        entries = credentials.read_secret(str(body.get("type")), data)
        with self._lock:
            self._entries[key] = entries
        return entries

    def _trusted(self, host: str) -> str | None:
        registry = self._config.registries.get(host)
        files = {
            "caFile": self._config.ca_file,
            f"registries.{host}.caFile": registry.ca_file if registry else None,
        }
        found = [_file(key, path).decode(errors="replace") for key, path in files.items() if path]
        return "\n".join(found) or None


def _file(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: cannot be read: {error.strerror}") from None
