"""Shared small studies of the estimation tests."""

import numpy as np
import pytest
from dense import Dense
from grids import feeder

from flexmeter.estimation import Meter, load_meters
from flexmeter.powerflow import compile_network, powerflow


class Study:
    """A grid, its true state, meters of every kind with noisy readings, and the dense reference."""

    def __init__(self, seed=3):
        self.network = compile_network(feeder(shunt=False))
        self.flow = powerflow(self.network, tolerance_va=1e-7)
        meters = [*load_meters(self.network), *(Meter("voltage", "bus", "lv", phase) for phase in "abc")]
        for phase in "ab":
            meters += [Meter(q, "branch_from", "m2", phase) for q in ("active_power", "reactive_power")]
        meters += [Meter("current", "branch_to", "m4", phase) for phase in "bc"]
        meters += [Meter(q, "head", "mv", phase) for phase in "abc" for q in ("active_power", "current")]
        meters += [Meter("reactive_power", "branch_from", "t", "a"), Meter("active_power", "branch_to", "t", "b")]
        self.meters = tuple(meters)
        self.dense = Dense(self.network)
        for meter in meters:
            self.dense.meter(meter)
        current = self.flow.injection_a[:, 0]
        truth = np.concatenate([np.abs(self.network.source_v), current.real, current.imag])
        self.true_readings = self.dense.evaluate(truth)[0]
        share = np.array([0.02 if meter.quantity == "reactive_power" else 0.01 for meter in meters])
        self.sigma = np.maximum(share * np.abs(self.true_readings), 1.0)
        noise = np.random.default_rng(seed).standard_normal(len(meters))
        self.readings = self.true_readings + self.sigma * noise
        self.dense.solve(self.readings, self.sigma)


@pytest.fixture(scope="session")
def study():
    return Study()
