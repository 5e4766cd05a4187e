import numpy as np
import pytest

from flexmeter.scenario.data import reference_day
from flexmeter.scenario.profiles import clouds, industrial_w, photovoltaic_w, reactive_factor, standard_household_w


def test_standard_profile_is_a_day_of_3000_kwh_a_year() -> None:
    # H0 on a summer workday is 3 % above the yearly mean of 342 W (BDEW day factor)
    assert standard_household_w().mean() == pytest.approx(352.3, rel=1e-3)
    assert standard_household_w().argmax() // 60 == 19


def test_plants_follow_the_calibration() -> None:
    for plant in reference_day().industrial.values():
        power = industrial_w(plant)
        assert power.max() <= plant.rated_w
        assert power[3 * 60] == pytest.approx(plant.rated_w * plant.shape.night)
        assert power[int(plant.shape.lunch_start_min + plant.shape.lunch_min / 2)] < 0.75 * power.max()
    (plant,) = reference_day().pv.values()
    power = photovoltaic_w(plant)
    assert power[858] == pytest.approx(1.315e6)
    assert power.sum() / 60 == pytest.approx(7.82e6, rel=2e-3)  # calibration's energy
    assert power[:400].max() == 0


def test_reactive_factor() -> None:
    assert reactive_factor(0.95) == pytest.approx(0.3287, rel=1e-3)


def test_clouds_take_power_and_are_seeded() -> None:
    share = clouds(1)
    assert 0 <= share.min() < share.max() <= 1
    assert np.array_equal(share, clouds(1))
    assert not np.array_equal(share, clouds(2))
