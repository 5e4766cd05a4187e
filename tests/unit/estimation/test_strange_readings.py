"""Readings that make no sense: an error that names them, or an estimate that holds; never a crash or a quiet lie."""

import numpy as np
import pytest
from grids import feeder, ring
from hypothesis import given, settings
from hypothesis import strategies as st

from flexmeter.errors import MeasurementError
from flexmeter.estimation import Estimator, Meter, load_meters
from flexmeter.powerflow import compile_network, powerflow

NUMBERS = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-12, 1e12, -1e6, 230.0])
MORE = [Meter("voltage_angle", "bus", "lv", "a"), Meter("current", "branch_from", "m2", "a")]


class Ready:
    def __init__(self, grid, more):
        self.network = compile_network(grid)
        self.meters = (*load_meters(self.network), *more)
        self.estimator = Estimator(self.network, self.meters)
        flow = powerflow(self.network)
        nothing = np.full((len(self.meters), 1), np.nan)
        known = nothing.copy()
        n = len(self.network.injections)
        plus, minus = self.network.injection_nodes
        v = flow.voltage_v[plus] - np.where((minus >= 0)[:, None], flow.voltage_v[minus], 0)
        known[: 3 * n] = np.vstack([np.abs(v), self.network.power_w[:, None], self.network.power_var[:, None]])
        self.true = self.estimator.estimate(known, np.ones_like(known), covariance=False).fitted
        self.sigma = np.maximum(0.01 * np.abs(self.true), 0.02)


@pytest.fixture(scope="module", params=["tree", "ring"])
def ready(request):
    return Ready(feeder(), MORE) if request.param == "tree" else Ready(ring(closed=True), ())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_strange_readings_harm_nobody_else(ready, data):
    n = len(ready.meters)
    value, sigma = np.repeat(ready.true, 3, axis=1), np.repeat(ready.sigma, 3, axis=1)
    for row in data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=5)):
        value[row, 1] = data.draw(NUMBERS)
        if data.draw(st.booleans()):
            sigma[row, 1] = data.draw(NUMBERS)
    try:
        estimate = ready.estimator.estimate(value, sigma)
    except MeasurementError as error:
        named = {word for finding in error.findings for word in finding.ids}
        assert named <= {f"{m.quantity} {m.at} {m.id} {m.phase}" for m in ready.meters}
        return
    assert estimate.converged[[0, 2]].all()
    np.testing.assert_allclose(np.abs(estimate.voltage_v[:, 0]), np.abs(estimate.voltage_v[:, 2]), rtol=1e-9)
    np.testing.assert_allclose(estimate.fitted[:, 0], ready.true[:, 0], rtol=1e-6, atol=1e-3)
    if estimate.converged[1]:
        assert np.isfinite(estimate.voltage_v[:, 1]).all()
        assert np.isfinite(estimate.objective[1])
        assert np.isfinite(estimate.sigma_voltage_v[:, 1]).all()
