import numpy as np
import pytest

from flexmeter.scenario.data import reference_day
from flexmeter.scenario.meters import meter_fleet
from flexmeter.scenario.reference_grid import reference_grid
from flexmeter.scenario.truth import TrueState, Truth, medium_voltage_lines, pseudo_measurement, reference_powers

MESHED = (True,) * 13


@pytest.fixture(scope="module")
def truth() -> Truth:
    grid = reference_grid()
    return Truth(grid, reference_powers(grid))


@pytest.fixture(scope="module")
def day(truth: Truth) -> TrueState:
    return truth.state(range(1440))


def kwh(losses_w: np.ndarray) -> float:
    return float(losses_w.sum() / 60e3)


def test_losses_and_reverse_flow_are_those_of_the_paper(truth: Truth, day: TrueState) -> None:
    lines, target = medium_voltage_lines(truth.grid), reference_day().targets
    assert len(lines) == 13
    assert kwh(day.line_losses_w(lines)) == pytest.approx(target.fixed_kwh, rel=0.03)
    meshed = truth.state(range(1440), MESHED)
    assert kwh(meshed.line_losses_w(lines)) == pytest.approx(target.meshed_kwh, rel=0.03)
    current = day.line_current_a(["line_13"])[0]
    nodes = [day.network.node_row["MV_013", phase] for phase in "abc"]
    towards_source = (day.voltage_v[nodes] * current.conj()).sum(axis=0).real
    assert (towards_source > 0).sum() == pytest.approx(target.reverse_flow_minutes, abs=30)


def test_voltages_stay_within_ten_percent(day: TrueState) -> None:
    per_unit = np.abs(day.voltage_v) / day.network.nominal_v[day.network.node_bus][:, None]
    assert per_unit.min() > 0.9
    assert per_unit.max() < 1.1


def test_power_balances(day: TrueState) -> None:
    losses = day.result.losses_w
    assert np.abs(day.source_va.sum(axis=0).real - day.active_power_w.sum(axis=0) - losses).max() < 1.0


def test_blocks_give_the_same_state(truth: Truth, day: TrueState) -> None:
    vector = truth.grid.switch_vector
    for minutes in (range(700, 701), range(695, 708)):
        block = truth.state(minutes, vector)
        assert np.abs(block.voltage_v - day.voltage_v[:, minutes.start : minutes.stop]).max() < 1e-6
        assert block.minutes.tolist() == list(minutes)


def test_vector_in_force_decides(truth: Truth) -> None:
    other = tuple(k != 4 for k in range(13))
    state = truth.state(range(720, 722), other)
    lines = medium_voltage_lines(truth.grid)
    assert np.abs(state.line_current_a(["line_5"])).max() == 0
    assert np.abs(state.line_current_a(["line_7"])).min() > 0
    assert state.line_losses_w(lines)[4].max() == 0
    assert state.network.nodes == truth.state(range(1)).network.nodes


def test_line_current_has_the_lines_own_direction(truth: Truth) -> None:
    """Kirchhoff at MV_003: what line 2 brings, line 3 and the substation take, under any feeding direction."""
    for opened in (1, 7, 13):
        state = truth.state(range(600, 601), tuple(k != opened for k in range(1, 14)))
        lines = state.line_current_a(["line_2", "line_3"])[:, :, 0]
        network = state.network
        row = network.bus_ids.index("LV_003")
        taken = network.transfer[row].conj().T @ state.result.branch_current_a[row, :, 0]
        bus = network.bus_ids.index("MV_003")
        nodes = [network.node_row["MV_003", phase] for phase in "abc"]
        taken = taken + network.shunt[bus] @ state.voltage_v[nodes, 0]
        assert np.abs(lines[0] - lines[1] - taken).max() < 1e-5


def test_meters_read_the_truth_plus_their_error(truth: Truth, day: TrueState) -> None:
    fleet = meter_fleet(truth.grid)
    readings = truth.readings(fleet, day)
    k = fleet.meters.index("LV_012_F1_01_b1")
    row = day.network.injections.index(("LV_012_F1_01_b1", "b"))
    error = (readings.active_power_w[k] - day.active_power_w[row]) / readings.sigma_active_power_w[k]
    assert error.std() == pytest.approx(1, abs=0.08)
    node = day.network.node_row["LV_012_F1_01_b1", "b"]
    assert np.abs(readings.voltage_v[k] - np.abs(day.voltage_v[node])).max() < 6 * 2.31
    alone = truth.readings(fleet.part("LV_012_F1_01"), truth.state(range(33, 34)))
    first = fleet.areas.index("LV_012_F1_01")
    assert alone.active_power_w[0, 0] == readings.active_power_w[first, 33]


def test_pseudo_measurement_is_the_papers(truth: Truth, day: TrueState) -> None:
    pseudo = pseudo_measurement(truth, "LV_011")
    true = day.branch_power_va("LV_011").real
    assert pseudo.active_power_w[:, 0:15] == pytest.approx(1.2 * true[:, :15].mean(axis=1, keepdims=True) * np.ones(15))
    assert (pseudo.sigma_active_power_w == 0.5 * np.abs(pseudo.active_power_w)).all()


def test_head_power_is_what_customers_and_lines_take(truth: Truth, day: TrueState) -> None:
    power = day.branch_power_va("LV_004").sum(axis=0).real
    customers = [k for k, (name, _) in enumerate(day.network.injections) if name.startswith("LV_004")]
    losses = power - day.active_power_w[customers].sum(axis=0)
    assert (losses > 0).all()
    assert losses.sum() < 0.04 * power.sum()
