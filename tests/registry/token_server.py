"""A token server for the real registry: JSON Web Tokens (RS256) that carry the certificate of their signer."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import load_pem_x509_certificate

from kmm.embedded.account import Account
from kmm.embedded.registry_token import parse_scopes

ISSUER, SERVICE = "kmm-tests", "kmm-tests-registry"


class TokenServer:
    """Serves `/token` by HTTPS in a thread, as a context manager; `accounts` by name."""

    def __init__(self, folder: Path, authority: trustme.CA, accounts: Mapping[str, Account]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        signer = trustme.CA(organization_name="kmm tests, tokens")
        certificate = signer.issue_cert("signer", key_type=trustme.KeyType.RSA)
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key, self._accounts = key, accounts
        leaf = load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
        self._chain = [base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode()]
        bundle = folder / "signer.pem"
        signer.cert_pem.write_to_path(str(bundle))
        handler = type("Handler", (_Handler,), {"tokens": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.realm = f"https://127.0.0.1:{self._server.server_address[1]}/token"
        self.auth = {
            "token": {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def account(self, authorization: str) -> tuple[str, Account] | None:
        """Return whom Basic credentials name: nobody without any, `None` where they are wrong."""
        if not authorization:
            return "", Account(password="", pull=(), push=())
        user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        account = self._accounts.get(user)
        return (user, account) if account and account.accepts(password) else None

    def token(self, user: str, account: Account, asked: list[str], *, lifetime_s: int = 300) -> str:
        """Return a token for what is asked for and may be had. `lifetime_s` may lie in the past."""
        access = [
            {"type": "repository", "name": name, "actions": sorted(actions & account.actions(name))}
            for name, actions in parse_scopes(asked).items()
        ]
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + lifetime_s,
            "nbf": now - 600,
            "iat": now - 600,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        signed = f"{_part({'typ': 'JWT', 'alg': 'RS256', 'x5c': self._chain})}.{_part(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_text(signature)}"


class _Handler(BaseHTTPRequestHandler):
    tokens: TokenServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        found = self.tokens.account(self.headers.get("Authorization", "")) if url.path == "/token" else None
        if found is None:
            self._send(401, {"details": "incorrect username or password"})
            return
        token = self.tokens.token(*found, parse_qs(url.query).get("scope", []))
        self._send(200, {"token": token, "access_token": token, "expires_in": 300})

    def _send(self, status: int, said: Any) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _part(said: Any) -> str:
    return _text(json.dumps(said, separators=(",", ":")).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
