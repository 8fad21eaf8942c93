"""The contract does not change without its version and the CHANGELOG: what is compared, and that it is compared."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_description import compare, describe, faults, is_released, to_be_written, written

ROOT = Path(__file__).parents[1]
BEFORE = {
    "version": "1.4",
    "c.ENTRY": {"is": "constant", "shape": "'kmm'"},
    "c.Tls": {
        "is": "value",
        "shape": "",
        "parts": {"host": {"type": "str"}, "port": {"type": "int", "default": "1"}},
    },
    "c.Renderer": {"is": "protocol", "shape": "Protocol", "parts": {"render": {"type": "(self, request: R) -> L"}}},
    "c.State": {"is": "enum", "shape": "StrEnum", "parts": {"DONE": {"type": "'Done'"}}},
    "c.job": {
        "is": "function",
        "shape": "Manifest",
        "parts": {"pod": {"type": "Manifest"}, "within_s": {"type": "int"}, "*rest": {"type": "str", "default": ""}},
    },
    "h.kmm_signers": {"is": "hook", "shape": "Sequence[Signer]", "parts": {"settings": {"type": "Settings"}}},
    "s.Contract": {"is": "fixtures", "shape": "", "parts": {"params": {"type": "Mapping"}}},
    "s.Contract rules": {"is": "rules", "shape": "", "parts": {"test_it": {"type": "rule"}}},
}
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 0.3.0 - 2027-01-01\n\n- The plugin contract 1.4: more.\n"


def changed(change: Callable[[dict[str, Any]], object], version: str = "1.4") -> dict[str, Any]:
    after = copy.deepcopy(BEFORE)
    change(after)
    return {**after, "version": version}


def being_made(version: str) -> str:
    """Return the CHANGELOG once it has a word of a version that no release has."""
    return CHANGELOG.replace("## Unreleased\n", f"## Unreleased\n\n- The plugin contract {version}: a field.\n")


def parts(name: str, /, **more: dict[str, str]) -> Callable[[dict[str, Any]], None]:
    return lambda all_: all_[name]["parts"].update(more)


ADDITIONS = [
    (lambda all_: all_.update({"c.New": BEFORE["c.Tls"]}), "c.New is new"),
    (parts("c.Tls", name={"type": "str", "default": "''"}), "c.Tls: name is new"),
    (parts("c.Tls", port={"type": "int", "default": "2"}), "c.Tls: port: its default was 1 and is 2"),
    (parts("c.Tls", host={"type": "str", "default": "''"}), "c.Tls: host: its default was required and is ''"),
    (parts("c.State", LATE={"type": "'Late'"}), "c.State: LATE is new"),
    (parts("c.job", env={"type": "str", "default": "''"}), "c.job: env is new"),
    (parts("h.kmm_signers", cluster={"type": "Cluster"}), "h.kmm_signers: cluster is new"),
    (parts("s.Contract", more={"type": "str"}), "s.Contract: more is new"),
    (parts("s.Contract rules", test_more={"type": "rule"}), "s.Contract rules: test_more is new"),
    (lambda all_: all_["s.Contract rules"]["parts"].clear(), "s.Contract rules: test_it is gone"),
]
BREAKS = [
    (lambda all_: all_.pop("c.State"), "c.State is gone"),
    (lambda all_: all_["c.ENTRY"].update(shape="'kmm2'"), "c.ENTRY was 'kmm' and is 'kmm2'"),
    (lambda all_: all_["c.Tls"].update({"is": "class"}), "c.Tls was value and is class"),
    (lambda all_: all_["c.Tls"]["parts"].pop("port"), "c.Tls: port is gone"),
    (parts("c.Tls", host={"type": "bytes"}), "c.Tls: host was str and is bytes"),
    (parts("c.Tls", port={"type": "int"}), "c.Tls: port: its default was 1 and is required"),
    (parts("c.Tls", name={"type": "str"}), "c.Tls: name is new and must be there"),
    (parts("c.Renderer", owns={"type": "Kind"}), "c.Renderer: owns is new and must be there"),
    (parts("c.Renderer", render={"type": "()"}), "c.Renderer: render was (self, request: R) -> L and is ()"),
    (parts("c.State", DONE={"type": "'Over'"}), "c.State: DONE was 'Done' and is 'Over'"),
    (lambda all_: all_["c.job"].update(shape="None"), "c.job was Manifest and is None"),
    (parts("c.job", env={"type": "str"}), "c.job: env is new and must be there"),
    (parts("c.job", pod={"type": "Manifest", "by": "keyword"}), "c.job: pod was free and is keyword"),
    (
        lambda all_: all_["c.job"].update(parts=dict(reversed(all_["c.job"]["parts"].items()))),
        "c.job: its parameters are in another order",
    ),
    (lambda all_: all_["h.kmm_signers"]["parts"].clear(), "h.kmm_signers: settings is gone"),
    (lambda all_: all_["s.Contract"]["parts"].clear(), "s.Contract: params is gone"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"), [*ADDITIONS, *BREAKS], ids=lambda each: each if isinstance(each, str) else ""
)
def test_every_change_is_told_and_whether_plugins_may_break_of_it(change, said):
    (found,) = compare(BEFORE, changed(change))
    assert found.what == said
    assert found.breaks == (said in {what for _, what in BREAKS})


def test_a_new_parameter_before_an_old_one_breaks_who_gives_them_by_position():
    def first(all_: dict[str, Any]) -> None:
        all_["c.job"]["parts"] = {"new": {"type": "str", "default": "''"}, **all_["c.job"]["parts"]}

    found = [each.what for each in compare(BEFORE, changed(first)) if each.breaks]
    assert found == ["c.job: its parameters are in another order"]


@pytest.mark.parametrize("change", [change for change, _ in ADDITIONS])
def test_what_is_added_needs_a_minor_version_and_a_word_in_the_changelog(change):
    (said,) = faults(BEFORE, changed(change), CHANGELOG)
    assert 'Set CONTRACT_VERSION to "1.5" in kmm/contract.py' in said
    assert 'with the words "contract 1.5".' in said
    assert faults(BEFORE, changed(change, "1.5"), CHANGELOG) == [
        'CHANGELOG.md has no "contract 1.5": write there what changed for plugins'
    ]
    assert faults(BEFORE, changed(change, "1.5"), being_made("1.5")) == []


@pytest.mark.parametrize("change", [change for change, _ in BREAKS])
def test_what_plugins_may_break_of_needs_a_major_version(change):
    for version in ("1.4", "1.5"):
        said, *_ = faults(BEFORE, changed(change, version), being_made(version))
        assert "plugins made for contract 1.4 may not live with this:\n  " in said
        assert 'it is contract 2.0: CONTRACT_VERSION and ENTRY_POINT_GROUP "kmm.v2" in kmm/contract.py' in said
    assert faults(BEFORE, changed(change, "2.0"), being_made("2.0")) == []


@pytest.mark.parametrize("change", [change for change, _ in ADDITIONS + BREAKS])
def test_the_first_version_may_become_anything_until_it_is_released(change):
    unreleased = "## Unreleased\n\n- The plugin contract 1.4.\n\n## 0.1.0\n\n- No contract, and not contract 1.40.\n"
    assert faults(BEFORE, changed(change), unreleased) == []
    assert to_be_written(BEFORE, changed(change), unreleased) == changed(change)


def test_several_additions_between_two_releases_need_one_version():
    one = changed(parts("c.State", LATE={"type": "'Late'"}), "1.5")
    two = copy.deepcopy(one)
    parts("c.Tls", name={"type": "str", "default": "''"})(two)
    for after in (one, two):
        assert faults(BEFORE, after, being_made("1.5")) == []
        # What was released stays what the next one is judged by.
        assert to_be_written(BEFORE, after, being_made("1.5")) == BEFORE
    released = being_made("1.5").replace("## Unreleased", "## Unreleased\n\n## 0.4.0")
    assert faults(BEFORE, two, released) == []
    assert to_be_written(BEFORE, two, released) == two
    (said,) = faults(one, two, released)
    assert said.startswith("contract 1.5 has changed:\n  c.Tls: name is new")


def test_what_a_release_had_cannot_go_while_the_next_minor_is_being_made():
    after = changed(lambda all_: all_.pop("c.State"), "1.5")
    (said,) = faults(BEFORE, after, being_made("1.5"))
    assert "plugins made for contract 1.4 may not live with this:\n  c.State is gone" in said


def test_a_version_is_released_where_a_release_names_it():
    assert is_released("1.4", CHANGELOG)
    assert not is_released("1.5", being_made("1.5"))
    assert not is_released("1.4", "contract 1.4, before all headings\n\n## Unreleased\n")
    assert not is_released("1.4", "")


def test_a_version_never_goes_back_and_is_not_another_by_its_first_digits():
    same = changed(lambda _: None, "1.3")
    assert faults(BEFORE, same, being_made("1.3")) == ["CONTRACT_VERSION went back from 1.4 to 1.3"]
    assert faults(BEFORE, changed(lambda _: None, "1.1"), being_made("1.10"))[1].startswith("CHANGELOG.md has no")
    assert faults(BEFORE, changed(lambda _: None, "1.10"), being_made("1.10")) == []


def test_the_entry_point_group_is_that_of_the_major():
    group = {"kmm.contract.ENTRY_POINT_GROUP": {"is": "constant", "shape": "'kmm.v1'"}}
    said = faults({**BEFORE, **group}, {**BEFORE, **group, "version": "2.0"}, being_made("2.0"))
    assert said == ["the entry-point group 'kmm.v1' is not that of contract 2.0"]


def test_the_contract_is_the_one_that_was_told_or_has_a_version_of_its_own():
    text, changelog = ((ROOT / name).read_text() for name in ("docs/contract.json", "CHANGELOG.md"))
    told, now = json.loads(text), describe()
    lacking = faults(told, now, changelog)
    assert not lacking, "\n".join(lacking)
    assert written(to_be_written(told, now, changelog)) == text, "`make docs` writes it"


def test_what_plugins_use_is_in_the_description():
    found = describe()
    assert found["kmm.contract.BuildRequest"]["parts"]["image"] == {"type": "str | None"}
    assert found["kmm.contract.Registry"]["parts"]["inspect"]["type"].startswith("(self, image: str, access: Access")
    assert found["kmm.contract.Settings.only"]["parts"] == {"*known": {"type": "str", "default": ""}}
    assert found["kmm.contract.Unavailable"]["parts"]["retry_after_s"]["default"] == "None"
    assert found["kmm.contract.State"]["parts"]["FAILED"] == {"type": "'Failed'"}
    assert found["kmm.contract.Builder"]["is"] == "constant"
    assert found["kmm.hookspecs.kmm_builders"]["shape"] == "Sequence[Builder]"
    assert found["kmm.job.job"]["parts"]["deadline_s"] == {"type": "int"}
    assert found["kmm.errors.SpecError"]["shape"] == "KmmError"
    assert found["kmm.errors.Unavailable"] == {"is": "name", "shape": "kmm.contract.Unavailable"}
    assert found["kmm.conformance.DriverContract"]["parts"].keys() == {"plugin", "options", "offer", "spec"}
    assert "test_it_is_not_refused" in found["kmm.conformance.PluginContract rules"]["parts"]
    assert not [name for name in found if "._" in name]
