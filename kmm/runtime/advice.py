"""What to do where the API server does not do what it is asked: one line, for a person."""

from __future__ import annotations

import re
from http import HTTPStatus

from kmm.runtime.transport import ApiError, Unreachable

_NO_RIGHT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: at the (?P<scope>cluster scope)| in the namespace "(?P<namespace>[^"]*)")?'
)
# The first that is found decides. What TLS and the system say differs between their versions.
_UNREACHABLE = (
    (
        re.compile(r"no credentials:", re.IGNORECASE),
        "the credentials cannot be had: look at the user in the kubeconfig, or log in again",
    ),
    (
        re.compile(r"certificate has expired|certificate is not yet valid", re.IGNORECASE),
        "the API server's certificate has expired, or the clock here is wrong: have it renewed, or check `date`",
    ),
    (
        re.compile(r"alert|CERTIFICATE_REQUIRED", re.IGNORECASE),
        "the API server does not accept the client certificate: renew client-certificate-data in the kubeconfig",
    ),
    (
        re.compile(r"certificate is not valid for|hostname mismatch|IP address mismatch", re.IGNORECASE),
        "the API server's certificate is for another name: use that name as the kubeconfig's server",
    ),
    (
        re.compile(r"certificate verify failed|CERTIFICATE_VERIFY_FAILED", re.IGNORECASE),
        "the API server's certificate is of an unknown authority: check the kubeconfig's certificate-authority-data",
    ),
    (
        re.compile(r"X509|NO_CERTIFICATE_OR_CRL_FOUND|PEM lib|NO_START_LINE", re.IGNORECASE),
        "a certificate in the kubeconfig cannot be read: check certificate-authority-data, client-certificate-data",
    ),
    (
        re.compile(r"WRONG_VERSION_NUMBER|record layer failure|UNKNOWN_PROTOCOL|HTTP_REQUEST", re.IGNORECASE),
        "there is no TLS at that address: check the port, and https or http, of the kubeconfig's server",
    ),
    (
        re.compile(r"not known|name resolution|nodename nor servname|getaddrinfo|No address associated"),
        "the name cannot be resolved: check the kubeconfig's server, and that the VPN is up",
    ),
    (
        re.compile(
            r"Connection refused|No route|unreachable|timed out|reset by peer|closed connection|EOF occurred",
            re.IGNORECASE,
        ),
        "there is no answer: check that the cluster is up, the kubeconfig's server, and the VPN or proxy",
    ),
)


def advice(error: Exception, host: str) -> str:
    """Return what went wrong at the API server `host`, and what to do; the error's own text where nobody knows."""
    if isinstance(error, Unreachable):
        found = next((told for words, told in _UNREACHABLE if words.search(str(error))), None)
        return f"{host}: {found} ({error})" if found else f"{host}: {error}"
    if not isinstance(error, ApiError):
        return str(error)
    if error.code == HTTPStatus.UNAUTHORIZED:
        return f"{host} does not know you: the token or client certificate is wrong or has expired: log in again"
    if error.code == HTTPStatus.FORBIDDEN and (match := _NO_RIGHT.search(str(error))):
        group = f".{match['group']}" if match["group"] else ""
        where = f"in the namespace {match['namespace']}" if match["namespace"] else "in the whole cluster"
        return (
            f"{match['user']} may not {match['verb']} {match['resource']}{group} {where}: ask an administrator "
            "for that right; `kmm manifests rbac` prints those of the operator"
        )
    return f"{host}: {error}"
