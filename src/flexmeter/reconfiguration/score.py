"""What a radial state is worth: objectives, broken limits and distance from the current state, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.network import BoolArray, Feeder, FloatArray, IntArray
from flexmeter.reconfiguration.sweep import Flow, Tree, flat, losses, plant, sweep

LOSSES, DEVIATION, INFEED, BALANCE = range(4)
SAME = 1e-6
SAME_VIOLATION = 1e-9


class Cases(NamedTuple):
    """Load cases: (t, n) bus powers [pu] and their shares (t,), which add up to 1."""

    p: FloatArray
    q: FloatArray
    share: FloatArray


class Goal(NamedTuple):
    """What to minimise and what to keep, as the kernels read it.

    `weight` and `ceiling` (4,) belong to losses [pu], largest voltage deviation [pu], negative least infeed [pu] and
    load balance. `infeed` (m,) marks the `infeeds` HV/MV transformers, none marked = the substations themselves.
    `balance` (m,) is the weight of a branch in the load balance. `base` (m,) is the current state, `most` the number
    of operations allowed from there and `cost` the price of one in units of the weighted value. `forbidden` (f, m)
    are states.
    """

    weight: FloatArray
    ceiling: FloatArray
    v_min: float
    v_max: float
    infeed: BoolArray
    infeeds: int
    balance: FloatArray
    base: BoolArray
    most: int
    cost: float
    forbidden: BoolArray


class Score(NamedTuple):
    """Value of a state: `violation` counts before `value`; `terms` (4,) are the four objectives."""

    violation: float
    value: float
    terms: FloatArray


@kernel
def worst() -> Score:
    """Return the score of a state without a solution."""
    return Score(np.inf, np.inf, np.full(4, np.inf))


@kernel
def better(one: Score, other: Score) -> bool:
    """Whether `one` beats `other`: fewer violations, or equal ones and a value lower by more than rounding.

    The relative step of 1e-6 keeps a descent from circling between equal states.
    """
    if one.violation < other.violation - SAME_VIOLATION:
        return True
    if one.violation > other.violation + SAME_VIOLATION:
        return False
    return one.value < other.value - SAME * abs(other.value) - 1e-12


@kernel
def case_flow(flows: FloatArray, case: int) -> Flow:
    """Return one load case of the (t, 4, n) work array."""
    return Flow(flows[case, 0], flows[case, 1], flows[case, 2], flows[case, 3])


@kernel
def evaluate(feeder: Feeder, cases: Cases, goal: Goal, closed: BoolArray, tree: Tree, flows: FloatArray) -> Score:
    """Solve a state under every load case, from the voltages in `flows`, and score it."""
    n = feeder.slack.size
    if plant(feeder, closed, tree) != n:
        return worst()
    terms = np.zeros(4)
    terms[INFEED] = -np.inf
    violation = 0.0
    for case in range(cases.share.size):
        flow = case_flow(flows, case)
        if sweep(tree, n, cases.p[case], cases.q[case], flow) < 0:
            flat(feeder, flow)
            if sweep(tree, n, cases.p[case], cases.q[case], flow) < 0:
                return worst()
        terms[LOSSES] += cases.share[case] * losses(tree, n, flow)
        violation += _bus_terms(feeder, goal, flow, terms)
        violation += _branch_terms(feeder, goal, tree, flow, terms, cases.share[case])
        _infeed(feeder, goal, tree, cases.p[case], terms)
    for k in range(4):
        if terms[k] > goal.ceiling[k]:
            violation += (terms[k] - goal.ceiling[k]) / max(abs(goal.ceiling[k]), 1e-9)
    moved, broken = _distance(goal, closed)
    value = goal.cost * moved
    for k in range(4):
        if goal.weight[k] != 0.0:
            value += goal.weight[k] * terms[k]
    return Score(violation + broken, value, terms)


@kernel
def _bus_terms(feeder: Feeder, goal: Goal, flow: Flow, terms: FloatArray) -> float:
    """Update the deviation (equation 2); return the sum of voltages outside the band."""
    outside = 0.0
    for i in range(feeder.slack.size):
        v = np.sqrt(flow.v_re[i] ** 2 + flow.v_im[i] ** 2)
        outside += max(goal.v_min - v, 0.0) + max(v - goal.v_max, 0.0)
        terms[DEVIATION] = max(terms[DEVIATION], abs(v - 1.0))
    return outside


@kernel
def _branch_terms(feeder: Feeder, goal: Goal, tree: Tree, flow: Flow, terms: FloatArray, share: float) -> float:
    """Update the load balance; return the sum of relative overloads."""
    overload = 0.0
    for k in range(feeder.slack.size):
        i = tree.order[k]
        if tree.parent[i] < 0:
            continue
        branch = tree.branch[i]
        current = np.sqrt(flow.j_re[i] ** 2 + flow.j_im[i] ** 2)
        if feeder.to_bus[branch] != i:
            current *= feeder.ratio[branch]
        overload += max(current / feeder.rated[branch] - 1.0, 0.0)
        terms[BALANCE] += share * goal.balance[branch] * current * current
    return overload


@kernel
def _infeed(feeder: Feeder, goal: Goal, tree: Tree, p: FloatArray, terms: FloatArray) -> None:
    """Update the least infeed (equation 3): the net load behind each substation or HV/MV transformer.

    Without its losses: with them, the maximin of the paper is reached by wasting energy.
    """
    below = p.copy()
    marked = 0
    for k in range(feeder.slack.size - 1, -1, -1):
        i = tree.order[k]
        if tree.parent[i] >= 0:
            below[tree.parent[i]] += below[i]
            if goal.infeed[tree.branch[i]]:
                marked += 1
                terms[INFEED] = max(terms[INFEED], -below[i])
        elif goal.infeeds == 0:
            terms[INFEED] = max(terms[INFEED], -below[i])
    if marked < goal.infeeds:
        terms[INFEED] = max(terms[INFEED], 0.0)


@kernel
def _distance(goal: Goal, closed: BoolArray) -> tuple[int, float]:
    """Operations from the base state, and the violation of their limit and of the forbidden states."""
    moved = 0
    for branch in range(closed.size):
        if closed[branch] != goal.base[branch]:
            moved += 1
    broken = 1.0 * max(moved - goal.most, 0)
    for f in range(goal.forbidden.shape[0]):
        same = True
        for branch in range(closed.size):
            same = same and goal.forbidden[f, branch] == closed[branch]
        broken += 1.0 if same else 0.0
    return moved, broken


@kernel
def loop_of(tree: Tree, start: int, end: int, path: IntArray) -> tuple[int, int]:
    """Collect the tree path between two buses.

    Fills `path` with the buses whose feeding branches lie on it: first those on the side of `start`, then those on
    the side of `end`. Two substations count as joined above. Returns both numbers.
    """
    left = 0
    right = path.size
    a, b = start, end
    while a != b:
        if tree.place[a] > tree.place[b]:
            if tree.parent[a] < 0:
                break
            path[left] = a
            left += 1
            a = tree.parent[a]
        else:
            if tree.parent[b] < 0:
                break
            right -= 1
            path[right] = b
            b = tree.parent[b]
    count = path.size - right
    for k in range(count):
        path[left + k] = path[right + k]
    return left, count
