"""Switch status and phase, decided by the fit of candidate models, over many draws."""

import numpy as np
import pytest
from feeders import SIGMA_V, lv100, metered
from grids import ring
from msgspec.structs import replace

from flexmeter.errors import GridError, MeasurementError
from flexmeter.estimation import Estimator, Meter, load_meters
from flexmeter.estimation.hypotheses import compare, phase_candidates, switch_candidates
from flexmeter.grid import Switch
from flexmeter.powerflow import compile_network

OPEN = ("l5", "l6", "l7", "l8")


def ring_meters(network, feeders=True):
    """P, Q, |V| of all loads and of both feeders at the busbar b0."""
    meters = [*load_meters(network), *(Meter("voltage", "bus", "b0", phase) for phase in "abc")]
    ends = (("branch_from", "l0"), ("branch_to", "l12"))
    if feeders:
        meters += [
            Meter(q, at, line, p) for at, line in ends for q in ("active_power", "reactive_power") for p in "abc"
        ]
    return tuple(meters)


@pytest.fixture(scope="module")
def switches():
    return replace(ring(), switches=tuple(Switch("s" + line, line, closed=line != "l7") for line in OPEN))


@pytest.fixture(scope="module")
def vectors():
    return {line: tuple(other != line for other in OPEN) for line in OPEN}


def error_free(estimator):
    """What the meters read at the loads' default powers."""
    missing = np.full((len(estimator.meters), 1), np.nan)
    return estimator.estimate(missing, missing, covariance=False).fitted


def spread(meters, value):
    share = np.array([0.02 if meter.quantity == "reactive_power" else 0.01 for meter in meters])[:, None]
    return np.maximum(share * np.abs(value), 1)


@pytest.mark.parametrize("true", OPEN)
def test_open_switch_is_found_within_three_estimates(switches, vectors, true):
    meters = ring_meters(compile_network(switches))
    candidates = switch_candidates(switches, meters, vectors)
    value = error_free(candidates[true])
    sigma = spread(meters, value)
    rng = np.random.default_rng(50)
    draws = 40
    readings = value + sigma * rng.standard_normal((len(meters), 3 * draws))
    right = 0
    for k in range(draws):
        found = compare(candidates, readings[:, 3 * k : 3 * k + 3], sigma, fixed_share=0.81)
        decided = found.decided(0.99)
        right += decided is not None and decided[0] == true
    assert right == draws


def test_voltages_alone_are_slower_but_probabilities_stay_honest(switches, vectors):
    meters = ring_meters(compile_network(switches), feeders=False)
    candidates = switch_candidates(switches, meters, vectors)
    rng = np.random.default_rng(51)
    draws, claimed = 60, []
    hits = 0
    for k in range(draws):
        true = OPEN[k % 4]
        value = error_free(candidates[true])
        sigma = spread(meters, value)
        found = compare(candidates, value + sigma * rng.standard_normal((len(meters), 3)), sigma)
        claimed.append(found.posterior[:, -1].max())
        hits += found.best == true
    assert hits / draws == pytest.approx(np.mean(claimed), abs=0.15)


def phase_study(seed, fixed, true="b", n=96):
    """One day of 15-minute readings; the customer is said to be on another phase than it is."""
    rng = np.random.default_rng(seed)
    grid = lv100()
    power = np.array([load.power_w[0] for load in grid.loads])[:, None] * rng.uniform(0.1, 1.9, (80, n))
    network = compile_network(grid)
    name, said = network.injections[33]
    meters = load_meters(network)
    candidates = phase_candidates(grid, meters, name)
    day = metered(_with_phase(grid, name, true), power, 0.3 * power)
    noise = np.sqrt(1 - fixed) * rng.standard_normal(day.true.shape)
    lasting = np.sqrt(fixed) * rng.standard_normal((len(day.true), 1))
    return candidates, day.true + day.sigma * (noise + lasting), day.sigma, said


def _with_phase(grid, name, phase):
    end = name[1:]
    return replace(
        grid,
        buses=tuple(replace(bus, phases=phase) if bus.id == end else bus for bus in grid.buses),
        lines=tuple(replace(line, phases=phase) if line.to_bus == end else line for line in grid.lines),
        loads=tuple(replace(load, phases=phase) if load.id == name else load for load in grid.loads),
    )


@pytest.mark.parametrize(("fixed", "least"), [(0.0, 10), (0.81, 10)])
def test_phase_of_a_customer_is_found_within_a_day(fixed, least):
    right, wrong = 0, 0
    for seed in range(10):
        candidates, z, sigma, _ = phase_study(seed, fixed, true="abc"[seed % 3])
        decided = compare(candidates, z, sigma, fixed_share=fixed).decided(0.999)
        right += decided is not None and decided[0] == "abc"[seed % 3]
        wrong += decided is not None and decided[0] != "abc"[seed % 3]
    assert wrong == 0
    assert right >= least


def test_fixed_errors_taken_for_noise_decide_wrongly():
    """A voltmeter that says the same wrong thing 96 times a day is one witness."""
    wrong = {0.0: 0, 0.81: 0}
    for seed in range(100, 115):
        candidates, z, sigma, _ = phase_study(seed, 0.81, true="abc"[seed % 3])
        for assumed in wrong:
            decided = compare(candidates, z, sigma, fixed_share=assumed).decided(0.99)
            wrong[assumed] += decided is not None and decided[0] != "abc"[seed % 3]
    assert wrong[0.81] == 0
    assert wrong[0.0] >= 3


def test_at_one_moment_it_does_not_matter_what_stays():
    candidates, z, sigma, _ = phase_study(3, 0.81, n=1)
    known, taken = (compare(candidates, z, sigma, fixed_share=share) for share in (0.81, 0.0))
    assert np.allclose(known.posterior, taken.posterior, atol=1e-9)


def test_posterior_follows_bayes_rule():
    candidates, z, sigma, _ = phase_study(4, 0.0, n=2)
    flat = compare(candidates, z, sigma)
    leaning = compare(candidates, z, sigma, prior={"a": 8.0, "b": 1.0, "c": 1.0})
    ratio = (leaning.posterior[0] / leaning.posterior[1]) / (flat.posterior[0] / flat.posterior[1])
    assert np.allclose(ratio, 8)
    assert np.allclose(flat.posterior.sum(0), 1)
    expected = np.exp(-0.5 * (flat.objective[0, 0] - flat.objective[1, 0]))
    assert flat.posterior[0, 0] / flat.posterior[1, 0] == pytest.approx(expected)


def test_a_moment_that_does_not_converge_counts_for_nobody(switches, vectors):
    meters = ring_meters(compile_network(switches))
    candidates = switch_candidates(switches, meters, vectors)
    value = np.repeat(error_free(candidates["l7"]), 3, axis=1)
    sigma = spread(meters, value)
    value[[meter.quantity == "active_power" for meter in meters], 1] *= 1e4
    found = compare(candidates, value, sigma)
    assert list(found.used) == [True, False, True]
    assert np.allclose(found.log_likelihood[:, 0], found.log_likelihood[:, 1])
    assert found.best == "l7"


def test_bad_input_is_one_clear_error():
    grid = lv100(n=3)
    network = compile_network(grid)
    meters = load_meters(network)
    estimator = Estimator(network, meters)
    z = np.full((len(meters), 1), SIGMA_V)
    for candidates, options, text in (
        ({"only": estimator}, {}, "at least two"),
        ({"x": estimator, "y": Estimator(network, meters[:-1])}, {}, "different numbers"),
        ({"x": estimator, "y": estimator}, {"prior": {"x": 1.0}}, "prior"),
        ({"x": estimator, "y": estimator}, {"fixed_share": 1.0}, "fixed_share"),
    ):
        with pytest.raises(MeasurementError, match=text):
            compare(candidates, z, z, **options)
    with pytest.raises(GridError, match="single-phase"):
        phase_candidates(ring(), load_meters(compile_network(ring())), "d3")
    with pytest.raises(GridError, match="nobody"):
        phase_candidates(grid, meters, "nobody")
