"""The day with the library alone, on the grids that ship."""

import numpy as np
import pytest

from flexmeter.scenario.day import run_day
from flexmeter.scenario.options import DayOptions


@pytest.mark.parametrize("grid", ["reference", "eulv"])
def test_some_minutes_on_every_grid_with_plants_and_without(grid):
    record = run_day(DayOptions(minutes=3, grid=grid), quiet=True).record
    tracked = record.mv_voltage
    assert tracked.estimate.shape == tracked.true.shape == (len(record.mv_nodes), 3)
    assert np.all(np.abs(tracked.estimate - tracked.true) < 6 * tracked.sigma)
