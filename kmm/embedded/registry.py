"""An image registry in this process: start it, push to it, ask it by HTTP(S), stop it."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

from kmm.embedded.account import Account
from kmm.embedded.distribution import Distribution, Entry
from kmm.embedded.image import Image, Layer, image, index
from kmm.embedded.loop_thread import LoopThread
from kmm.embedded.manifest import Manifest
from kmm.embedded.registry_access import Access, Auth
from kmm.embedded.registry_fault import RegistryFaults
from kmm.embedded.repository import Repositories
from kmm.oci import reference as references


class Registry:
    """An image registry, in a thread of this process, with a token server where it has Bearer tokens.

    A context manager. `auth`: how it wants to be told who asks; `users`: passwords, or accounts with rights, by name;
    `public`: what may be pulled with an anonymous token, as shell patterns; `token_s`: how long tokens are good for;
    `tls`: serve HTTPS with an own CA; `relative`: Locations are paths, not whole addresses; `folder`: where blobs are
    written (a temporary one, else).
    """

    def __init__(
        self,
        *,
        auth: Auth | str = Auth.NONE,
        users: Mapping[str, str | Account] | None = None,
        public: Sequence[str] = (),
        token_s: float = 300,
        tls: bool = True,
        relative: bool = False,
        folder: Path | str | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        accounts = {
            name: each if isinstance(each, Account) else Account(password=each)
            for name, each in (users or {}).items()
        }
        anonymous = Account(password="", pull=tuple(public), push=())
        self._temporary = tempfile.TemporaryDirectory(prefix="kmm-registry-") if folder is None else None
        self.folder = Path(folder or (self._temporary.name if self._temporary else ""))
        self._address, self._tls = host, tls
        self._authority = trustme.CA(organization_name="kmm embedded registry") if tls else None
        self._access = Access(Auth(auth), accounts, anonymous, token_s)
        self._repositories = Repositories(self.folder)
        self._distribution = Distribution(self._repositories, self._access, relative=relative)
        self._thread = LoopThread("Registry")

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._thread.call(self._distribution.start(self._address, self._context()))
            self._access.realm = f"{self.url}/token"
            if self._authority:
                self._authority.cert_pem.write_to_path(str(self.ca_file))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._thread.alive:
            return
        self._thread.call(self._distribution.stop())
        self._thread.stop()
        self._repositories.close()
        if self._temporary:
            self._temporary.cleanup()

    @property
    def host(self) -> str:
        """How references name it: address and port."""
        self._thread.running()
        return f"{self._address}:{self._distribution.port}"

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self.host}"

    @property
    def store(self) -> str:
        """The host, with its port, to which the fault REDIRECT sends."""
        return f"{self._address}:{self._distribution.store_port}"

    @property
    def ca_file(self) -> Path:
        """The certificate of its CA, in PEM, where it serves HTTPS."""
        return self.folder / "ca.crt"

    @property
    def ca_pem(self) -> str:
        """The certificate of its CA; empty with plain HTTP."""
        return self._authority.cert_pem.bytes().decode() if self._authority else ""

    @property
    def faults(self) -> RegistryFaults:
        """What is to go wrong."""
        return self._distribution.faults

    @property
    def log(self) -> list[Entry]:
        """The requests so far."""
        return list(self._distribution.log)

    @property
    def realm(self) -> str:
        """Where its challenges say that tokens are had; another may be set."""
        return self._access.realm

    @realm.setter
    def realm(self, url: str) -> None:
        self._access.realm = url

    @contextmanager
    def down(self) -> Iterator[None]:
        """Let nobody listen on its ports for a while; what is stored stays."""
        self._thread.call(self._distribution.stop())
        try:
            yield
        finally:
            self._thread.call(self._distribution.start(self._address, self._context()))

    def images(self) -> dict[str, str]:
        """Return the digests of what has a tag, by `repository:tag`."""

        def read() -> dict[str, str]:
            return {
                f"{name}:{tag}": digest
                for name, repository in self._repositories
                for tag, digest in sorted(repository.tags.items())
            }

        return dict(self._thread.call(read))

    def push_image(
        self,
        name: str,
        files: Mapping[str, bytes] | None = None,
        *,
        layers: Sequence[Layer] = (),
        architecture: str = "amd64",
        annotations: Mapping[str, str] | None = None,
        docker: bool = False,
    ) -> str:
        """Put an image here without asking; return its digest.

        `name`: repository and tag, or repository alone. `layers`: from the lowest, each files or the bytes of a tar;
        `files`: one more on top. `docker`: with Docker's media types.
        """
        over = [files] if files is not None else []
        made = image([*layers, *over], architecture=architecture, annotations=annotations, docker=docker)
        self._thread.call(self._store, name, made)
        return made.digest

    def push_index(
        self,
        name: str,
        digests: Mapping[str, str],
        *,
        annotations: Mapping[str, str] | None = None,
        docker: bool = False,
    ) -> str:
        """Put an index of images here, by architecture (`arm/v7` with a variant); return its digest.

        Raises:
            KeyError: the repository has no such image.
        """

        def store() -> str:
            repository = self._repositories.make(references.parse(f"{self.host}/{name}").path)
            found = {architecture: repository.manifests[digest] for architecture, digest in digests.items()}
            entries = {
                architecture: (each.digest, len(each.body), each.media_type) for architecture, each in found.items()
            }
            made = index(entries, annotations=annotations, docker=docker)
            self._store(name, made)
            return made.digest

        return str(self._thread.call(store))

    def access_tokens(self) -> Sequence[str]:
        """Return the tokens that were given out and are not over."""
        return list(self._thread.call(self._access.tokens.texts))

    def expire_tokens(self) -> None:
        """Let all tokens that were given out be over."""
        self._thread.call(self._access.tokens.expire)

    def identity_token(self, user: str) -> str:
        """Return a token that stands for a user's password at the token endpoint."""
        self._account(user)
        return str(self._thread.call(self._access.tokens.identity, user))

    def docker_config(self, user: str, password: str | None = None, *, identity: str = "") -> str:
        """Return the text of a `config.json` with the credentials of a user, as a Secret of Kubernetes holds them.

        `password`: another than the user's. `identity`: a token that stands for it.
        """
        secret = self._account(user).password if password is None else password
        pair = f"{user}:{'' if identity else secret}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        if identity:
            entry["identitytoken"] = identity
        return json.dumps({"auths": {self.host: entry}})

    def _account(self, user: str) -> Account:
        account = self._access.accounts.get(user)
        if account is None:
            raise ValueError(f"no such user: {user}")
        return account

    def _store(self, name: str, made: Image) -> None:
        reference = references.parse(f"{self.host}/{name}")
        for content in made.blobs.values():
            self._repositories.add_blob(reference.path, content)
        manifest = Manifest(media_type=made.media_type, body=made.manifest, digest=made.digest)
        self._repositories.make(reference.path).add(manifest, reference.tag)

    def _context(self) -> ssl.SSLContext | None:
        if self._authority is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(self._address, "localhost").configure_cert(context)
        return context
