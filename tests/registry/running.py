"""Registries that run: the embedded one, and with `-m e2e` a real one, in each of the ways in which they are met.

For the tests of another folder: `from registry.running import registry` in its conftest.py.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from registry.client import Client
from registry.docker_registry import DockerRegistry, Missing, program
from registry.token_server import TokenServer

from kmm.embedded.account import Account
from kmm.embedded.image import Layer, image, index
from kmm.embedded.registry import Registry
from kmm.oci import reference as references

# Plain: HTTP; basic: HTTP and htpasswd; tls: HTTPS with a CA of its own; bearer: the same, and a token server.
MODES = ("plain", "basic", "tls", "bearer")
ROBOT, READER = "robot", "reader"  # the reader may only pull, where a registry can tell: with Bearer
PASSWORDS = {ROBOT: "robots-own-secret", READER: "readers-own-secret"}
ACCOUNTS = {
    ROBOT: Account(password=PASSWORDS[ROBOT]),
    READER: Account(password=PASSWORDS[READER], push=()),
}
# bcrypt, of these passwords, as cheap as it can be: `htpasswd -nbBC 4 robot robots-own-secret`.
HTPASSWD = """\
robot:$2b$04$kmmkmmkmmkmmkmmkmmkmmuApQV9nSMthizSiNxqsGQ1c08TsbcRRq
reader:$2b$04$kmmkmmkmmkmmkmmkmmkmmuwYYH9DXAsoGsm7xSqzYKC/f.DFa.T9S
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRegistry:
    """A registry under test. `host`: with the port; `ca_pem`: empty where it speaks plain HTTP; `user`, `password`:
    who may do everything, empty where nobody is asked; `embedded`: itself, with its log and faults, where it is ours;
    `stale`: returns a token for the scopes that is no longer good.
    """

    mode: str
    host: str
    ca_pem: str
    user: str
    password: str
    embedded: Registry | None
    stale: Callable[[str], str] | None

    @property
    def url(self) -> str:
        return f"http{'s' if self.ca_pem else ''}://{self.host}"

    def client(self, user: str | None = None, password: str | None = None) -> Client:
        """Return a client of who may do everything, or of another."""
        named = self.user if user is None else user
        known = PASSWORDS.get(named, "")
        return Client(self.url, self.ca_pem, named, known if password is None else password)

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
        """As `Registry.push_image`, by HTTP."""
        made = image(
            [*layers, *([files] if files is not None else [])],
            architecture=architecture,
            annotations=annotations,
            docker=docker,
        )
        repository, reference = self._named(name, made.digest)
        answer = self.client().push(repository, reference, made)
        assert answer.status == 201, answer.data
        return made.digest

    def push_index(self, name: str, digests: Mapping[str, str], *, docker: bool = False) -> str:
        """As `Registry.push_index`, by HTTP."""
        client = self.client()
        repository, _ = self._named(name, "")
        entries = {}
        for architecture, digest in digests.items():
            found = client.manifest(repository, digest)
            entries[architecture] = (digest, len(found.data), found.headers["Content-Type"])
        made = index(entries, docker=docker)
        answer = client.push(repository, self._named(name, made.digest)[1], made)
        assert answer.status == 201, answer.data
        return made.digest

    def _named(self, name: str, digest: str) -> tuple[str, str]:
        parsed = references.parse(f"{self.host}/{name}")
        return parsed.path, parsed.tag or digest


@contextmanager
def run_embedded(mode: str, folder: Path) -> Iterator[RunningRegistry]:
    """Run the embedded registry."""
    auth = mode if mode in ("basic", "bearer") else "none"
    with Registry(auth=auth, users=ACCOUNTS, tls=mode in ("tls", "bearer"), folder=folder) as registry:

        def stale(scope: str) -> str:
            challenge = f'Bearer realm="{registry.realm}",service="",scope="{scope}"'
            text = Client(registry.url, registry.ca_pem, ROBOT, PASSWORDS[ROBOT]).authorization(challenge)
            registry.expire_tokens()
            return text

        yield RunningRegistry(
            mode=mode,
            host=registry.host,
            ca_pem=registry.ca_pem,
            user=ROBOT if auth != "none" else "",
            password=PASSWORDS[ROBOT] if auth != "none" else "",
            embedded=registry,
            stale=stale if mode == "bearer" else None,
        )


@contextmanager
def run_real(mode: str, folder: Path) -> Iterator[RunningRegistry]:
    """Run the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(organization_name="kmm tests") if mode in ("tls", "bearer") else None
    auth = None
    stale = None
    with ExitStack() as stack:
        if mode == "basic":
            (folder / "htpasswd").write_text(HTPASSWD)
            auth = {"htpasswd": {"realm": "kmm-tests", "path": str(folder / "htpasswd")}}
        if mode == "bearer" and authority:
            tokens = stack.enter_context(TokenServer(folder / "tokens", authority, ACCOUNTS))
            auth = tokens.auth

            def stale(scope: str) -> str:
                return f"Bearer {tokens.token(ROBOT, ACCOUNTS[ROBOT], [scope], lifetime_s=-300)}"

        running = stack.enter_context(DockerRegistry(folder, auth=auth, authority=authority))
        yield RunningRegistry(
            mode=mode,
            host=running.host,
            ca_pem=authority.cert_pem.bytes().decode() if authority else "",
            user=ROBOT if auth else "",
            password=PASSWORDS[ROBOT] if auth else "",
            embedded=None,
            stale=stale,
        )


def params(*modes: str) -> list[Any]:
    """Return the parameters for the fixture below: all registries that run in these modes.

    For `@pytest.mark.parametrize("registry", params("bearer"), indirect=True)`.
    """
    return [
        *(pytest.param((run_embedded, mode), id=f"embedded-{mode}") for mode in modes),
        *(pytest.param((run_real, mode), id=f"real-{mode}", marks=pytest.mark.e2e) for mode in modes),
    ]


def need_program() -> None:
    """Skip where the real registry cannot be had; CI never does."""
    try:
        program()
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session", params=params(*MODES))
def registry(request, tmp_path_factory) -> Iterator[RunningRegistry]:
    """A registry, for the whole session: a test takes a `repository` of its own in it."""
    run, mode = request.param
    if run is run_real:
        need_program()
    with run(mode, tmp_path_factory.mktemp(f"registry-{mode}")) as running:
        yield running


@pytest.fixture
def repository() -> str:
    """A repository's name that no other test has."""
    return f"t-{secrets.token_hex(4)}/driver"
