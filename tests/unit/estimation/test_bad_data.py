"""Residuals, chi-square, largest normalised residual and Huber, by draws on a 100-bus LV feeder."""

import numpy as np
import pytest
from feeders import SIGMA_V, lv100, metered
from grids import feeder
from scipy.stats import binom, kstest

from flexmeter.errors import MeasurementError
from flexmeter.estimation import Estimator, Meter, load_meters
from flexmeter.estimation.bad_data import chi_square_test, huber, remove_bad_data
from flexmeter.estimation.residuals import identification_threshold, residuals
from flexmeter.powerflow import compile_network, powerflow


@pytest.fixture(scope="module")
def lv():
    return metered(lv100())


def bounds(n, rate, outside=1e-3):
    return binom.ppf(outside / 2, n, rate), binom.ppf(1 - outside / 2, n, rate)


def test_visible_share_is_the_dense_residual_sensitivity(study):
    estimate = Estimator(study.network, study.meters).estimate(study.readings, study.sigma)
    found = residuals(estimate, study.meters, study.readings, study.sigma)
    h, jacobian = study.dense.evaluate(study.dense.x)
    visible = 1 - (study.dense.sigma(jacobian) / study.sigma) ** 2
    assert np.allclose(found.visible[:, 0], visible, atol=1e-8)
    assert np.allclose(found.residual[:, 0], study.readings - h, atol=1e-4)
    assert found.visible.sum() == pytest.approx(estimate.degrees_of_freedom[0], abs=1e-6)


def test_normalised_residuals_of_good_readings_are_standard_normal(lv):
    z = lv.read(np.random.default_rng(11), 1000)
    found = residuals(lv.estimator.estimate(z, lv.sigma), lv.meters, z, lv.sigma)
    for rows in (slice(0, 80), slice(80, 160)):
        sample = found.normalised[rows]
        assert abs(np.nanmean(sample)) < 0.03
        assert np.nanstd(sample) == pytest.approx(1, abs=0.03)
    assert kstest(found.normalised[17], "norm").pvalue > 1e-3


def test_error_is_the_reading_against_an_estimate_without_it(lv):
    z = lv.read(np.random.default_rng(12), 1)
    found = residuals(lv.estimator.estimate(z, lv.sigma), lv.meters, z, lv.sigma)
    without = z.copy()
    without[7] = np.nan
    other = lv.estimator.estimate(without, lv.sigma)
    assert found.error[7, 0] == pytest.approx(z[7, 0] - other.fitted[7, 0], rel=1e-2)
    assert found.sigma_error[7, 0] == pytest.approx(np.hypot(SIGMA_V, other.sigma_fitted[7, 0]), rel=1e-2)


def test_chi_square_alarms_at_the_set_rate(lv):
    z = lv.read(np.random.default_rng(13), 2000)
    estimate = lv.estimator.estimate(z, lv.sigma, covariance=False)
    for rate in (0.01, 0.05):
        test = chi_square_test(estimate, rate)
        low, high = bounds(2000, rate)
        assert low <= test.suspicious.sum() <= high
    assert kstest(test.p_value, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_identification_alarms_at_most_at_the_set_rate(lv, rate):
    n = 1000
    z = lv.read(np.random.default_rng(14), n)
    found = remove_bad_data(lv.estimator, z, lv.sigma, false_alarm=rate)
    alarms = len({item.scenario for item in found.removals})
    assert rate * n / 3 < alarms <= bounds(n, rate)[1]
    assert found.clean.all()


def test_one_voltage_error_of_ten_sigma_is_found_and_removed(lv):
    n = 1000
    rng = np.random.default_rng(15)
    z = lv.read(rng, n)
    row, where = rng.integers(0, 80, n), np.arange(n)
    z[row, where] = lv.true[row, 0] + rng.choice([-1, 1], n) * rng.uniform(10, 20, n) * SIGMA_V
    found = remove_bad_data(lv.estimator, z, lv.sigma, false_alarm=0.01)
    removed = np.isnan(found.value)
    assert removed[row, where].mean() >= 0.99
    assert (removed.sum(0) > 1).sum() <= bounds(n, 0.015)[1]
    first = {}
    for item in found.removals:
        first.setdefault(item.scenario, item)
    assert np.mean([first[k].row == row[k] and first[k].alternatives == 0 for k in where]) >= 0.99
    size = np.array([(first[k].error - (z[row[k], k] - lv.true[row[k], 0])) / first[k].sigma_error for k in where])
    assert abs(np.median(size)) < 0.1
    score = (found.estimate.fitted[:80] - lv.true[:80]) / found.estimate.sigma_fitted[:80]
    assert np.std(score) == pytest.approx(1, abs=0.05)  # the error does no more harm
    assert np.abs(score).max() < 5.5


def test_several_errors_are_taken_out_one_after_the_other(lv):
    n = 200
    rng = np.random.default_rng(16)
    z = lv.read(rng, n)
    rows = np.stack([rng.choice(80, 3, replace=False) for _ in range(n)])
    for k in range(n):
        z[rows[k], k] += rng.choice([-1, 1], 3) * 12 * SIGMA_V
    found = remove_bad_data(lv.estimator, z, lv.sigma)
    hit = np.array([np.isnan(found.value[rows[k], k]).all() for k in range(n)])
    assert hit.mean() >= 0.99
    few = remove_bad_data(lv.estimator, z, lv.sigma, max_rounds=1)
    assert few.clean.mean() < 0.1


def test_a_power_error_shows_only_from_its_detectable_size(lv):
    n, row = 400, 80 + 77  # active power of a customer near the end
    rng = np.random.default_rng(17)
    z = lv.read(rng, n)
    found = residuals(lv.estimator.estimate(z, lv.sigma), lv.meters, z, lv.sigma)
    size = float(np.median(found.detectable(false_alarm=0.01, missed=0.01)[row]))
    assert size > 100 * lv.sigma[row, 0]  # ten sigma of a power reading are far from visible
    caught = {}
    for share in (0.25, 1.3):
        bad = z.copy()
        bad[row] -= share * size
        suspects = remove_bad_data(lv.estimator, bad, lv.sigma, max_rounds=1).removals
        caught[share] = len({item.scenario for item in suspects}) / n
    assert caught[0.25] < 0.2
    assert caught[1.3] >= 0.95


def test_a_sum_tells_that_a_power_is_wrong_but_not_whose(lv):
    """All that cannot be told from the culprit goes with it: no wrong power is left with a small sigma."""
    network = lv.estimator.network
    head = [Meter(q, "head", "head", p) for q in ("active_power", "reactive_power") for p in "abc"]
    estimator = Estimator(network, (*lv.meters, *head))
    missing = np.vstack([lv.true, np.full((6, 1), np.nan)])
    total = estimator.estimate(missing, np.ones_like(missing), covariance=False).fitted[-6:]
    true = np.vstack([lv.true, total])
    sigma = np.vstack([lv.sigma, np.abs(total) * np.repeat([0.01, 0.02], 3)[:, None]])
    n = 100
    rng = np.random.default_rng(22)
    z = true + sigma * rng.standard_normal((len(true), n))
    row = 80 + rng.integers(0, 80, n)
    z[row, np.arange(n)] += 3e3
    found = remove_bad_data(estimator, z, sigma)
    assert np.isnan(found.value[row, np.arange(n)]).mean() >= 0.99
    assert np.median([item.alternatives for item in found.removals]) > 5
    error = found.estimate.power_va.real - lv.true[80:160]
    score = np.abs(error / found.estimate.sigma_active_power_w)
    assert (score < 4).mean() > 0.999


def test_nothing_is_said_of_readings_nobody_checks():
    network = compile_network(feeder(shunt=False))
    meters = load_meters(network, ("active_power", "reactive_power"))
    flow = powerflow(network)
    z = np.concatenate([network.power_w, network.power_var])[:, None]
    assert flow.converged.all()
    estimator = Estimator(network, meters)
    sigma = np.maximum(0.01 * np.abs(z), 1)
    found = residuals(estimator.estimate(z, sigma), meters, z, sigma)
    assert found.critical.all()
    assert np.isinf(found.detectable()).all()
    wrong = z.copy()
    wrong[0] *= 3
    result = remove_bad_data(estimator, wrong, sigma)
    assert result.removals == ()
    assert chi_square_test(result.estimate).threshold[0] == np.inf


def test_huber_bounds_the_harm_of_voltage_errors(lv):
    n = 200
    rng = np.random.default_rng(18)
    z = lv.read(rng, n)
    bad = z.copy()
    rows = np.arange(0, 80, 10)
    bad[rows] += 15 * SIGMA_V
    plain = lv.estimator.estimate(bad, lv.sigma, covariance=False)
    robust = huber(lv.estimator, bad, lv.sigma)
    assert robust.settled
    rms = [np.sqrt(np.mean((e.fitted[:80] - lv.true[:80]) ** 2)) for e in (plain, robust.estimate)]
    assert rms[1] < 0.4 * rms[0]
    assert robust.weight[rows].max() < 0.2
    clean = huber(lv.estimator, z, lv.sigma)
    good = lv.estimator.estimate(z, lv.sigma, covariance=False)
    loss = np.var(clean.estimate.fitted[:80] - lv.true[:80]) / np.var(good.fitted[:80] - lv.true[:80])
    assert 0.98 < loss < 1.12  # 95 % efficiency


def test_missing_readings_stay_missing(lv):
    z = lv.read(np.random.default_rng(19), 4)
    z[3, 1] = z[90, 2] = np.nan
    found = residuals(lv.estimator.estimate(z, lv.sigma), lv.meters, z, lv.sigma)
    for array in (found.residual, found.normalised, found.error):
        assert np.isnan(array[3, 1])
        assert np.isnan(array[90, 2])
    weight = huber(lv.estimator, z, lv.sigma).weight
    assert np.isnan(weight[3, 1])
    assert np.isfinite(weight[4]).all()


def test_a_scenario_without_estimate_is_not_clean_and_harms_no_other(lv):
    z = lv.read(np.random.default_rng(23), 3)
    alone = remove_bad_data(lv.estimator, z[:, [0, 2]], lv.sigma)
    z[80:160, 1] *= 1e5
    found = remove_bad_data(lv.estimator, z, lv.sigma)
    assert list(found.clean) == [True, False, True]
    assert np.allclose(found.estimate.objective[[0, 2]], alone.estimate.objective, rtol=1e-6)
    assert np.isfinite(huber(lv.estimator, z, lv.sigma).weight).all()


def test_threshold_of_independent_readings():
    n, rate = 50, 0.1
    draws = np.abs(np.random.default_rng(20).standard_normal((n, 4000))).max(0)
    low, high = bounds(4000, rate)
    assert low <= (draws > identification_threshold(n, rate)).sum() <= high
    assert identification_threshold(0, rate) == np.inf


def test_wrong_shapes_are_one_clear_error(lv):
    z = lv.read(np.random.default_rng(21), 2)
    with pytest.raises(MeasurementError, match="expected"):
        residuals(lv.estimator.estimate(z, lv.sigma), lv.meters, z[:, :1], lv.sigma)
    with pytest.raises(MeasurementError, match="covariance=True"):
        residuals(lv.estimator.estimate(z, lv.sigma, covariance=False), lv.meters, z, lv.sigma)
