from __future__ import annotations

from registry.running import registry, repository  # noqa: F401 -- fixtures
