"""The three-phase evaluation against the balanced load flow, and what it sees beyond it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from flexmeter.errors import DidNotConverge, GridError
from flexmeter.grid import Source
from flexmeter.reconfiguration import Constraints, PhaseModel, balanced_figures, network_from_grid, radial_flow
from flexmeter.scenario.reference_grid import reference_grid

GRID = reference_grid()
BAND = Constraints(v_min_pu=0.9, v_max_pu=1.1)


@pytest.fixture(scope="module")
def power() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.uniform(0, 3e5, network_from_grid(GRID).bus_count)


def test_equal_phases_give_the_balanced_load_flow(power: np.ndarray) -> None:
    network = network_from_grid(GRID).with_power(power, 0.3 * power)
    balanced = balanced_figures(network, radial_flow(network), BAND)
    phases = PhaseModel(GRID).figures(GRID.switch_vector, np.tile(power / 3, (3, 1)), np.tile(power / 10, (3, 1)), BAND)
    assert phases.losses_w == pytest.approx(balanced.losses_w, rel=1e-6)
    assert phases.v_min_pu == pytest.approx(balanced.v_min_pu, abs=1e-8)
    assert phases.loading == pytest.approx(balanced.loading, rel=1e-6)
    assert phases.violation == balanced.violation == 0


def test_one_phase_out_of_its_band_is_named(power: np.ndarray) -> None:
    model = PhaseModel(GRID)
    uneven = np.outer([2.4, 0.3, 0.3], power / 3)
    tight = Constraints(v_min_pu=0.985)
    found = model.figures(GRID.switch_vector, uneven, 0.3 * uneven, tight)
    assert "phase a" in found.worst
    assert found.violation > 0
    even = model.figures(GRID.switch_vector, np.tile(power / 3, (3, 1)), np.tile(power / 10, (3, 1)), tight)
    assert even.violation < found.violation
    with pytest.raises(DidNotConverge):
        model.figures(GRID.switch_vector, 100 * uneven, uneven, BAND)


def test_equal_substations_are_one_busbar_and_unequal_ones_an_error(power: np.ndarray) -> None:
    first = GRID.sources[0]
    second = msgspec.structs.replace(first, id="second", bus="MV_007")
    vector = tuple(switch.branch not in {"line_3", "line_10"} for switch in GRID.switches)
    two = msgspec.structs.replace(GRID, sources=(first, second)).with_switches(vector)
    network = network_from_grid(two).with_power(power, 0.3 * power)
    balanced = balanced_figures(network, radial_flow(network), BAND)
    share = np.tile(power / 3, (3, 1))
    phases = PhaseModel(two).figures(vector, share, 0.3 * share, BAND)
    assert phases.losses_w == pytest.approx(balanced.losses_w, rel=1e-6)
    assert phases.v_min_pu == pytest.approx(balanced.v_min_pu, abs=1e-8)
    other = msgspec.structs.replace(GRID, sources=(first, Source("second", "MV_007", 1.01 * first.voltage_v)))
    with pytest.raises(GridError, match="equal voltages"):
        PhaseModel(other)


def test_powers_of_the_wrong_shape_are_refused(power: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        PhaseModel(GRID).figures(GRID.switch_vector, power, power, BAND)
