from __future__ import annotations

from typing import Any

import pytest
from kmm.contract import Settings, SettingsError

from acme_kmm.options import Options, read


def test_nothing_has_to_be_set() -> None:
    assert read(Settings()) == Options()


def test_a_mirror_and_a_release_can_be() -> None:
    options = {"registry": "mirror.example.com:5000/acme", "release": "2.3.0"}
    assert read(Settings(options=options)) == Options(registry="mirror.example.com:5000/acme", release="2.3.0")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"registry": "https://mirror.example.com"}, "registry: must be a registry"),
        ({"registry": None}, "registry: must be a registry"),
        ({"release": 2.4}, 'in quotes, such as "2.4.1"'),
        ({"release": "latest"}, "release: must be a release"),
        ({"mirror": "a"}, 'unknown option "mirror"'),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        read(Settings(options=options))
