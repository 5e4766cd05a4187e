import numpy as np
import pytest

from flexmeter.scenario.households import APPLIANCES, HouseholdDay, european_shapes_w, household_day
from flexmeter.scenario.profiles import reactive_factor, standard_household_w


@pytest.fixture(scope="module")
def day() -> HouseholdDay:
    return household_day(3465, seed=1)


def autocorrelation(power: np.ndarray, lag: int) -> float:
    centred = power - power.mean(axis=1, keepdims=True)
    return float(np.mean((centred[:, lag:] * centred[:, :-lag]).mean(axis=1) / power.var(axis=1)))


def test_mean_follows_the_standard_profile(day: HouseholdDay) -> None:
    mean, standard = day.active_power_w.mean(axis=0), standard_household_w()
    assert mean.mean() == pytest.approx(standard.mean(), rel=1e-9)
    assert np.corrcoef(mean, standard)[0, 1] > 0.99
    quarters = mean.reshape(96, 15).mean(axis=1), standard.reshape(96, 15).mean(axis=1)
    # sampling error of a quarter hour: about 1.7 / sqrt(3465) with 0.6 of it left after averaging 15 minutes
    assert np.abs(quarters[0] / quarters[1] - 1).max() < 5 * 1.7 / np.sqrt(3465)


def test_mean_is_unbiased_before_normalising() -> None:
    """Over many households the share of every hour is that of the standard profile, also at night."""
    hours = np.mean([household_day(2000, seed).active_power_w.mean(axis=0) for seed in range(12)], axis=0)
    ratio = hours.reshape(24, 60).mean(axis=1) / standard_household_w().reshape(24, 60).mean(axis=1)
    assert np.abs(ratio - 1).max() < 0.02


def test_single_households_are_as_restless_as_measured_ones(day: HouseholdDay) -> None:
    power, measured = day.active_power_w, european_shapes_w()
    assert 1.5 < power.std() / power.mean() < 1.9
    for lag, tolerance in ((1, 0.06), (5, 0.06), (15, 0.08)):
        assert autocorrelation(power, lag) == pytest.approx(autocorrelation(measured, lag), abs=tolerance)
    assert power.min() > 0
    assert power.max() < 15e3


def test_power_factor_varies_around_its_mean(day: HouseholdDay) -> None:
    total = day.reactive_power_var.sum() / day.active_power_w.sum()
    assert total == pytest.approx(reactive_factor(0.95))
    assert np.std(day.reactive_power_var / day.active_power_w) > 0.1


def test_same_seed_same_day(day: HouseholdDay) -> None:
    assert np.array_equal(household_day(50, 3).active_power_w, household_day(50, 3).active_power_w)
    assert not np.array_equal(household_day(50, 3).active_power_w, household_day(50, 4).active_power_w)


def test_european_shapes_as_second_source() -> None:
    shapes = european_shapes_w()
    assert shapes.shape == (100, 1440)
    assert shapes.mean() == pytest.approx(351.0, abs=0.1)  # 3,075 kWh per year
    day = household_day(400, 1, "european")
    assert day.active_power_w.mean() == pytest.approx(standard_household_w().mean())
    assert day.reactive_power_var.sum() / day.active_power_w.sum() == pytest.approx(reactive_factor(0.95))


def test_appliances_share_all_of_the_energy() -> None:
    assert sum(appliance.share for appliance in APPLIANCES) == pytest.approx(1.0)
