"""What plugins promise that are told what the operator does: to take it, and to leave its names to it."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from kmm.conformance.chance import examples
from kmm.conformance.contract import Contract, broken, told
from kmm.conformance.plugin import imported
from kmm.conformance.subject import Subject
from kmm.contract import ModuleRef, Record

_EXAMPLES = 60
_OPERATORS = "kmm_"


class ObservationContract(Contract):
    """What is told of what the operator does: the hook `kmm_observe`."""

    noun: ClassVar[str] = "observation"
    hook: ClassVar[str] = "observe"

    def test_it_takes_every_record(self, subject: Subject) -> None:
        """It never raises, whatever a record says: of each kind of action, with a Module and without one."""
        observe: Any = subject.hook(self.hook)
        drivers = st.sampled_from(("", "another", *subject.offers("drivers")))

        @examples(_EXAMPLES, HealthCheck.too_slow)
        @given(st.builds(Record, **_FIELDS, driver=drivers))
        def takes(record: Record) -> None:
            try:
                observe(record)
            except Exception as error:  # whatever it is, it is wrong
                broken(f"{told(error)}: for {record!r:.300}")

        takes()

    def test_none_of_its_metrics_has_an_operators_name(self, subject: Subject) -> None:
        """No metric that it registers has a name that begins with `kmm_`: the operator does not serve those."""
        found = [each for each in imported(subject.value, 0)["metrics"] if each.startswith(_OPERATORS)]
        if found:
            broken(f"{', '.join(found)}: a name that begins with {_OPERATORS} is the operator's")


_WORDS = st.sampled_from(("", "acme", "kmm-conformance", "é" * 300)) | st.text(max_size=20)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "at_s": st.floats(0, 4e9),
    "action": st.sampled_from(
        ("Create", "Replace", "Delete", "LabelNode", "Release", "Announce", "WriteStatus", "New")
    ),
    "kind": st.sampled_from(("", "Job", "DaemonSet", "Node", "Pod", "Module", "Event")),
    "namespace": _WORDS,
    "name": _WORDS,
    "module": st.none() | st.builds(ModuleRef, namespace=_WORDS, name=_WORDS),
    "reason": _WORDS,
    "message": _WORDS,
    "duration_s": st.floats(0, 1e6),
}
