"""Gains of meters, found from residuals over a day of readings with fixed errors."""

import json

import numpy as np
import pytest
from feeders import lv100, metered

from flexmeter.errors import MeasurementError
from flexmeter.estimation.bias import MeterBias, track_bias, unknown_bias
from flexmeter.estimation.residuals import residuals
from flexmeter.scenario.meters import meter_fleet


@pytest.fixture(scope="module")
def day():
    """96 quarters of an hour of an LV feeder: powers vary from quarter to quarter."""
    rng = np.random.default_rng(30)
    grid = lv100()
    power = np.array([load.power_w[0] for load in grid.loads])[:, None] * rng.uniform(0.2, 1.8, (80, 96))
    return metered(grid, power, 0.3 * power)


def read(day, seed, mode="realistic"):
    """Return readings (as the estimator's rows) and sigmas of the simulator's meters."""
    fleet = meter_fleet(day.grid, seed=seed, mode=mode)
    order = [day.estimator.network.injections.index(row) for row in zip(fleet.meters, fleet.phases, strict=True)]
    v, p, q = day.true.reshape(3, day.n_load, -1)[:, order]
    got = fleet.read(np.arange(96) * 15, v, p, q)
    z, s = np.empty_like(day.true).reshape(3, day.n_load, -1), np.empty_like(day.true).reshape(3, day.n_load, -1)
    z[:, order] = got.voltage_v, got.active_power_w, got.reactive_power_var
    s[:, order] = got.sigma_voltage_v, got.sigma_active_power_w, got.sigma_reactive_power_var
    return z.reshape(day.true.shape), s.reshape(day.true.shape)


def tracked(day, z, s):
    found = residuals(day.estimator.estimate(z, s), day.meters, z, s)
    return track_bias(unknown_bias(day.meters), found, z)


def test_gains_of_voltmeters_are_found_with_an_honest_sigma(day):
    scores, left, before = [], [], []
    for seed in range(6):
        z, s = read(day, seed)
        state = tracked(day, z, s)
        true_gain = (z[:80] / day.true[:80] - 1).mean(1)
        scores.append((state.gain[:80] - true_gain) / state.sigma_gain[:80])
        left.append(state.gain[:80] - true_gain)
        before.append(true_gain)
        assert np.median(state.noise_share[:80]) == pytest.approx((96 * 0.19 + 10) / 106, abs=0.03)  # 10: memory of 1
    assert np.std(left) < 0.3 * np.std(before)
    scores = np.array(scores)
    assert np.sqrt(np.mean(scores**2)) == pytest.approx(1, abs=0.35)
    assert (np.abs(scores) > 3).mean() < 0.02


def test_correction_makes_the_readings_better(day):
    z, s = read(day, seed=40)
    state = tracked(day, z, s)
    better, sigma = state.corrected(z, s)
    raw, corrected = (np.sqrt(np.mean((x[:80] - day.true[:80]) ** 2)) for x in (z, better))
    assert corrected < 0.6 * raw
    assert np.sqrt(np.mean(((better - day.true)[:80] / sigma[:80]) ** 2)) < 1.2
    assert (sigma <= s).all()


def test_meters_without_fixed_error_are_not_accused(day):
    z, s = read(day, seed=41, mode="noise")
    state = tracked(day, z, s)
    assert state.biased(0.005) == ()
    assert np.median(state.noise_share[:80]) == pytest.approx(1, abs=0.15)


def test_one_bad_meter_is_named(day):
    z, s = read(day, seed=42, mode="noise")
    z[13] *= 1.04
    state = tracked(day, z, s)
    assert state.biased(0.01) == (day.meters[13],)
    assert state.gain[13] == pytest.approx(0.04, abs=3 * state.sigma_gain[13])


def test_powers_nobody_checks_stay_unknown(day):
    z, s = read(day, seed=43)
    state = tracked(day, z, s)
    powers = slice(80, None)
    unchecked = state.count[powers] == 0
    assert unchecked.mean() > 0.9
    assert (state.gain[powers][unchecked] == 0).all()
    assert (state.corrected(z, s)[0][powers][unchecked] == z[powers][unchecked]).all()


def test_state_survives_json_and_continues(day):
    z, s = read(day, seed=44)
    found = residuals(day.estimator.estimate(z, s), day.meters, z, s)
    half = residuals(day.estimator.estimate(z[:, :48], s[:, :48]), day.meters, z[:, :48], s[:, :48])
    rest = residuals(day.estimator.estimate(z[:, 48:], s[:, 48:]), day.meters, z[:, 48:], s[:, 48:])
    state = track_bias(unknown_bias(day.meters), half, z[:, :48])
    state = MeterBias.from_dict(json.loads(json.dumps(state.to_dict())))
    state = track_bias(state, rest, z[:, 48:])
    whole = track_bias(unknown_bias(day.meters), found, z)
    assert np.allclose(state.gain, whole.gain, atol=1e-9)
    assert state.meters == day.meters


def test_broken_state_is_one_clear_error(day):
    data = unknown_bias(day.meters).to_dict()
    with pytest.raises(MeasurementError, match="gain"):
        MeterBias.from_dict({**data, "gain": [1.0]})
    with pytest.raises(MeasurementError, match="count"):
        MeterBias.from_dict({key: column for key, column in data.items() if key != "count"})
    z, s = read(day, seed=45)
    with pytest.raises(MeasurementError, match="meters"):
        track_bias(unknown_bias(day.meters[:5]), residuals(day.estimator.estimate(z, s), day.meters, z, s), z)
