from __future__ import annotations

import itertools

import numpy as np
import pytest

from flexmeter.reconfiguration import FeederNetwork, best_tree, example, log10_tree_count, prove, search, spanning_trees

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
    assert bounds[-1].method == "relaxation"
    assert lower == sorted(lower)
    assert max(lower) <= found.losses_w * (1 + 1e-9)
    assert bounds[-1].gap_percent <= 3.0


def test_the_relaxation_is_below_every_enumerated_optimum() -> None:
    proven = 0
    for seed in range(40):
        network = random_network(seed)
        network = network.with_power(np.abs(network.p_w), np.abs(network.q_var))
        if not network.tie_count or not network.p_w.any():
            continue
        optimum_w = best_tree(network, network.p_w, network.q_var).losses_w[0]
        tree = best_tree(network, network.p_w, network.q_var).closed[0]
        if not np.isfinite(optimum_w) or optimum_w == 0:
            continue
        *_, last = prove(network, tree, optimum_w, clock=ticks(), seconds=400, enumeration_limit=0.5)
        assert last.lower_w <= optimum_w * (1 + 1e-6)
        proven += last.gap_percent < 0.1
    assert proven >= 15


def test_84_buses_are_proven_within_two_percent_in_a_few_subproblems(tpc84: FeederNetwork) -> None:
    found = search(tpc84)
    *_, last = prove(tpc84, found.closed, found.losses_w, clock=ticks(), seconds=60, gap_percent=2.0)
    assert last.gap_percent <= 2.0
    assert last.lower_w < 469_893.2


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
