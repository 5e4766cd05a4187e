"""The estimator against a dense textbook Gauss-Newton, and its behaviour at the edges."""

import numpy as np
import pytest
from dense import Dense
from feeders import lv100, metered
from grids import feeder
from scipy import stats

from flexmeter.errors import MeasurementError
from flexmeter.estimation import Estimator, Meter, load_meters, relative_sigma
from flexmeter.estimation.estimate import terminal_voltage
from flexmeter.powerflow import compile_network, powerflow


@pytest.fixture(scope="module")
def estimate(study):
    return Estimator(study.network, study.meters).estimate(study.readings, study.sigma)


def test_objective_and_degrees_equal_the_dense_reference(study, estimate):
    assert estimate.objective[0] == pytest.approx(study.dense.objective, rel=1e-9)
    assert estimate.degrees_of_freedom[0] == len(study.readings) - len(study.dense.x)
    assert estimate.converged.all()


def test_the_gradient_is_zero_in_units_of_sigma(study, estimate):
    """J's gradient by the dense reference's own derivatives at the estimator's solution, times each state's sigma."""
    current = estimate.injection_a[:, 0]
    state = np.concatenate([np.abs(estimate.spine_v[:3, 0]), current.real, current.imag])
    h, jacobian = study.dense.evaluate(state)
    gradient = jacobian.T @ ((study.readings - h) / study.sigma**2)
    assert np.max(np.abs(gradient) * np.sqrt(np.diag(study.dense.covariance))) < 1e-6


def test_hard_cases_converge_damped(study):
    """Thirty per cent of readings missing and tight meters on a load near zero: every draw reaches its optimum."""
    estimator = Estimator(study.network, load_meters(study.network))
    n = 3 * len(study.network.injections)
    rng = np.random.default_rng(8)
    value = study.true_readings[:n, None] + study.sigma[:n, None] * rng.standard_normal((n, 1000))
    value[rng.random(value.shape) < 0.3] = np.nan
    assert estimator.estimate(value, study.sigma[:n], covariance=False).converged.all()


def test_exact_readings_are_met_in_every_draw(study):
    """A step back to an exact reading may raise J: halving it for that would creep."""
    estimator = Estimator(study.network, study.meters)
    exact = [row for row, meter in enumerate(study.meters) if meter.id == "d20" and meter.quantity != "voltage"]
    sigma = np.repeat(study.sigma[:, None], 200, axis=1)
    value = study.true_readings[:, None] + sigma * np.random.default_rng(6).standard_normal(sigma.shape)
    sigma[exact], value[exact] = 0.0, study.true_readings[exact, None]
    estimate = estimator.estimate(value, sigma)
    assert estimate.converged.all()
    assert estimate.iterations.max() < 12
    np.testing.assert_allclose(estimate.fitted[exact], value[exact], rtol=1e-9)


def test_voltages_equal_the_dense_reference(study, estimate):
    network, dense = study.network, study.dense
    rows = dense.v[network.node_bus, network.node_phase]
    reference = np.abs(rows @ dense.x)
    per_unit = network.nominal_v[network.node_bus]
    assert np.max(np.abs(np.abs(estimate.voltage_v[:, 0]) - reference) / per_unit) < 1e-8


def check_sigmas(network, estimate, dense):
    rows = dense.v[network.node_bus, network.node_phase]
    v = rows @ dense.x
    np.testing.assert_allclose(
        estimate.sigma_voltage_v[:, 0], dense.sigma((v.conj()[:, None] * rows).real / np.abs(v)[:, None]), rtol=1e-8
    )
    h, jacobian = dense.evaluate(dense.x)
    np.testing.assert_allclose(estimate.fitted[:, 0], h, rtol=1e-8, atol=1e-6)
    np.testing.assert_allclose(estimate.sigma_fitted[:, 0], dense.sigma(jacobian), rtol=1e-8)


def check_head_covariance(estimate, dense):
    rows = []
    for quantity in ("voltage", "active_power", "reactive_power"):
        for phase in range(3):
            v, i = dense.v[0, phase], dense.j[0, phase]
            if quantity == "voltage":
                rows.append(((v @ dense.x).conj() * v).real / abs(v @ dense.x))
            else:
                ds = v * (i @ dense.x).conj() + (v @ dense.x) * i.conj()
                rows.append(ds.real if quantity == "active_power" else ds.imag)
    gradient = np.array(rows)
    reference = gradient @ dense.covariance @ gradient.T
    scale = np.sqrt(np.outer(np.diag(reference), np.diag(reference)))
    assert np.max(np.abs(estimate.head_covariance[:, :, 0] - reference) / scale) < 1e-8


def test_every_sigma_equals_the_dense_inverse(study, estimate):
    check_sigmas(study.network, estimate, study.dense)


def test_head_covariance_equals_the_dense_inverse(study, estimate):
    check_head_covariance(estimate, study.dense)


def test_every_sigma_and_the_head_covariance_equal_the_dense_inverse_on_a_hundred_buses():
    customers = metered(lv100())
    network, value = customers.estimator.network, customers.read(np.random.default_rng(12), 1)
    assert len(network.bus_ids) == 101
    dense = Dense(network)
    for meter in customers.meters:
        dense.meter(meter)
    dense.solve(value[:, 0], customers.sigma[:, 0], iterations=10)
    estimate = customers.estimator.estimate(value, customers.sigma)
    assert estimate.objective[0] == pytest.approx(dense.objective, rel=1e-9)
    check_sigmas(network, estimate, dense)
    check_head_covariance(estimate, dense)


def test_scenarios_of_a_batch_equal_single_calls(study):
    estimator = Estimator(study.network, study.meters)
    rng = np.random.default_rng(0)
    readings = study.readings[:, None] + study.sigma[:, None] * rng.standard_normal((len(study.sigma), 7))
    batch = estimator.estimate(readings, study.sigma, threads=2)
    for s in range(7):
        one = estimator.estimate(readings[:, s], study.sigma)
        np.testing.assert_allclose(batch.voltage_v[:, s], one.voltage_v[:, 0], rtol=1e-12)
        np.testing.assert_allclose(batch.sigma_fitted[:, s], one.sigma_fitted[:, 0], rtol=1e-9)


def test_exact_readings_give_the_truth_back_with_shunts():
    network = compile_network(feeder(shunt=True))
    flow = powerflow(network, tolerance_va=1e-8)
    power = terminal_voltage(network, flow.voltage_v) * flow.injection_a.conj()
    voltage = np.abs(terminal_voltage(network, flow.voltage_v))
    value = np.vstack([voltage, power.real, power.imag])
    estimate = Estimator(network, load_meters(network)).estimate(value, relative_sigma(value, 0.01, 1.0))
    np.testing.assert_allclose(np.abs(estimate.voltage_v), np.abs(flow.voltage_v), rtol=1e-9)
    assert estimate.objective[0] < 1e-9


def test_error_over_sigma_is_standard_normal_and_objective_chi_square(study):
    estimator = Estimator(study.network, study.meters)
    draws = 2000
    rng = np.random.default_rng(11)
    noise = rng.standard_normal((len(study.sigma), draws))
    estimate = estimator.estimate(study.true_readings[:, None] + study.sigma[:, None] * noise, study.sigma)
    assert estimate.converged.all()
    score = (np.abs(estimate.voltage_v) - np.abs(study.flow.voltage_v)) / estimate.sigma_voltage_v
    powers = (estimate.fitted - study.true_readings[:, None]) / estimate.sigma_fitted
    for group in (score, powers):
        assert np.all(np.abs(group.mean(axis=1)) < 4 / np.sqrt(draws))
        assert np.all(np.abs(group.std(axis=1) - 1) < 4 / np.sqrt(2 * draws))
    assert stats.kstest(estimate.objective, "chi2", args=(estimate.degrees_of_freedom[0],)).pvalue > 0.01


def test_a_missing_reading_is_missing_and_covered_by_its_sigma(study):
    estimator = Estimator(study.network, load_meters(study.network))
    n = len(study.network.injections)
    rng = np.random.default_rng(5)
    draws = 400
    value = study.true_readings[: 3 * n, None] + study.sigma[: 3 * n, None] * rng.standard_normal((3 * n, draws))
    value[rng.random(value.shape) < 0.3] = np.nan
    estimate = estimator.estimate(value, study.sigma[: 3 * n])
    assert estimate.converged.all()
    score = (np.abs(estimate.voltage_v) - np.abs(study.flow.voltage_v)) / estimate.sigma_voltage_v
    assert 0.93 < np.mean(np.abs(score) < 1.96) <= 1.0


def test_nothing_measured_on_a_phase_is_named_not_guessed(study):
    meters = [meter for meter in load_meters(study.network) if meter.quantity != "voltage"]
    n = 2 * len(study.network.injections)
    rows = slice(len(study.network.injections), len(study.network.injections) + n)
    estimate = Estimator(study.network, meters).estimate(study.readings[rows], study.sigma[rows])
    assert not estimate.head_observable.any()
    assert np.isnan(estimate.head[:3]).all()
    assert np.all(estimate.sigma_voltage_v / study.network.nominal_v[study.network.node_bus][:, None] > 0.05)


def test_several_meters_of_one_quantity_are_combined(study):
    meters = load_meters(study.network)
    n = len(meters)
    double = Estimator(study.network, meters + meters)
    single = Estimator(study.network, meters)
    z, s = study.readings[:n], study.sigma[:n]
    one = single.estimate(z, s / np.sqrt(2))
    two = double.estimate(np.concatenate([z, z]), np.concatenate([s, s]))
    np.testing.assert_allclose(two.voltage_v, one.voltage_v, rtol=1e-10)
    np.testing.assert_allclose(two.sigma_voltage_v, one.sigma_voltage_v, rtol=1e-8)


def test_a_nan_scenario_does_not_touch_its_neighbours(study):
    estimator = Estimator(study.network, study.meters)
    value = np.repeat(study.readings[:, None], 4, axis=1)
    value[:, 2] = np.nan
    estimate = estimator.estimate(value, study.sigma)
    good = [0, 1, 3]
    np.testing.assert_allclose(estimate.objective[good], study.dense.objective, rtol=1e-9)
    assert not estimate.head_observable[:, 2].any()


@pytest.mark.parametrize(
    ("row", "value", "sigma", "text"),
    [
        (0, -230.0, 2.3, "not positive"),
        (0, 230.0, 0.0, "cannot be exact"),
        (0, np.inf, 2.3, "infinite"),
        (3, 230.0, -1.0, "negative or nan"),
        (3, 230.0, np.inf, "leave the reading out"),
    ],
)
def test_bad_readings_are_named(study, row, value, sigma, text):
    estimator = Estimator(study.network, study.meters)
    z, s = study.readings.copy(), study.sigma.copy()
    z[row], s[row] = value, sigma
    with pytest.raises(MeasurementError, match=text) as caught:
        estimator.estimate(z, s)
    assert study.meters[row].id in str(caught.value)


def test_unknown_places_are_named(study):
    with pytest.raises(MeasurementError, match="nowhere"):
        Estimator(study.network, [Meter("voltage", "load", "nowhere", "a")])
    with pytest.raises(MeasurementError, match="shapes"):
        Estimator(study.network, study.meters).estimate(study.readings[:-1], study.sigma[:-1])
