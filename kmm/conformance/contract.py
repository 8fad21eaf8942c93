"""What the classes of rules have in common: which plugin is asked, and how a rule is said to be broken."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from inspect import getattr_static
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from kmm.conformance.subject import Subject, load, options_of

_SHOWN = 5  # of what is wrong
_LONGEST = 1000
OVERRIDABLE = ("plugin", "options", "offer", "params", "registry", "spec", "listing")
"""The fixtures that a plugin's own tests may have otherwise."""


class Contract:
    """Rules: each test is one, and its docstring says it. `field`: where plugins have such offers; `noun`: one;
    `hook`: where they have the function, of rules for one that offers nothing.

    A subclass may override a rule only to say that its plugin breaks it: with `pytest.mark.xfail(reason=…)`.
    """

    field: ClassVar[str] = ""
    noun: ClassVar[str] = "plugin"
    hook: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        for name, rule in rules(cls).items():
            if getattr(cls, name) is not rule and not excuse(cls, name):
                raise TypeError(
                    f"{cls.__name__}.{name} overrides a rule of kmm.conformance: that needs "
                    "@pytest.mark.xfail(reason=...), which says why the plugin breaks it"
                )
        for name, given in _given(cls).items():
            if getattr_static(cls, name) is not given:
                known = ", ".join(each for each in OVERRIDABLE if hasattr(cls, each))
                raise TypeError(
                    f"{cls.__name__}.{name} is not among the fixtures of kmm.conformance that a plugin's tests may "
                    f"have otherwise: {known}"
                )

    @pytest.fixture
    def plugin(self) -> str:
        """The name of the plugin, as its entry point has it."""
        raise pytest.UsageError(f"{type(self).__name__} has to have a fixture `plugin`: the entry point's name")

    @pytest.fixture
    def options(self, plugin: str, request: pytest.FixtureRequest) -> Mapping[str, Any]:
        """The plugin's section of the configuration: that of --kmm-config, empty where there is none."""
        return options_of(request.config, plugin)

    @pytest.fixture
    def subject(self, plugin: str, options: Mapping[str, Any]) -> Subject:
        """The plugin, loaded with these options."""
        return load(plugin, options)

    @pytest.fixture
    def offer(self, subject: Subject) -> str:
        """The name of what is judged, where a plugin offers several of its kind."""
        names = subject.offers(self.field)
        if len(names) == 1:
            return names[0]
        raise pytest.UsageError(
            f"{subject.name} offers {' and '.join(names) or 'nothing'} as {self.field}: "
            f"{type(self).__name__} has to have a fixture `offer` with the name of one that it offers"
        )


def rules(contract: type) -> Mapping[str, Any]:
    """Return the rules of a class by the names of their tests, as this package has them."""
    return {
        name: member
        for base in reversed(contract.__mro__)
        if issubclass(base, Contract) and base.__module__.startswith(f"{__package__}.")
        for name, member in vars(base).items()
        if name.startswith("test_")
    }


def _given(contract: type) -> Mapping[str, Any]:
    """Return the fixtures of a class that its rules rest on, as this package has them."""
    return {
        name: member
        for base in reversed(contract.__mro__)
        if issubclass(base, Contract) and base.__module__.startswith(f"{__package__}.")
        for name, member in vars(base).items()
        if not name.startswith(("_", "test_")) and name not in (*OVERRIDABLE, "field", "noun", "hook")
    }


def excuse(contract: type, name: str) -> str:
    """Return why a subclass says that its plugin breaks a rule; empty where it does not say."""
    for mark in getattr(getattr(contract, name, None), "pytestmark", ()):
        if mark.name == "xfail" and mark.kwargs.get("reason"):
            return str(mark.kwargs["reason"])
    return ""


def broken(*why: str) -> NoReturn:
    """Fail: the rule is broken, and this is why."""
    # What an exception led to is in the text: pytest would tell it again.
    raise pytest.fail.Exception("; ".join(each[:_LONGEST] for each in why[:_SHOWN]), pytrace=False) from None


def hold(findings: Iterable[str]) -> None:
    """Fail where something was found."""
    found = list(dict.fromkeys(findings))
    if found:
        more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        broken(*found[: _SHOWN - len(more)], *more)


def unjudged(why: str) -> NoReturn:
    """Skip: the rule cannot be judged here, and this is why."""
    pytest.skip(why[:_LONGEST])


def told(error: BaseException) -> str:
    """Return an exception as one line: what was raised, and where."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # a plugin's exception may be anything
        text = ""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{where}"
