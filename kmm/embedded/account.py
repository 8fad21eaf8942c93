"""Who may do what in a registry."""

from __future__ import annotations

import fnmatch
import hmac
from dataclasses import dataclass, field

PULL, PUSH, DELETE = "pull", "push", "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user. `pull`, `push`, `delete`: repositories, as shell patterns; without `delete`, what may be pushed to."""

    password: str = field(repr=False)
    pull: tuple[str, ...] = ("*",)
    push: tuple[str, ...] = ("*",)
    delete: tuple[str, ...] | None = None

    def accepts(self, password: str) -> bool:
        """Whether that is the password."""
        return hmac.compare_digest(self.password.encode(), password.encode())

    def actions(self, repository: str) -> frozenset[str]:
        """Return what may be done to a repository: `pull`, `push`, `delete`."""
        may = {PULL: self.pull, PUSH: self.push, DELETE: self.push if self.delete is None else self.delete}
        return frozenset(
            action
            for action, patterns in may.items()
            if any(fnmatch.fnmatchcase(repository, pattern) for pattern in patterns)
        )
