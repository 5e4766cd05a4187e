"""Voltage and current phasors as readings, against the dense reference with free head angles."""

import numpy as np
import pytest
from dense import TURN, Dense
from grids import feeder
from scipy import stats

from flexmeter.errors import MeasurementError
from flexmeter.estimation import Estimator, Meter, load_meters, residuals
from flexmeter.estimation.phasor import SPREAD
from flexmeter.powerflow import compile_network, powerflow

ALONG = 1.9
"""Angle between the phasor meters' time reference and phase a of the head [rad]."""


def phasor_meters():
    found = [Meter(q, "bus", "f4", p) for p in "abc" for q in ("voltage", "voltage_angle")]
    found += [Meter(q, "bus", "lv", p) for p in "ab" for q in ("voltage_real", "voltage_imaginary")]
    found += [Meter("voltage_angle", "load", "delta", "ab")]
    found += [Meter(q, "branch_from", "m2", "a") for q in ("current_real", "current_imaginary")]
    return [*found, *(Meter(q, "branch_to", "m4", "b") for q in ("current", "current_angle"))]


class Study:
    def __init__(self, meters=None, seed=3, turn=ALONG):
        self.network = compile_network(feeder(shunt=False))
        self.flow = powerflow(self.network, tolerance_va=1e-7)
        self.meters = (*load_meters(self.network), *(phasor_meters() if meters is None else meters))
        self.dense = Dense(self.network, SPREAD)
        for meter in self.meters:
            self.dense.meter(meter)
        current = self.flow.injection_a[:, 0] * np.exp(1j * turn)
        head = self.network.source_v * np.exp(1j * turn)
        self.truth = np.concatenate([head.real, head.imag, current.real, current.imag])
        self.true_readings = self.dense.evaluate(self.truth)[0][: len(self.meters)]
        self.sigma = np.array([accuracy(m, z) for m, z in zip(self.meters, self.true_readings, strict=True)])
        self.readings = self.true_readings + self.sigma * np.random.default_rng(seed).standard_normal(len(self.sigma))
        self.estimator = Estimator(self.network, self.meters)


def accuracy(meter, value):
    if meter.quantity.endswith("angle"):
        return 0.005
    if meter.quantity.split("_")[-1] in {"real", "imaginary"}:
        return 1.2 if meter.quantity.startswith("voltage") else 0.05
    return max(0.01 * abs(value), 1.0)


@pytest.fixture(scope="module")
def study():
    return Study()


def test_the_optimum_and_every_sigma_are_the_dense_references(study):
    estimate = study.estimator.estimate(study.readings, study.sigma)
    dense, network = study.dense.solve(study.readings, study.sigma, start=study.truth), study.network
    assert estimate.converged.all()
    np.testing.assert_allclose(estimate.objective, dense.objective, rtol=1e-7)
    rows = dense.v[network.node_bus, network.node_phase]
    off = np.abs(estimate.voltage_v[:, 0] - rows @ dense.x) / network.nominal_v[network.node_bus]
    assert off.max() < 1e-8  # complex: the angle is the phasors'
    h, jacobian = dense.evaluate(dense.x)
    np.testing.assert_allclose(np.exp(1j * estimate.fitted[:, 0]), np.exp(1j * h[:-2]), atol=1e-5)
    np.testing.assert_allclose(estimate.sigma_fitted[:, 0], dense.sigma(jacobian)[:-2], rtol=1e-7)
    assert estimate.degrees_of_freedom[0] == len(study.readings) + 2 - len(dense.x)


def test_joint_covariance_with_phasors(study):
    chosen = [study.meters[row] for row in (1, -1, -3, -6, -9, -12)]
    estimate = study.estimator.estimate(study.readings, study.sigma, joint=chosen)
    dense = study.dense.solve(study.readings, study.sigma, start=study.truth)
    gradient = dense.evaluate(dense.x)[1][[study.meters.index(meter) for meter in chosen]]
    reference = gradient @ dense.covariance @ gradient.T
    scale = np.sqrt(np.outer(np.diag(reference), np.diag(reference)))
    assert np.max(np.abs(estimate.joint_covariance[:, :, 0] - reference) / scale) < 1e-7


def test_any_subset_of_phasors_may_be_missing_in_each_scenario(study):
    """One angle alone turns the whole grid; without any, the head's angles are given."""
    value = np.repeat(study.readings[:, None], 6, axis=1)
    angles = [row for row, m in enumerate(study.meters) if m.quantity.split("_")[-1] in {"angle", "real", "imaginary"}]
    value[angles, 1] = np.nan
    value[angles[1:], 2] = np.nan
    value[angles[:-1], 3] = np.nan
    estimate = study.estimator.estimate(value, study.sigma)
    assert estimate.converged.all()
    np.testing.assert_allclose(np.angle(estimate.voltage_v[:3, 1]), np.angle(TURN), atol=1e-12)
    plain = [row for row in range(len(study.meters)) if row not in angles]
    radial = Estimator(study.network, [study.meters[row] for row in plain])
    reference = radial.estimate(study.readings[plain], study.sigma[plain])
    np.testing.assert_allclose(estimate.objective[1], reference.objective[0], rtol=1e-9)
    assert estimate.degrees_of_freedom[1] == reference.degrees_of_freedom[0]
    for scenario in (2, 3):
        assert abs(np.angle(estimate.voltage_v[0, scenario]) - ALONG) < 0.1
        assert estimate.degrees_of_freedom[scenario] == reference.degrees_of_freedom[0]
    np.testing.assert_array_equal(estimate.voltage_v[:, 4], estimate.voltage_v[:, 0])


def test_phasors_are_statistically_honest(study):
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((len(study.sigma), 2000))
    estimate = study.estimator.estimate(study.true_readings[:, None] + study.sigma[:, None] * noise, study.sigma)
    assert estimate.converged.all()
    off = residuals(estimate, study.meters, study.true_readings[:, None] + 0 * noise, study.sigma).residual
    score = off / estimate.sigma_fitted
    assert np.all(np.abs(score.mean(axis=1)) < 4 / np.sqrt(2000))
    # the pseudo-readings of the angles are met better than their sigma says: a little less spread than claimed
    assert np.all((score.std(axis=1) < 1.07) & (score.std(axis=1) > 0.85))
    assert stats.kstest(estimate.objective, "chi2", args=(estimate.degrees_of_freedom[0],)).pvalue > 1e-6


@pytest.mark.parametrize("turn", [-3.1, -1.0, 0.0, 3.14159])
def test_any_time_reference_will_do(turn):
    study = Study(turn=turn)
    estimate = study.estimator.estimate(study.readings, study.sigma, covariance=False)
    assert estimate.converged.all()
    assert abs(np.angle(estimate.voltage_v[0, 0] * np.exp(-1j * turn))) < 0.02


def test_two_meters_of_one_angle_meet_across_the_cut():
    meters = [Meter("voltage_angle", "bus", "f4", "a"), Meter("voltage_angle", "bus", "f4", "a")]
    network = compile_network(feeder(shunt=False))
    estimator = Estimator(network, (*load_meters(network), *meters))
    flow = powerflow(network)
    value = np.concatenate(
        [np.full(len(network.injections), np.nan), network.power_w, network.power_var, [3.13, -3.13]]
    )
    value[0] = 230.0
    sigma = np.where(np.arange(len(value)) < len(value) - 2, 2.0, 0.02)
    estimate = estimator.estimate(value, sigma)
    row = network.node_row["f4", "a"]
    assert abs(abs(np.angle(estimate.voltage_v[row, 0])) - np.pi) < 1e-3
    assert flow.converged.all()


def test_an_exact_voltage_phasor_is_refused_and_a_phasor_of_a_strange_place_named():
    network = compile_network(feeder(shunt=False))
    estimator = Estimator(network, [Meter("voltage_angle", "bus", "lv", "a")])
    with pytest.raises(MeasurementError, match="cannot be exact"):
        estimator.estimate([0.1], [0.0])
    for meter in (Meter("current_angle", "bus", "lv", "a"), Meter("voltage_angle", "branch_to", "m2", "a")):
        with pytest.raises(MeasurementError, match="nothing of that kind"):
            Estimator(network, [meter])
