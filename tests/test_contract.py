from __future__ import annotations

import dataclasses

import pytest

from kmm import contract
from kmm.contract import Access, Credential, Settings, SettingsError, Unavailable, nearest


def test_every_value_is_frozen_slotted_and_keyword_only():
    values = [each for each in vars(contract).values() if isinstance(each, type) and dataclasses.is_dataclass(each)]
    assert len(values) > 10
    for value in values:
        assert value.__dataclass_params__.frozen, value
        assert hasattr(value, "__slots__"), value
        assert all(field.kw_only for field in dataclasses.fields(value)), value


def test_every_public_name_says_what_it_is():
    for name, each in vars(contract).items():
        if isinstance(each, type) and each.__module__ == contract.__name__ and not name.startswith("_"):
            assert each.__doc__, name
            assert not each.__doc__.startswith(f"{name}("), name


def test_a_password_is_not_in_the_repr_of_what_holds_it():
    access = Access(credentials=(Credential(username="u", password="hunter2", token="t0ken"),))
    assert "hunter2" not in repr(access)
    assert "t0ken" not in repr(access)


def test_unknown_options_are_refused_with_the_nearest_known_one():
    with pytest.raises(SettingsError, match=r'unknown option "mirorr"; did you mean "mirror"\? \(known: mirror\)'):
        Settings(options={"mirorr": 1}).only("mirror")
    assert Settings(options={"mirror": 1}).only("mirror") == {"mirror": 1}
    with pytest.raises(SettingsError, match=r"\(known: none\)"):
        Settings(options={"x": 1}).only()


def test_the_nearest_name_ignores_case_and_stays_silent_when_nothing_is_near():
    assert nearest("Containerimage", ["containerImage", "sign"]) == '; did you mean "containerImage"?'
    assert nearest("zzz", ["containerImage"]) == ""
    assert nearest("x" * 1_000_000, ["x"]) == ""


def test_unavailable_carries_when_to_ask_again():
    assert Unavailable("busy", retry_after_s=3.0).retry_after_s == 3.0
    assert Unavailable("busy").retry_after_s is None
