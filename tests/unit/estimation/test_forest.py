"""Many grids in one call give exactly what a call per grid gives; an earlier estimate is only another start."""

from dataclasses import fields

import numpy as np
import pytest
from feeders import lv100, metered
from grids import feeder, ring, three_levels
from msgspec.structs import replace

import flexmeter.estimation.estimator as estimator_module
from flexmeter.errors import MeasurementError
from flexmeter.estimation import Estimator, Forest, Meter, branch_meters, load_meters
from flexmeter.grid import Source
from flexmeter.powerflow import compile_network
from flexmeter.powerflow.lanes import LANE

BALANCED = (Source("grid", "mv", 15.3e3, symmetry="balanced"),)


@pytest.fixture(scope="module")
def feeders():
    """Three kinds of grid of different size: 1, 5 and 2 of them, mixed up."""
    kinds = [metered(lv100(n, 4, seed)) for n, seed in ((3, 1), (5, 2), (4, 3))]
    return kinds, [1, 0, 1, 2, 1, 1, 2, 1]


def read(feeder, rng, n):
    return feeder.read(rng, n), np.repeat(feeder.sigma, n, axis=1)


def readings(feeders, n, missing=0.2):
    kinds, order = feeders
    rng = np.random.default_rng(5)
    drawn = [read(kinds[kind], rng, n) for kind in order]
    value = np.concatenate([z for z, _ in drawn])
    value[rng.random(value.shape) < missing] = np.nan
    return value, np.concatenate([s for _, s in drawn])


def assert_equal(one, other, name="", nearly=0.0):
    if nearly:  # one scenario and several are rounded differently
        scale = np.nanmax(np.abs(other), initial=0.0)
        np.testing.assert_allclose(one, other, rtol=nearly, atol=1e-9 * scale + 1e-12, err_msg=name)
    else:
        np.testing.assert_array_equal(one, other, name)


def assert_same(one, other, nearly=0.0):
    for field in fields(other):
        if isinstance(getattr(other, field.name), np.ndarray):
            assert_equal(getattr(one, field.name), getattr(other, field.name), field.name, nearly)


@pytest.mark.parametrize(("n", "threads"), [(1, 1), (3, 1), (3, 2)])
def test_a_forest_gives_what_each_grid_alone_gives(feeders, n, threads):
    kinds, order = feeders
    value, sigma = readings(feeders, n)
    forest = Forest([kinds[kind].estimator for kind in order])
    result = forest.estimate(value, sigma, threads=threads)
    for number, kind in enumerate(order):
        rows = slice(forest.first_meter[number], forest.first_meter[number + 1])
        nodes = slice(forest.first_node[number], forest.first_node[number + 1])
        alone = kinds[kind].estimator.estimate(value[rows], sigma[rows])
        nearly = 1e-8 if n == 1 else 0.0
        assert_same(result.grid(number), alone, nearly)
        assert_equal(result.voltage_v[nodes], alone.voltage_v, nearly=nearly)
        assert_equal(result.sigma_voltage_v[nodes], alone.sigma_voltage_v, nearly=nearly)
        assert_equal(result.head[number], alone.head, nearly=nearly)
        assert_equal(result.head_covariance[number], alone.head_covariance, nearly=nearly)
        assert_equal(result.objective[number], alone.objective, nearly=nearly)
        assert_equal(result.degrees_of_freedom[number], alone.degrees_of_freedom)
    assert result.converged.all()


def oddities():
    """Networks and meters with everything an estimator can have: no two alike, some with long lists of positions."""
    transformer, ring_closed, balanced = feeder(), ring(closed=True), replace(feeder(), sources=BALANCED)
    levels, loads = three_levels(), load_meters
    yield compile_network(transformer), lambda n: (*loads(n), *branch_meters(n))
    yield compile_network(ring_closed), loads
    yield compile_network(balanced), loads
    yield compile_network(levels, area="mv"), loads
    yield compile_network(levels, area="lv0"), lambda n: ()
    yield compile_network(lv100(3, 2, 7)), lambda n: (*loads(n), *loads(n)[:4])
    yield compile_network(lv100(2, 3, 8)), lambda n: (*loads(n), Meter("voltage_angle", "bus", n.head_bus, "a"))
    yield compile_network(transformer), lambda n: (Meter("voltage", "bus", "f3", "ab"), *loads(n, ("active_power",)))


class Makers:
    """A sequence that makes the estimator of a grid whenever it is asked for it."""

    def __init__(self, made):
        self.made = made

    def __len__(self):
        return len(self.made)

    def __getitem__(self, number):
        network, meters = self.made[number]
        return Estimator(network, meters(network))


@pytest.mark.parametrize(("n", "threads", "covariance"), [(1, 1, True), (1, 2, True), (5, 1, True), (2, 2, False)])
def test_different_grids_of_every_kind_are_each_what_they_are_alone(n, threads, covariance):
    makers, rng = Makers(list(oddities())), np.random.default_rng(2)
    forest = Forest(makers)
    assert len(forest.members) == len(makers)
    drawn = [readings_of(makers[k], n, rng) for k in range(len(makers))]
    value, sigma = (np.concatenate([pair[part] for pair in drawn]) for part in (0, 1))
    result = forest.estimate(value, sigma, threads=threads, covariance=covariance)
    for number, pair in enumerate(drawn):
        alone = makers[number].estimate(*pair, covariance=covariance)
        assert_same(result.grid(number), alone)
        nodes = slice(forest.first_node[number], forest.first_node[number + 1])
        np.testing.assert_array_equal(result.voltage_v[nodes], alone.voltage_v)
        np.testing.assert_array_equal(result.head[number], alone.head)
        np.testing.assert_array_equal(result.head_covariance[number], alone.head_covariance)


@pytest.mark.parametrize("number", range(len(list(oddities()))))
def test_a_scenario_alone_is_what_it_is_among_others(number):
    """One scenario and several go through different kernels."""
    estimator = Makers(list(oddities()))[number]
    value, sigma = readings_of(estimator, 5, np.random.default_rng(4))
    wanted = estimator.meters[:4]
    many = estimator.estimate(value, sigma, joint=wanted, losses=True, tolerance_pu=1e-12)
    for k in range(value.shape[1]):
        one = estimator.estimate(value[:, k], sigma[:, k], joint=wanted, losses=True, tolerance_pu=1e-12)
        for field in fields(one):
            got, among = getattr(one, field.name), getattr(many, field.name)
            if isinstance(got, np.ndarray) and field.name != "iterations":
                assert_equal(got[..., 0], among[..., k], field.name, 1e-6)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("number", range(len(list(oddities()))))
def test_what_lay_in_the_work_array_does_not_matter(number, n, monkeypatch):
    estimator = Makers(list(oddities()))[number]
    readings, wanted = readings_of(estimator, n, np.random.default_rng(4)), estimator.meters[:4]
    seen = estimator.estimate(*readings, joint=wanted, losses=True)

    def full_of_nan(items, lanes):
        array = np.full(items * lanes, np.nan)
        return array if lanes == 1 else array.view(LANE)

    monkeypatch.setattr(estimator_module, "work_array", full_of_nan)
    assert_same(estimator.estimate(*readings, joint=wanted, losses=True), seen)


def readings_of(estimator, n, rng):
    """Plausible readings of any meters: of a load flow of the loads, some of them missing."""
    network = estimator.network
    plain = Estimator(network, estimator.meters).estimate(
        np.full((len(estimator.meters), n), np.nan), np.ones((len(estimator.meters), n))
    )
    sigma = np.maximum(0.01 * np.abs(plain.fitted), 0.5)
    value = plain.fitted + sigma * rng.standard_normal(sigma.shape)
    value[rng.random(value.shape) < 0.1] = np.nan
    return value, sigma


def test_a_forest_of_nothing_has_nothing():
    result = Forest([]).estimate(np.empty((0, 2)), np.empty((0, 2)))
    assert result.head.shape == (0, 9, 2)
    assert result.voltage_v.shape == (0, 2)


def test_a_forest_says_what_is_wrong(feeders):
    kinds, order = feeders
    forest = Forest([kinds[kind].estimator for kind in order])
    value, sigma = readings(feeders, 1)
    with pytest.raises(MeasurementError, match="expected both"):
        forest.estimate(value[1:], sigma)
    value[forest.first_meter[3]] = np.inf
    with pytest.raises(MeasurementError, match=r"grid 3 of the forest.*infinite"):
        forest.estimate(value, sigma)


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_an_earlier_estimate_leads_to_the_same_optimum(missing):
    feeder = metered(lv100(6, 4, 1))
    rng = np.random.default_rng(3)
    value, sigma = read(feeder, rng, 9)
    value[rng.random(value.shape) < missing] = np.nan
    cold = feeder.estimator.estimate(value, sigma, covariance=False, tolerance_pu=1e-11)
    earlier = feeder.estimator.estimate(value[:, ::-1], sigma[:, ::-1], covariance=False)
    for start in (earlier, feeder.estimator.estimate(value[:, :1], sigma[:, :1], covariance=False)):
        warm = feeder.estimator.estimate(value, sigma, covariance=False, tolerance_pu=1e-11, start=start)
        assert warm.converged.all()
        np.testing.assert_allclose(warm.voltage_v, cold.voltage_v, rtol=1e-11)
        np.testing.assert_allclose(warm.objective, cold.objective, rtol=1e-9)
    own = feeder.estimator.estimate(value, sigma, covariance=False, start=cold)
    assert (own.iterations == 1).all()


def test_a_start_of_another_estimator_is_refused():
    one, other = metered(lv100(3, 2, 1)), metered(lv100(3, 2, 2))
    rng = np.random.default_rng(3)
    estimate = one.estimator.estimate(*read(one, rng, 2))
    with pytest.raises(MeasurementError, match="start"):
        other.estimator.estimate(*read(other, rng, 2), start=estimate)
    with pytest.raises(MeasurementError, match="start"):
        one.estimator.estimate(*read(one, rng, 3), start=estimate)


def test_a_start_that_failed_is_not_used():
    feeder = metered(lv100(3, 2, 1))
    rng = np.random.default_rng(3)
    value, sigma = read(feeder, rng, 2)
    failed = feeder.estimator.estimate(value, sigma, max_iterations=1, tolerance_pu=1e-14)
    assert not failed.converged.any()
    warm, cold = (feeder.estimator.estimate(value, sigma, start=start) for start in (failed, None))
    np.testing.assert_array_equal(warm.voltage_v, cold.voltage_v)
