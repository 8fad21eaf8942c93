"""The variables that OVMF keeps in its flash, so that it begins with Secure Boot and with certificates of ours.

After <https://uefi.org/specs/UEFI/2.10/32_Secure_Boot_and_Driver_Signing.html> and the structures of EDK II that its
flash is made of: behind the volume's header stands the one of the store, and then one variable after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from uuid import UUID

_STORE = UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le  # of variables that may be authenticated
_STORE_HEADER = 28
_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_DATABASE = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_ENABLE = UUID("f0a30bc7-af08-4556-99c4-001009c93a44")
_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_OWNER = UUID("3d9d3bfa-1fb0-4a3c-a1b4-8f6c1b6d1f52")  # whoever enrols says who he is
# In flash, for boot services; and for what runs, with a date in its updates.
_KEPT, _AUTHENTICATED = 0x03, 0x27
_BEGINS, _ADDED = 0x55AA, 0x3F
_TIME = struct.pack("<HBB12x", 2020, 1, 1)
_VARIABLE = struct.Struct("<HBxIQ16sIII16s")
_ERASED = b"\xff"


def enrolled(flash: bytes, certificates: Iterable[bytes]) -> bytes:
    """Return `flash`, which has no variables yet, with Secure Boot on. `certificates`: DER, first the platform's."""
    lists = [_signature_list(each) for each in certificates]
    begin = flash.index(_STORE) + _STORE_HEADER
    variables = b"".join(
        (
            _variable("PK", _GLOBAL, _AUTHENTICATED, lists[0]),
            _variable("KEK", _GLOBAL, _AUTHENTICATED, lists[0]),
            _variable("db", _DATABASE, _AUTHENTICATED, b"".join(lists)),
            _variable("SecureBootEnable", _ENABLE, _KEPT, b"\x01"),
        )
    )
    end = begin + len(variables)
    assert flash[begin:end] == _ERASED * len(variables), "it has variables"
    return flash[:begin] + variables + flash[end:]


def _signature_list(certificate: bytes) -> bytes:
    size = 16 + len(certificate)
    return _X509.bytes_le + struct.pack("<III", 28 + size, 0, size) + _OWNER.bytes_le + certificate


def _variable(name: str, vendor: UUID, attributes: int, data: bytes) -> bytes:
    encoded = f"{name}\0".encode("utf-16-le")
    sizes = (len(encoded), len(data))
    head = _VARIABLE.pack(_BEGINS, _ADDED, attributes, 0, _TIME, 0, *sizes, vendor.bytes_le)
    whole = head + encoded + data
    return whole + _ERASED * (-len(whole) % 4)
