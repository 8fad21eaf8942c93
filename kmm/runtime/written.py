"""How often the same is written: the first time at once, and what changes again and again less often."""

from __future__ import annotations

from dataclasses import dataclass

_SLOWER = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """When something was written, by the monotonic clock, and for how long it is to rest."""

    at_s: float
    rest_s: float

    def left_s(self, now_s: float) -> float:
        """Return for how long it must not be written yet; not above zero where it may be."""
        return self.at_s + self.rest_s - now_s


def written(last: Written | None, now_s: float, every_s: float) -> Written:
    """Return what to remember of a write: it rests `every_s`, or longer where the last one is not long ago."""
    again = last is not None and now_s - last.at_s < 2 * last.rest_s
    return Written(at_s=now_s, rest_s=_SLOWER * every_s if again else every_s)
