"""Errors over sigma, coverage and J over 2,000 seeded draws at every level, and with meters missing."""

import numpy as np
import pytest
from grids import three_levels
from scipy import stats

from flexmeter.estimation import Estimator, load_meters, reports_from, summarise
from flexmeter.estimation.estimate import terminal_voltage
from flexmeter.grid import validate
from flexmeter.powerflow import compile_network, powerflow

DRAWS = 2000
LEVELS = ("concentrator", "lv", "mv")


class Levels:
    """A hierarchy whose true state is one load flow, and noisy readings of all customers in many draws.

    The source's and busbars' true angles are handed to every area: what an assumed angle costs is another test.
    """

    def __init__(self, missing=0.0, silent="", seed=5):
        self.grid = three_levels(vector_group="YNyn0", unbalance=0.0)
        validate(self.grid)
        self.whole = compile_network(self.grid)
        self.flow = powerflow(self.whole, tolerance_va=1e-7)
        v = terminal_voltage(self.whole, self.flow.voltage_v)[:, 0]
        s = v * self.flow.injection_a[:, 0].conj()
        self.power_va = s
        truth = np.concatenate([np.abs(v), s.real, s.imag])
        share = np.concatenate([0.01 * self.whole.load_v, 0.01 * np.abs(s.real), 0.02 * np.abs(s.imag)])
        self.sigma = np.maximum(share, np.repeat([0.0, 1.0, 1.0], len(v)))
        rng = np.random.default_rng(seed)
        self.value = truth[:, None] + self.sigma[:, None] * rng.standard_normal((len(truth), DRAWS))
        lost = rng.random((len(v), DRAWS)) < missing
        lost |= np.array([silent != "" and name.startswith(f"d{silent}") for name, _ in self.whole.injections])[:, None]
        self.value[np.tile(lost, (3, 1))] = np.nan
        self.networks = {area.id: compile_network(self.grid, area=area.id) for area in self.grid.areas}
        self.estimates, message = {}, {}
        for level in LEVELS:
            for area in (item for item in self.grid.areas if item.level == level):
                below = {item.id: message[item.id] for item in self.grid.areas if item.parent == area.id}
                self.estimates[area.id] = self._estimate(area, below)
                message[area.id] = summarise(self.estimates[area.id])

    def _estimate(self, area, below):
        network = self.networks[area.id]
        rows = np.array([self.whole.injection_row[name] for name in network.injections if ":" not in name[0]], int)
        rows = np.concatenate([rows + k * len(self.whole.injections) for k in range(3)])
        reports = reports_from(network, below) if below else None
        angle = np.angle([self.flow.voltage_v[self.whole.node_row[area.head_bus, p], 0] for p in "abc"])
        estimator = Estimator(network, load_meters(network))
        return estimator.estimate(self.value[rows], self.sigma[rows], reports=reports, source_angle_rad=angle)

    def scores(self, level):
        """Errors over sigma of |V| of all observable nodes, and of P and Q of all loads, one row each."""
        rows = []
        for area in (item for item in self.grid.areas if item.level == level):
            network, estimate = self.networks[area.id], self.estimates[area.id]
            assert estimate.converged.all()
            true = np.abs(self.flow.voltage_v[[self.whole.node_row[node] for node in network.nodes]])
            off = (np.abs(estimate.voltage_v) - true) / estimate.sigma_voltage_v
            observable = np.where(estimate.observable, off, np.nan)
            rows += [row for row in observable if not np.isnan(row).all()]
            loads = [k for k, name in enumerate(network.injections) if ":" not in name[0]]
            for part, sigma in (("real", estimate.sigma_active_power_w), ("imag", estimate.sigma_reactive_power_var)):
                power = [getattr(self.power_va[self.whole.injection_row[network.injections[k]]], part) for k in loads]
                off = getattr(estimate.power_va[loads], part) - np.array(power).reshape(-1, 1)
                rows += list(off / sigma[loads])
        return np.array(rows)

    def chi_squares(self, level):
        for area in (item for item in self.grid.areas if item.level == level):
            yield self.estimates[area.id]


@pytest.fixture(scope="module")
def levels():
    return Levels()


@pytest.mark.parametrize("level", LEVELS)
def test_errors_are_as_large_as_their_sigmas_say(levels, level):
    """Mean within 0.05 of 0 and spread within 0.05 of 1 over all quantities of a level; each within its own bounds."""
    score = levels.scores(level)
    assert abs(score.mean()) < 0.05
    assert abs(score.std() - 1) < 0.05
    assert np.all(np.abs(score.mean(axis=1)) < 5 / np.sqrt(DRAWS))
    assert np.all(np.abs(score.std(axis=1) - 1) < 5 / np.sqrt(2 * DRAWS))


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_of_95_percent_cover_as_often(levels, level):
    inside = (np.abs(levels.scores(level)) < stats.norm.ppf(0.975)).sum(axis=1)
    low, high = stats.binom.interval(1 - 1e-5, DRAWS, 0.95)
    assert np.all((inside >= low) & (inside <= high))


@pytest.mark.parametrize("level", LEVELS)
def test_objective_is_chi_square(levels, level):
    for estimate in levels.chi_squares(level):
        freedom = np.unique(estimate.degrees_of_freedom)
        assert len(freedom) == 1
        if freedom[0] > 0:
            pvalue = stats.kstest(estimate.objective, "chi2", args=(freedom[0],)).pvalue
            assert pvalue > 0.01 / 15  # fifteen areas are tested


@pytest.mark.parametrize("missing", [0.01, 0.1, 0.5])
def test_coverage_holds_with_meters_missing(missing):
    """Forecasts of 25 A for loads of half a kilowatt are wide: with them the intervals may cover more, never less."""
    study = Levels(missing=missing, seed=7)
    for level in LEVELS:
        score = study.scores(level)
        known = ~np.isnan(score)
        inside = (np.abs(score) < stats.norm.ppf(0.975)).sum(axis=1) / known.sum(axis=1)
        assert inside.min() > 0.95 - 4.5 * np.sqrt(0.95 * 0.05 / known.sum(axis=1).min())
        assert abs(score[known].mean()) < 0.1


def test_coverage_holds_with_a_whole_feeder_silent():
    study = Levels(silent="L0f0")
    for level in ("lv", "mv"):
        score = study.scores(level)
        inside = (np.abs(score) < stats.norm.ppf(0.975)).sum(axis=1) / (~np.isnan(score)).sum(axis=1)
        assert inside.min() > 0.93
    silent = study.estimates["cL0f0k0"]
    assert set(silent.unobservable_nodes()) == set(study.networks["cL0f0k0"].nodes)
    assert np.isnan(silent.head[:3]).all()
