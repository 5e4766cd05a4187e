"""Day-ahead plan: which tree in which period, with the price of switching."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import DidNotConverge, InputError
from flexmeter.reconfiguration.flow import tree_losses
from flexmeter.reconfiguration.goals import Aim, Constraints
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, FloatArray
from flexmeter.reconfiguration.search import Budget, pose, search


@dataclass(frozen=True, eq=False)
class DayPlan:
    """Trees over the periods of a forecast.

    Attributes
    ----------
    closed : (t, m) tree of every period
    losses_kwh : energy lost by the plan
    fixed_kwh, fixed_closed : the same for the best single tree, and that tree
    current_kwh : the same when nothing is switched
    operations : switching operations of the plan, the first change from the present state included
    cost_kwh : losses plus operations at their price; never above that of the fixed or the current tree
    candidates : trees the programme chose from
    """

    closed: BoolArray
    losses_kwh: float
    fixed_kwh: float
    fixed_closed: BoolArray
    current_kwh: float
    operations: int
    cost_kwh: float
    candidates: int


def plan_day(
    network: FeederNetwork,
    p_w: ArrayLike,
    q_var: ArrayLike,
    *,
    hours: float,
    operation_cost_kwh: float,
    constraints: Constraints | None = None,
    budget: Budget | None = None,
) -> DayPlan:
    """Choose a tree for every period by dynamic programming over candidate trees.

    Candidates are the present tree, the best tree of every period and the best single tree for all of them. The
    programme minimises the energy lost plus `operation_cost_kwh` for each switching operation; a tree that breaks a
    limit in a period is not used there, unless every candidate does (then the one with least losses).

    Parameters
    ----------
    p_w, q_var : (t, n) forecast of the bus powers [W, var]
    hours : length of a period
    operation_cost_kwh : price of one operation as energy

    Raises
    ------
    InputError
        The forecast has the wrong shape or the price is negative.
    DidNotConverge
        No candidate can supply a period.
    """
    p, q = np.atleast_2d(np.asarray(p_w, dtype=np.float64)), np.atleast_2d(np.asarray(q_var, dtype=np.float64))
    if p.shape[1] != network.bus_count or q.shape != p.shape:
        raise InputError(f"forecast has shapes {p.shape}, {q.shape}, expected (periods, {network.bus_count})")
    if not (hours > 0 and operation_cost_kwh >= 0):
        raise InputError("plan: hours must be positive and operation_cost_kwh not negative")
    limits = replace(constraints or Constraints(), max_operations=None, operation_cost=0.0)
    trees, fixed = _candidates(network, p, q, limits, budget or Budget(rounds=20))
    energy = tree_losses(network, trees, p, q) * hours / 1e3
    usable = np.where(_within_limits(network, trees, p, q, limits), energy, np.inf)
    nothing = np.isinf(usable).all(axis=0)
    usable[:, nothing] = energy[:, nothing]
    if np.isinf(usable).all(axis=0).any():
        raise DidNotConverge(f"{network.name}: load flow", 0, np.inf, "every candidate tree of some period")
    distance = (trees[:, None, :] != trees[None, :, :]).sum(axis=2)
    path, cost = _cheapest_path(usable, distance * operation_cost_kwh)
    moved = distance[0, path[0]] + distance[path[:-1], path[1:]].sum()
    return DayPlan(
        closed=trees[path],
        losses_kwh=float(energy[path, np.arange(len(p))].sum()),
        fixed_kwh=float(energy[fixed].sum()),
        fixed_closed=trees[fixed],
        current_kwh=float(energy[0].sum()),
        operations=int(moved),
        cost_kwh=cost,
        candidates=len(trees),
    )


def _candidates(
    network: FeederNetwork, p: FloatArray, q: FloatArray, limits: Constraints, budget: Budget
) -> tuple[BoolArray, int]:
    """Return the candidate trees, the present one first, and the position of the best single one."""
    found = [network.closed]
    found += [search(network.with_power(*case), None, limits, budget).closed for case in zip(p, q, strict=True)]
    found.append(search(network, None, limits, budget, p_w=p, q_var=q).closed)
    trees = np.array(list({tree.tobytes(): tree for tree in found}.values()))
    losses = tree_losses(network, trees, p, q).sum(axis=1)
    broken = ~_within_limits(network, trees, p, q, limits).all(axis=1)
    return trees, int(np.lexsort((losses, broken))[0])


def _within_limits(
    network: FeederNetwork, trees: BoolArray, p: FloatArray, q: FloatArray, limits: Constraints
) -> BoolArray:
    """Return whether each tree keeps the limits in each period, (k, t)."""
    kept = np.zeros((len(trees), len(p)), dtype=np.bool_)
    for period in range(len(p)):
        problem = pose(network, Aim(), limits, p_w=p[period], q_var=q[period])
        kept[:, period] = [problem.score(tree).violation <= 1e-9 for tree in trees]
    return kept


def _cheapest_path(energy: FloatArray, price: FloatArray) -> tuple[np.ndarray, float]:
    """Return the candidate of every period and the total cost, starting from candidate 0 before the first."""
    count, periods = energy.shape
    cost = price[0] + energy[:, 0]
    before = np.zeros((periods, count), dtype=np.int64)
    for period in range(1, periods):
        through = cost[:, None] + price
        before[period] = through.argmin(axis=0)
        cost = through.min(axis=0) + energy[:, period]
    path = np.empty(periods, dtype=np.int64)
    path[-1] = int(cost.argmin())
    for period in range(periods - 1, 0, -1):
        path[period - 1] = before[period, path[period]]
    return path, float(cost.min())
