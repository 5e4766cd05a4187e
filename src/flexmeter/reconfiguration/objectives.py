"""Several objectives: in an order, and the states between which only taste decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flexmeter.errors import InputError
from flexmeter.reconfiguration.goals import Aim, Constraints, Objective, Terms
from flexmeter.reconfiguration.network import FeederNetwork
from flexmeter.reconfiguration.search import Budget, SearchResult, search

# What a later objective may cost an earlier one, as a share of its optimum.
CONCESSION = 1e-3


def lexicographic(
    network: FeederNetwork,
    order: Sequence[Objective],
    constraints: Constraints | None = None,
    budget: Budget | None = None,
    *,
    concession: Mapping[Objective, float] | None = None,
) -> SearchResult:
    """Optimise objectives in order of rank: each within the ceiling that the ones before it set.

    `concession` is the share of an objective's optimum that later ones may give away, 0.1 % by default.

    Raises
    ------
    InputError
        The order is empty or names an objective twice.
    """
    if not order or len(set(order)) != len(order):
        raise InputError(f"order of objectives {list(order)}: expected each at most once, at least one")
    ceilings: dict[Objective, float] = {}
    result = None
    for objective in order:
        result = search(network, Aim({objective: 1.0}, dict(ceilings)), constraints, budget)
        best = result.terms.value_of(objective)
        ceilings[objective] = best + abs(best) * (concession or {}).get(objective, CONCESSION)
    assert result is not None
    return result


def pareto(
    network: FeederNetwork,
    objectives: tuple[Objective, Objective],
    constraints: Constraints | None = None,
    budget: Budget | None = None,
    *,
    points: int = 9,
) -> tuple[SearchResult, ...]:
    """Return states of which none is better in both objectives, ordered by the first (epsilon constraint).

    Between the optima of both objectives the second is given evenly spaced ceilings and the first minimised.
    """
    first, second = objectives
    ends = [search(network, Aim({objective: 1.0}), constraints, budget) for objective in objectives]
    worst, best = (end.terms.value_of(second) for end in ends)
    found = ends + [
        search(network, Aim({first: 1.0}, {second: float(ceiling)}), constraints, budget)
        for ceiling in np.linspace(worst, best, points + 2)[1:-1]
    ]
    kept = [one for one in found if one.terms.feasible and not _beaten(one.terms, found, objectives)]
    unique = {one.closed.tobytes(): one for one in kept}
    return tuple(sorted(unique.values(), key=lambda one: one.terms.value_of(first)))


def _beaten(terms: Terms, others: Sequence[SearchResult], objectives: tuple[Objective, Objective]) -> bool:
    """Whether some other state is at least as good in both objectives and better in one."""
    mine = np.array([terms.value_of(objective) for objective in objectives])
    for other in others:
        theirs = np.array([other.terms.value_of(objective) for objective in objectives])
        slack = 1e-9 * np.maximum(np.abs(mine), 1e-9)
        if other.terms.feasible and (theirs <= mine + slack).all() and (theirs < mine - slack).any():
            return True
    return False
