"""What plugins promise that judge Modules: they answer for every one, by nothing but what it says."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from kmm.api.module import ModuleSpec
from kmm.api.schema import load
from kmm.conformance.chance import examples
from kmm.conformance.child import in_two_worlds
from kmm.conformance.contract import Contract, broken, hold, told
from kmm.conformance.subject import Subject
from kmm.contract import Finding, Manifest, Severity
from kmm.runtime.kinds import MODULE

_EXAMPLES = 60
_IMAGE = "registry.example.com/acme/nic:${KERNEL_FULL_VERSION}"
_SELECTOR = {"node-role.kubernetes.io/worker": ""}
_BUILD = {"dockerfileConfigMap": {"name": "dockerfile"}}
_SIGN = {"keySecret": {"name": "key"}, "certSecret": {"name": "cert"}}
_ODD: Sequence[Mapping[str, Any] | None] = (None, {}, {"": None, "other": [1, {"a": None}]})


class ValidationContract(Contract):
    """What judges Modules: the hook `kmm_validate_module`."""

    noun: ClassVar[str] = "validation"
    hook: ClassVar[str] = "validate_module"

    @pytest.fixture
    def spec(self) -> Mapping[str, Any]:
        """The specification of a Module that it judges: those with what the plugin offers, where a subclass does not
        say.
        """
        return {}

    @pytest.fixture
    def modules(self, subject: Subject, spec: Mapping[str, Any]) -> Sequence[Manifest]:
        """The Modules that it is asked about, as the operator asks."""
        return [_module(each) for each in ([spec] if spec else _specs(subject))]

    @pytest.fixture
    def watched(self, subject: Subject, modules: Sequence[Manifest]) -> Sequence[Mapping[str, Any]]:
        """What it says in two processes in which nothing but the question is the same, and what it asks for."""
        asked = {"value": subject.value, "field": self.hook, "modules": modules}
        return in_two_worlds(json.dumps(asked))

    def test_it_answers_for_every_module(self, subject: Subject, modules: Sequence[Manifest]) -> None:
        """It never raises, whatever a Module says that the API takes: it returns a list of Findings, whose paths and
        messages are texts.
        """
        validate: Any = subject.hook(self.hook)

        def judge(module: Manifest) -> None:
            try:
                found = validate(copy.deepcopy(module))
            except Exception as error:  # whatever it is, it is wrong
                broken(f"{told(error)}: for {json.dumps(module):.600}")
            if not isinstance(found, list | tuple):
                broken(f"a {type(found).__name__} is returned, not a list of Findings")
            for each in found:
                if not isinstance(each, Finding) or not all(isinstance(said, str) for said in _texts(each)):
                    broken(f"{each!r:.200} is no Finding with texts: for {json.dumps(module):.300}")
                severity: object = each.severity
                if not isinstance(severity, Severity):
                    broken(f"{each!r:.200} has a severity that is none")

        @examples(_EXAMPLES, HealthCheck.too_slow, HealthCheck.data_too_large)
        @given(st.sampled_from(modules), _PARAMS)
        def go_on(module: Manifest, params: Mapping[str, Any]) -> None:
            judge(_with_params(module, params))

        for each in modules:
            judge(each)
            for params in _ODD:
                judge(_with_params(each, params))
        go_on()

    def test_equal_modules_are_judged_equally(self, watched: Sequence[Mapping[str, Any]]) -> None:
        """Equal Modules are judged equally everywhere: with another hash seed, clock, folder and environment."""
        first, second = (each["said"] for each in watched)
        for one, other in zip(first, second, strict=True):
            if one != other:
                broken(f"{one:.200} in one process, {other:.200} in the other")

    def test_it_asks_for_nothing_but_the_module(self, watched: Sequence[Mapping[str, Any]]) -> None:
        """It is pure: it looks at no clock and no environment, draws nothing, starts no thread and no process, opens
        nothing but its own package's files.
        """
        hold(each for run in watched for each in run["asked"])


def _texts(finding: Finding) -> tuple[object, object]:
    return finding.path, finding.message


def _module(spec: Mapping[str, Any]) -> Manifest:
    metadata = {"name": "conformance", "namespace": "validation"}
    return {"apiVersion": MODULE.api_version, "kind": MODULE.kind, "metadata": metadata, "spec": dict(spec)}


def _specs(subject: Subject) -> Iterator[Mapping[str, Any]]:
    """Yield what Modules may say that the API takes: the least, everything, and each thing that a plugin offers."""
    yield _spec({})
    yield _spec({}, imageRepoSecret=None, devicePlugin=None)
    yield _spec({"build": _BUILD, "sign": _SIGN}, devicePlugin={"container": {"image": _IMAGE}})
    for name in subject.offers("builders"):
        yield _spec({"build": {**_BUILD, "builder": name}})
    for name in subject.offers("signers"):
        yield _spec({"sign": {**_SIGN, "signer": name}})
    for name in subject.offers("device_plugins"):
        yield _spec({}, devicePlugin={"container": {"image": _IMAGE}, "renderer": name})
    for name in subject.offers("drivers"):
        whole = {**subject.catalog.whole_spec({"selector": _SELECTOR, "driver": name}), "driver": name}
        if _is_taken(whole):
            yield whole


def _spec(mapping: Mapping[str, Any], **more: Any) -> Mapping[str, Any]:
    mappings = [{"regexp": "^.+$", "containerImage": _IMAGE, **mapping}]
    container = {"modprobe": {"moduleName": "acme"}, "kernelMappings": mappings}
    return {"selector": _SELECTOR, "moduleLoader": {"container": container}, **more}


def _with_params(module: Manifest, params: Mapping[str, Any] | None) -> Manifest:
    """Return a Module with other params, wherever it may have them; as it was, where the API does not take those."""
    made: dict[str, Any] = copy.deepcopy(dict(module))
    spec = made["spec"]
    loader = (spec.get("moduleLoader") or {}).get("container") or {}
    parts = [spec.get("devicePlugin"), loader.get("build"), loader.get("sign")]
    parts += [each.get(part) for each in loader.get("kernelMappings") or () for part in ("build", "sign")]
    for part in filter(None, parts):
        part["params"] = params
    return made if _is_taken(spec) else module


def _is_taken(spec: Mapping[str, Any]) -> bool:
    value, findings = load(ModuleSpec, spec)
    return value is not None and not any(each.severity is Severity.ERROR for each in findings)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_PARAMS = st.dictionaries(st.text(max_size=8), _ANY, max_size=3)
