"""Forecast-aided estimation: what earlier estimates are worth, checked against simulated loads."""

import numpy as np
import pytest
from feeders import lv100, metered

from flexmeter.errors import MeasurementError
from flexmeter.estimation import Estimator, Forecast, default_forecast, load_meters
from flexmeter.estimation.prior import ProcessNoise, aged_forecast, aided, forecast_from, process_noise, widened

STEP_S, TIME_S, SPREAD = 60.0, 1200.0, 400.0


def one(value, n=80):
    return np.full(n, float(value))


@pytest.fixture(scope="module")
def walk():
    """300 minutes of loads that wander around their usual values, correlation time 20 minutes, sigma 400 W."""
    rng = np.random.default_rng(60)
    usual = rng.uniform(800, 2000, 80)
    kept = np.exp(-STEP_S / TIME_S)
    x, steps = rng.standard_normal(80), []
    for _ in range(300):
        x = kept * x + np.sqrt(1 - kept**2) * rng.standard_normal(80)
        steps.append(usual + SPREAD * x)
    power = np.array(steps).T
    return usual, metered(lv100(), power, 0.3 * power)


def test_age_leads_from_the_last_estimate_to_the_usual_value():
    last = Forecast(one(2000), one(20), one(500), one(10))
    usual = Forecast(one(800), one(400), one(200), one(100))
    now, later = aged_forecast(last, usual, 0.0, TIME_S), aged_forecast(last, usual, 1e6, TIME_S)
    for name in ("active_power_w", "sigma_active_power_w", "reactive_power_var", "sigma_reactive_power_var"):
        assert np.allclose(getattr(now, name), getattr(last, name))
        assert np.allclose(getattr(later, name), getattr(usual, name))
    middle = aged_forecast(last, usual, TIME_S, TIME_S)
    assert middle.active_power_w[0] == pytest.approx(800 + 1200 / np.e)
    twice = aged_forecast(aged_forecast(last, usual, 100.0, TIME_S), usual, 200.0, TIME_S)
    once = aged_forecast(last, usual, 300.0, TIME_S)
    assert np.allclose(twice.sigma_active_power_w, once.sigma_active_power_w)
    with pytest.raises(MeasurementError, match="age"):
        aged_forecast(last, usual, -1.0, TIME_S)


def test_lost_meters_are_covered_by_the_aged_estimate(walk):
    """Half of the customers fall silent after minute 100: the sigma of what stands in for them must hold."""
    usual_w, feeder = walk
    n, rng = 80, np.random.default_rng(61)
    silent = np.arange(0, 80, 2)
    z = feeder.true + feeder.sigma * rng.standard_normal(feeder.true.shape)
    usual = Forecast(usual_w, one(SPREAD), 0.3 * usual_w, one(0.3 * SPREAD))
    rows = np.concatenate([silent, n + silent, 2 * n + silent])
    scores, aided_error, plain_error = [], [], []
    for start in range(100, 300, 20):
        last = forecast_from(feeder.estimator.estimate(z[:, start - 1], feeder.sigma[:, start - 1]))
        for age in (1, 10):
            t = start - 1 + age
            value, sigma = z[:, t : t + 1].copy(), feeder.sigma[:, t : t + 1]
            value[rows] = np.nan
            with_prior = aided(
                feeder.estimator.network, feeder.meters, value, sigma, aged_forecast(last, usual, age * STEP_S, TIME_S)
            )
            estimate = feeder.estimator.estimate(*with_prior)
            error = estimate.power_va.real[silent, 0] - feeder.true[n + silent, t]
            scores.append(error / estimate.sigma_active_power_w[silent, 0])
            aided_error.append(error)
            plain = feeder.estimator.estimate(value, sigma, covariance=False)
            plain_error.append(plain.power_va.real[silent, 0] - feeder.true[n + silent, t])
    scores = np.array(scores)
    assert np.std(scores) == pytest.approx(1, abs=0.1)
    assert (np.abs(scores) < 1.96).mean() == pytest.approx(0.95, abs=0.03)
    assert np.std(aided_error) < 0.4 * np.std(plain_error)


def test_process_noise_is_read_from_a_series_of_estimates(walk):
    usual_w, feeder = walk
    z = feeder.read(np.random.default_rng(62), 300)
    estimate = feeder.estimator.estimate(z, feeder.sigma)
    noise = process_noise(estimate, Forecast(usual_w, one(0), 0.3 * usual_w, one(0)), STEP_S)
    assert np.sqrt(np.mean(noise.sigma_active_power_w**2)) == pytest.approx(SPREAD, rel=0.1)
    assert np.sqrt(np.mean(noise.sigma_reactive_power_var**2)) == pytest.approx(0.3 * SPREAD, rel=0.1)
    assert np.median(noise.correlation_time_s) == pytest.approx(TIME_S, rel=0.35)


def test_yesterday_is_as_good_as_two_days_are_alike():
    estimate = Forecast(one(1000), one(30), one(300), one(40))
    usual = widened(estimate, ProcessNoise(one(400), one(90), one(TIME_S)))
    assert usual.sigma_active_power_w[0] == pytest.approx(np.hypot(30, 400))
    assert usual.sigma_reactive_power_var[0] == pytest.approx(np.hypot(40, 90))
    assert usual.active_power_w[0] == 1000


def test_filled_gaps_equal_the_estimators_own_forecast():
    feeder = metered(lv100(n=5))
    network, n = feeder.estimator.network, feeder.n_load
    forecast = Forecast(network.power_w * 1.2, one(150, n), network.power_var, one(50, n))
    z = feeder.read(np.random.default_rng(63), 3)
    z[[n, n + 3, 2 * n + 3]] = np.nan
    own = Estimator(network, feeder.meters, forecast).estimate(z, feeder.sigma)
    filled = feeder.estimator.estimate(*aided(network, feeder.meters, z, feeder.sigma, forecast))
    assert np.allclose(filled.voltage_v, own.voltage_v, rtol=1e-9)
    assert np.allclose(filled.objective, own.objective)


def test_combining_equals_a_second_meter():
    """A forecast combined with a reading must act as a second meter that reads the forecast."""
    feeder = metered(lv100(n=5))
    network, n = feeder.estimator.network, feeder.n_load
    forecast = Forecast(network.power_w * 1.1, one(60, n), network.power_var * 0.9, one(30, n))
    z = feeder.read(np.random.default_rng(64), 2)
    powers = feeder.meters[n:]
    second = np.concatenate([forecast.active_power_w, forecast.reactive_power_var])[:, None] * np.ones((1, 2))
    spread = np.concatenate([forecast.sigma_active_power_w, forecast.sigma_reactive_power_var])[:, None] * np.ones(
        (1, 2)
    )
    sigma = np.broadcast_to(feeder.sigma, z.shape)
    twice = Estimator(network, (*feeder.meters, *powers)).estimate(np.vstack([z, second]), np.vstack([sigma, spread]))
    combined = feeder.estimator.estimate(*aided(network, feeder.meters, z, sigma, forecast, only_missing=False))
    assert np.allclose(combined.voltage_v, twice.voltage_v, rtol=1e-9)
    assert np.allclose(combined.sigma_active_power_w, twice.sigma_active_power_w, rtol=1e-6)


def test_an_estimate_that_failed_is_no_forecast():
    feeder = metered(lv100(n=3))
    z = np.hstack([feeder.true, feeder.true])
    z[feeder.n_load : 2 * feeder.n_load, 1] *= 1e5
    estimate = feeder.estimator.estimate(z, feeder.sigma)
    assert list(estimate.converged) == [True, False]
    with pytest.raises(MeasurementError, match="converge"):
        forecast_from(estimate)
    assert forecast_from(estimate, 0).active_power_w.shape == (feeder.n_load,)


def test_default_forecast_serves_as_usual_value():
    feeder = metered(lv100(n=3))
    usual = default_forecast(feeder.estimator.network)
    last = forecast_from(feeder.estimator.estimate(feeder.true, feeder.sigma))
    aged = aged_forecast(last, usual, 3600.0, one(TIME_S, feeder.n_load))
    assert (aged.sigma_active_power_w > last.sigma_active_power_w).all()
    assert len(load_meters(feeder.estimator.network)) == len(feeder.meters)
