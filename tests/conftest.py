"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# The same cases on every machine, however slow it is at the moment.
settings.register_profile("kmm", deadline=None, derandomize=True, database=None)
settings.load_profile("kmm")
