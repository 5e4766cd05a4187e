from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexmeter.errors import NotRadial
from flexmeter.reconfiguration import (
    Constraints,
    FeederNetwork,
    best_tree,
    example,
    log10_tree_count,
    prove,
    search,
    spanning_trees,
    tree_losses,
)

from .networks import random_network


def ticks():
    """A clock that advances one second per reading: the proof ends after so many subproblems."""
    return itertools.count().__next__


def test_the_33_bus_optimum_is_proven_by_enumeration(baran33: FeederNetwork) -> None:
    assert log10_tree_count(baran33) == pytest.approx(np.log10(50751))  # published count of its spanning trees
    found = search(baran33)
    (bound,) = prove(baran33, found.closed, found.losses_w, clock=ticks())
    assert bound.method == "enumeration"
    assert bound.gap_percent < 1e-6


def test_branch_and_bound_raises_the_bound_and_never_passes_the_optimum(baran33: FeederNetwork) -> None:
    found = search(baran33)
    bounds = list(
        prove(baran33, found.closed, found.losses_w, clock=ticks(), seconds=1000, gap_percent=3, enumeration_limit=10)
    )
    lower = [bound.lower_w for bound in bounds]
    assert bounds[-1].method == "splitting"
    assert lower == sorted(lower)
    assert max(lower) <= found.losses_w * (1 + 1e-9)
    assert bounds[-1].gap_percent <= 3.0


def loaded(seed: int) -> FeederNetwork | None:
    """A random network with loads only and at least one choice, none where a seed gives no such one."""
    network = random_network(seed)
    network = network.with_power(np.abs(network.p_w), np.abs(network.q_var))
    return network if network.tie_count and network.p_w.any() else None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_splitting_proves_the_enumerated_optimum_of_random_networks(seed: int) -> None:
    """Parallel lines, lines without impedance, several substations, lines that cannot be opened."""
    network = loaded(seed)
    if network is None:
        return
    best = best_tree(network, network.p_w, network.q_var)
    optimum_w = best.losses_w[0]
    if not np.isfinite(optimum_w) or optimum_w == 0:
        return
    *_, last = prove(network, best.closed[0], optimum_w, clock=ticks(), seconds=1e6, enumeration_limit=0.5)
    assert last.method == "splitting"
    assert last.lower_w <= optimum_w * (1 + 1e-9)
    assert last.gap_percent <= 0.011


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_bound_of_a_tree_is_below_its_losses(seed: int) -> None:
    """A limit between two trees' losses: the better ones are met, whatever state the proof starts from."""
    network = loaded(seed)
    if network is None or log10_tree_count(network) > 1.7:
        return
    trees = spanning_trees(network)
    losses = tree_losses(network, trees, network.p_w, network.q_var)[:, 0]
    worst = np.flatnonzero(np.isfinite(losses))
    if not worst.size or losses.min() == 0:
        return
    start = worst[losses[worst].argmax()]
    *_, last = prove(network, trees[start], losses[start], clock=ticks(), seconds=1e6, enumeration_limit=0.5)
    assert last.lower_w == pytest.approx(losses.min(), rel=1.1e-4)
    assert last.lower_w <= losses.min() * (1 + 1e-9)


@pytest.mark.parametrize(("case", "gap"), [("das70", 0.01), ("tpc84", 0.05), ("zhang118", 1.0)])
def test_published_networks_are_proven(case: str, gap: float, request: pytest.FixtureRequest) -> None:
    network: FeederNetwork = request.getfixturevalue(case)
    found = search(network, None, Constraints(ratings=False))
    *_, last = prove(network, found.closed, found.losses_w, clock=ticks(), seconds=1e6, gap_percent=gap)
    assert last.gap_percent <= gap * 1.001
    assert last.lower_w <= found.losses_w


def test_a_proof_ends_in_time(zhang118: FeederNetwork) -> None:
    found = search(zhang118)
    *_, last = prove(zhang118, found.closed, found.losses_w, clock=ticks(), seconds=30)
    assert 0.1 < last.gap_percent < 5


def test_a_proof_starts_from_a_radial_state(tpc84: FeederNetwork) -> None:
    with pytest.raises(NotRadial):
        list(prove(tpc84, np.ones(tpc84.branch_count, dtype=bool), 1.0, clock=ticks()))


def test_with_export_the_proof_says_that_no_bound_is_known() -> None:
    network = example("kraftringen533_low")
    (bound,) = prove(network, network.closed, 1e6, clock=ticks())
    assert bound.method == "none"
    assert np.isnan(bound.lower_w)
    assert "fed in" in bound.note


def test_with_export_small_networks_are_enumerated() -> None:
    network = next(n for n in map(random_network, range(99)) if (n.p_w < 0).any() and n.tie_count)
    found = search(network)
    (bound,) = prove(network, found.closed, found.losses_w, clock=ticks())
    assert bound.method == "enumeration"


def test_every_spanning_tree_is_listed_once(das70: FeederNetwork) -> None:
    for seed in range(30):
        network = random_network(seed)
        trees = spanning_trees(network)
        assert len({tree.tobytes() for tree in trees}) == len(trees) == round(10 ** log10_tree_count(network))
    with pytest.raises(Exception, match="enumeration stops"):
        spanning_trees(das70)
