import numpy as np
import pytest
from scipy.stats import kstest

from flexmeter.grid import Grid
from flexmeter.scenario.meters import Fleet, meter_fleet, normal_noise
from flexmeter.scenario.reference_grid import reference_grid


@pytest.fixture(scope="module")
def grid() -> Grid:
    return reference_grid()


def read(fleet: Fleet, minutes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = (len(fleet.meters), minutes.size)
    readings = fleet.read(minutes, np.full(n, 230.0), np.full(n, 1000.0), np.full(n, -500.0))
    return readings.voltage_v, readings.active_power_w, readings.reactive_power_var


def test_noise_is_standard_normal_and_independent() -> None:
    keys = np.arange(400, dtype=np.uint64)
    noise = normal_noise(keys[:, None], np.arange(500, dtype=np.uint64)[None, :])
    assert kstest(noise.ravel(), "norm").pvalue > 0.001
    n = np.sqrt(noise.size)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 4 / n
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 4 / n
    assert np.abs(noise.mean(axis=1)).max() < 5 / np.sqrt(500)


def test_errors_have_the_stated_standard_deviations(grid: Grid) -> None:
    voltage, active, reactive = read(meter_fleet(grid), np.arange(100))
    assert np.nanstd(voltage - 230) == pytest.approx(0.01 * 400 / np.sqrt(3), rel=0.01)
    assert np.std(active - 1000) == pytest.approx(10, rel=0.01)
    assert np.std(reactive + 500) == pytest.approx(10, rel=0.01)
    assert np.mean(active - 1000) == pytest.approx(0, abs=0.1)


def test_readings_do_not_depend_on_blocks_or_on_the_rest_of_the_fleet(grid: Grid) -> None:
    fleet = meter_fleet(grid, seed=5, mode="realistic")
    whole = read(fleet, np.arange(60))
    later = read(fleet, np.arange(40, 60))
    for one, other in zip(whole, later, strict=True):
        assert np.array_equal(one[:, 40:], other, equal_nan=True)
    area = "LV_009_F2_01"
    rows = [k for k, name in enumerate(fleet.areas) if name == area]
    assert rows
    for one, other in zip(whole, read(fleet.part(area), np.arange(60)), strict=True):
        assert np.array_equal(one[rows], other)


def test_seeds_and_quantities_differ(grid: Grid) -> None:
    one, other = read(meter_fleet(grid, 1), np.arange(3)), read(meter_fleet(grid, 2), np.arange(3))
    assert not np.array_equal(one[1], other[1])
    errors = (one[1] - 1000) / 10, (one[2] + 500) / 10
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.04


def test_realistic_meters_have_a_fixed_gain_error(grid: Grid) -> None:
    fleet = meter_fleet(grid, mode="realistic")
    _, active, _ = read(fleet, np.arange(400))
    gain = active.mean(axis=1) - 1000
    assert gain.std() == pytest.approx(9, rel=0.05)
    assert (active - active.mean(axis=1, keepdims=True)).std() == pytest.approx(10 * np.sqrt(0.19), rel=0.02)


def test_plants_measure_power_only(grid: Grid) -> None:
    fleet = meter_fleet(grid)
    voltage, active, _ = read(fleet, np.arange(2))
    plants = [k for k, name in enumerate(fleet.meters) if name.startswith("MV_")]
    assert len(plants) == 9
    assert np.isnan(voltage[plants]).all()
    assert np.isfinite(active).all()
    customers = np.setdiff1d(np.arange(len(fleet.meters)), plants)
    assert np.isfinite(voltage[customers]).all()


def test_small_powers_keep_a_floor(grid: Grid) -> None:
    fleet = meter_fleet(grid).part("LV_004_F1_01")
    zero = np.zeros((len(fleet.meters), 1))
    readings = fleet.read(np.arange(1), zero + 230, zero, zero)
    assert (readings.sigma_active_power_w == 1.0).all()
    assert (readings.sigma_reactive_power_var == 1.0).all()


def test_partial_deployment_leaves_out_whole_areas(grid: Grid) -> None:
    missing = frozenset({"LV_004", "LV_009", "LV_011"})
    fleet = meter_fleet(grid, unmonitored=missing)
    assert not {bus[:6] for bus in fleet.buses} & missing
    assert len(meter_fleet(grid).meters) - len(fleet.meters) == 181 + 470 + 423
