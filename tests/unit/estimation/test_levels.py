"""Three levels against one estimator over everything (paper section 4)."""

import numpy as np
import pytest
from grids import three_levels
from msgspec.structs import replace

from flexmeter.errors import MeasurementError
from flexmeter.estimation import (
    Estimator,
    aged,
    answer_for,
    drift,
    load_meters,
    relative_sigma,
    reports_from,
    summarise,
)
from flexmeter.estimation.estimate import terminal_voltage
from flexmeter.grid import Line, validate
from flexmeter.powerflow import compile_network, powerflow

LEVELS = ("concentrator", "lv", "mv")


class Hierarchy:
    def __init__(self, vector_group, handover, draws=4, ties=()):
        grid = three_levels(vector_group=vector_group)
        self.grid = replace(grid, lines=(*grid.lines, *ties))
        validate(self.grid)
        self.whole = compile_network(self.grid)
        self._measure(draws)
        self.monolith = Estimator(self.whole, load_meters(self.whole)).estimate(self.value, self.sigma)
        self.networks = {area.id: compile_network(self.grid, area=area.id) for area in self.grid.areas}
        self.estimators = {name: Estimator(net, load_meters(net)) for name, net in self.networks.items()}
        self.reports, self.message, self.estimates = {}, {}, {}
        self._upward(handover)

    def _measure(self, draws):
        rng = np.random.default_rng(1)
        spread = rng.lognormal(0, 0.3, (len(self.whole.injections), draws))
        flow = powerflow(self.whole, self.whole.power_w[:, None] * spread, self.whole.power_var[:, None] * spread)
        assert flow.converged.all()
        v = terminal_voltage(self.whole, flow.voltage_v)
        s = v * flow.injection_a.conj()
        nominal = np.repeat(self.whole.load_v[:, None], draws, axis=1)
        noise = rng.standard_normal((3, *v.shape))
        p, q = s.real * (1 + 0.01 * noise[1]), s.imag * (1 + 0.02 * noise[2])
        voltage = np.abs(v) + 0.01 * nominal * noise[0]
        voltage[[name == "plant" for name, _ in self.whole.injections]] = np.nan
        self.true_v = flow.voltage_v
        self.value = np.vstack([voltage, p, q])
        self.sigma = np.vstack([0.01 * nominal, relative_sigma(p, 0.01, 1.0), relative_sigma(q, 0.02, 1.0)])

    def readings(self, area):
        rows = [self.whole.injection_row[name] for name in self.networks[area].injections if ":" not in name[0]]
        n = len(self.whole.injections)
        rows = np.concatenate([np.array(rows, int) + k * n for k in range(3)])
        return self.value[rows], self.sigma[rows]

    def _upward(self, handover):
        for level in LEVELS:
            for area in (item for item in self.grid.areas if item.level == level):
                below = {item.id: self.message[item.id] for item in self.grid.areas if item.parent == area.id}
                self.reports[area.id] = reports_from(self.networks[area.id], below) if below else None
                self.estimates[area.id] = self.estimators[area.id].estimate(
                    *self.readings(area.id), reports=self.reports[area.id]
                )
                self.message[area.id] = summarise(self.estimates[area.id], handover)

    def downward(self):
        for level in ("lv", "concentrator"):
            for area in (item for item in self.grid.areas if item.level == level):
                answer, angle = answer_for(area.id, self.estimates[area.parent], self.message[area.id])
                self.estimates[area.id] = self.estimators[area.id].estimate(
                    *self.readings(area.id), reports=self.reports[area.id], answer=answer, source_angle_rad=angle
                )

    def distance(self, level):
        """Largest distance of |V| to the monolith [pu], and the extreme ratios of sigma, over observable phases."""
        distance, ratio = [], []
        for area in (item for item in self.grid.areas if item.level == level):
            network, estimate = self.networks[area.id], self.estimates[area.id]
            seen = [k for k, (_, p) in enumerate(network.nodes) if estimate.head_observable["abc".index(p)].all()]
            rows = [self.whole.node_row[network.nodes[k]] for k in seen]
            nominal = self.whole.nominal_v[self.whole.node_bus[rows]][:, None]
            off = np.abs(estimate.voltage_v[seen]) - np.abs(self.monolith.voltage_v[rows])
            distance.append(np.max(np.abs(off) / nominal))
            ratio.append(estimate.sigma_voltage_v[seen] / self.monolith.sigma_voltage_v[rows])
        return max(distance), min(r.min() for r in ratio), max(r.max() for r in ratio)


@pytest.mark.parametrize("vector_group", ["Dyn11", "YNyn0"])
def test_joint_handover_loses_nothing(vector_group):
    hierarchy = Hierarchy(vector_group, "joint")
    alone = hierarchy.distance("lv")[0]
    hierarchy.downward()
    for level in LEVELS:
        distance, low, high = hierarchy.distance(level)
        assert distance < 5e-5
        assert 0.99 < low <= high < 1.01
    assert alone > 1e-3  # what the way down is good for


RINGS = (
    Line("tie", "L0f0k2", "L0f1k2", "cable", 0.05),
    Line("chord", "L0f0k0", "L0f1k1", "cable", 0.08),
    Line("other", "L1f0k2", "L1f1k1", "cable", 0.03, phases="ab"),
)
"""One ring of two phases in one LV grid, two rings that share cables in the other."""


@pytest.mark.parametrize("vector_group", ["Dyn11", "YNyn0"])
def test_rings_in_a_level_below_lose_nothing(vector_group):
    hierarchy = Hierarchy(vector_group, "joint", ties=RINGS)
    assert [len(hierarchy.networks[name].loops) for name in ("lv0", "lv1", "mv")] == [2, 1, 0]
    alone = hierarchy.distance("lv")[0]
    hierarchy.downward()
    for level in LEVELS:
        distance, low, high = hierarchy.distance(level)
        assert distance < 5e-5
        assert 0.99 < low <= high < 1.01
    assert alone > 1e-3


def test_diagonal_handover_is_the_papers_and_close():
    hierarchy = Hierarchy("Dyn11", "diagonal")
    off_diagonal = hierarchy.message["lv0"].covariance[0, 3]
    assert np.all(off_diagonal == 0)
    hierarchy.downward()
    assert hierarchy.distance("mv")[0] < 3e-4


def test_an_area_that_does_not_report_is_a_wide_forecast():
    hierarchy = Hierarchy("Dyn11", "joint")
    network = hierarchy.networks["mv"]
    reports = reports_from(network, {"lv0": hierarchy.message["lv0"]})
    estimate = hierarchy.estimators["mv"].estimate(*hierarchy.readings("mv"), reports=reports)
    row = network.injection_row["aggregate:lv1", "a"]
    assert np.all(estimate.sigma_active_power_w[row] > 10 * hierarchy.message["lv1"].sigma[3])
    truth = np.abs(hierarchy.true_v[[hierarchy.whole.node_row[node] for node in network.nodes]])
    score = (np.abs(estimate.voltage_v) - truth) / estimate.sigma_voltage_v
    assert np.max(np.abs(score)) < 4.5


def test_an_old_report_grows_older():
    hierarchy = Hierarchy("Dyn11", "joint")
    message = hierarchy.message["lv0"]
    old = aged(message, 5 * drift(message))
    assert np.all(old.sigma >= message.sigma)
    assert np.all(old.sigma[3] > message.sigma[3])


def test_a_concentrator_without_customers_on_a_phase_says_so():
    hierarchy = Hierarchy("Dyn11", "joint")
    message = hierarchy.message["cL0f0k1"]
    assert np.isnan(message.value[2]).all()
    np.testing.assert_array_equal(message.value[[5, 8]], 0.0)
    np.testing.assert_array_equal(message.covariance[5, 5], 0.0)


def test_summaries_of_strangers_are_refused():
    hierarchy = Hierarchy("Dyn11", "joint", draws=1)
    with pytest.raises(MeasurementError, match="not an area below"):
        reports_from(hierarchy.networks["mv"], {"cL0f0k1": hierarchy.message["cL0f0k1"]})
