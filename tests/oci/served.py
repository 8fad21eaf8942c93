"""A registry in this process, and clients of it."""

from __future__ import annotations

from kmm.contract import Access, Credential, Tls
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.client import Client
from kmm.oci.reference import parse

LOOPBACK = Addresses(allowed=parse_networks(["127.0.0.0/8", "::1"]))
USER = Credential(username="user", password="s3cret")
WRONG = Credential(username="user", password="wr0ng")


class Served:
    """A registry and how to ask it. `session` is shared by the clients it makes."""

    def __init__(self, registry, session):
        self.registry, self.session = registry, session

    def access(self, *credentials, **changes):
        insecure = self.registry.url.startswith("http:")
        return Access(
            **{
                "credentials": credentials,
                "tls": Tls(insecure=insecure),
                "ca_pem": self.registry.ca_pem or None,
                **changes,
            }
        )

    def client(self, *credentials, deadline_s=30, session=None, **changes):
        access = self.access(*credentials, **changes)
        return Client(self.registry.host, access, session=session or self.session, deadline_s=deadline_s)

    def reference(self, name):
        return parse(f"{self.registry.host}/{name}")

    def requests(self, since=0):
        return [(entry.method, entry.kind, entry.status) for entry in self.registry.log[since:]]
