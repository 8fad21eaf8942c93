"""Examples by chance, which are the same each time: two runs of the suite say the same."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def examples(most: int, *slow: HealthCheck) -> settings:
    """Return how many there are, and of what no warning is given: how the suite draws them is not the plugin's."""
    return settings(
        max_examples=most,
        derandomize=True,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate],  # to make the example smaller takes long, and says little more
        suppress_health_check=slow,
    )
