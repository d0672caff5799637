"""The planner against the memory of real steps: slices of FLUX.1 of several widths, on the CPU, within 15 %."""

from __future__ import annotations

import pytest

from tests.memory.measured import SIZES, measure_all


@pytest.mark.timeout(900)
def test_real_steps_peak_within_15_percent_of_their_plans() -> None:
    found = measure_all()
    assert list(found) == list(SIZES)
    for name, size in found.items():
        assert size.planned > 400 * 10**6, name
        assert 0.85 < size.peak / size.planned < 1.15, (name, size)
