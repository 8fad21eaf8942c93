"""Registries, and the signers of the golden keys."""

from __future__ import annotations

import pytest
from oci.conftest import serve, served, session
from signing.conftest import certificates, keys, signer, signer_of

from kmm.image_signing import image
from kmm.image_signing.image import Named

__all__ = ["certificates", "keys", "serve", "served", "session", "signer", "signer_of"]


@pytest.fixture
def sign(served, signer):
    """Sign an image of `served`, with the golden key `self` where no other is named."""

    def run(unsigned, signed, *wanted, by=signer, to=served, **more):
        source = Named(client=served.client(), reference=served.reference(unsigned))
        target = Named(client=to.client(), reference=to.reference(signed)) if signed else None
        return image.sign(source, target, wanted or ("/opt/lib/modules/6.1.0/**/*.ko",), by, **more)

    return run
