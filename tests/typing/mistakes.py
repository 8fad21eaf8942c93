"""What a vendor gets wrong, and both type checkers notice: each ignore is needed, or the check fails."""

from __future__ import annotations

from collections.abc import Sequence

from kmm.contract import Builder, BuildRequest, Finding, Kind, Manifest, Progress, Settings, SignRequest, State


class SignsInsteadOfBuilding:
    name = "wrong"
    owns: tuple[Kind, ...] = ()
    requires: tuple[str, ...] = ()

    def render(self, request: SignRequest) -> list[Manifest]:
        return [{"kind": request.kernel}]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        return Progress(state=State.FAILED)


def kmm_builders(settings: Settings) -> list[Builder]:
    return [SignsInsteadOfBuilding()]  # type: ignore[list-item]  # pyright: ignore[reportReturnType]


def changes_a_request(request: BuildRequest) -> None:
    request.kernel = "6.1"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def forgets_the_message() -> Finding:
    return Finding(path="spec")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def invents_a_state() -> Progress:
    return Progress(state="Done")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
