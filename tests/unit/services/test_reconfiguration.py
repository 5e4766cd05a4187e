"""The advisor: the paper's rule on the reference ring, switch vectors in the order of the grid's switches."""

import numpy as np
import pytest

from flexmeter.reconfiguration import Trigger, network_from_grid
from flexmeter.scenario.reference_grid import reference_grid
from flexmeter.services.reconfiguration import Advisor

GRID = reference_grid()


@pytest.fixture
def loads() -> tuple[np.ndarray, np.ndarray]:
    feeder = network_from_grid(GRID)
    power = np.zeros(feeder.bus_count)
    power[feeder.bus_ids.index("MV_006")] = 2e6
    power[feeder.bus_ids.index("MV_007")] = 2e6
    return power, 0.3 * power


def test_feeder_is_the_ring_with_the_impedances_of_the_grid() -> None:
    feeder = network_from_grid(GRID)
    assert feeder.bus_ids[0] == "HV_001"
    assert feeder.branch_ids == tuple(f"line_{k}" for k in range(1, 14))
    assert feeder.open_branches == ("line_7",)
    assert feeder.r_ohm[0] == pytest.approx(0.161 * 4.64)
    assert feeder.x_ohm[0] == pytest.approx(0.117 * 4.64)


def test_a_better_tree_is_put_in_force_after_five_intervals_in_a_row(loads: tuple[np.ndarray, np.ndarray]) -> None:
    advisor = Advisor(GRID, Trigger(5.0, 5))
    vectors = [advisor.decide(k, GRID.switch_vector, *loads)[0] for k in range(10, 15)]
    assert vectors[:4] == [GRID.switch_vector] * 4
    opened = [GRID.switches[k].branch for k, closed in enumerate(vectors[4]) if not closed]
    assert len(opened) == 1
    assert opened != ["line_7"]
    assert advisor.losses_w(vectors[4], *loads) < 0.95 * advisor.losses_w(GRID.switch_vector, *loads)


def test_a_gap_in_the_intervals_starts_the_count_again(loads: tuple[np.ndarray, np.ndarray]) -> None:
    advisor = Advisor(GRID)
    for k in (1, 2, 3, 4, 6, 7):
        wanted, proposed, gain = advisor.decide(k, GRID.switch_vector, *loads)
        assert wanted == GRID.switch_vector
    assert gain > 5
    assert proposed != GRID.switch_vector
    assert sum(proposed) == len(proposed) - 1
