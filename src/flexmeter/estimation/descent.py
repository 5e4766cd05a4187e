"""The iteration: steps of Gauss-Newton, each halved while it would raise J, until no voltage moves any more."""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE, aggregate_objective
from flexmeter.estimation.border import close_ties, factor_border
from flexmeter.estimation.flow import FLOW, flow_misfit
from flexmeter.estimation.leaf import DI, LAST, LEAF, SHARE, SOFT, leaf_objective, leaf_violation, pair, put_pair
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.move import keep, move, restore
from flexmeter.estimation.passes import messages_up, steps_down
from flexmeter.estimation.phasor import solve_wide_root, spread_objective, spread_up
from flexmeter.estimation.places import BUS, BUS_J, BUS_V
from flexmeter.estimation.root import prior_objective, solve_root
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import (
    FloatArray,
    IntArray,
    WorkArray,
    lane,
    largest,
    load,
    splat,
    store,
    where_positive,
    with_lane,
)

HALVINGS = 12
"""A step is halved at most this often before it is taken as it is."""
NEARER = 0.25
"""The squared miss of exact readings falls at least to this part: the step counts as one towards them."""
SLOW = 0.5
"""Convergence is slow if a step is more than this part of the last."""
CAUTION = 10.0
"""Convergence may be this much slower than the last two steps say."""


@routine
def objective(w: WorkArray, at: Places, m: EstimatorModel) -> float:
    """Return J, forecasts of missing readings included."""
    total = 0.0
    for leaf in range(len(m.leaf_plus)):
        total = total + leaf_objective(w, at.leaf + LEAF * leaf)
    for k in range(len(m.aggregate_bus)):
        total = total + aggregate_objective(w, at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k])
    total = total + flow_misfits(w, at, m)[0]
    if m.phasors:
        total = total + spread_objective(w, at, m.symmetry)
    return total


@inlined
def flow_misfits(w: WorkArray, at: Places, m: EstimatorModel) -> tuple[float, float]:
    """Return the part of J of the meters on edges, and by how much exact ones are missed, squared."""
    total, missed = 0.0, 0.0
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, kind, phase, minus = at.flow + FLOW * flow, m.flow_kind[flow], m.flow_phase[flow], m.flow_minus[flow]
            part, off = flow_misfit(w, here, kind, phase, minus, bus + BUS_V, bus + BUS_J)
            total, missed = total + part, missed + off
    return total, missed


@routine
def violation(w: WorkArray, at: Places, m: EstimatorModel) -> float:
    """Return by how much exact readings are missed, squared."""
    total = flow_misfits(w, at, m)[1]
    for leaf in range(len(m.leaf_plus)):
        total = total + leaf_violation(w, at.leaf + LEAF * leaf)
    return total


@inlined
def prior_part(w: WorkArray, at: Places, m: EstimatorModel) -> float:
    """Return the part of J of the root's priors."""
    return prior_objective(w, at.bus, at.root, m.nominal[0], m.symmetry)


@routine
def factorise(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Linearise at the present point and eliminate up to the root."""
    messages_up(w, at, m)
    if m.phasors and m.symmetry == 0:
        spread_up(w, at)
    solve_head(w, at, m)
    if len(m.ties.one) > 0:
        factor_border(w, at, m)


@inlined
def solve_head(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Write the root's step."""
    if m.phasors:
        solve_wide_root(w, at, m.nominal[0], m.symmetry)
    else:
        solve_root(w, at.bus, at.root, m.nominal[0], m.symmetry)


@routine
def find_step(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Write the Gauss-Newton step of everything, from the factor."""
    solve_head(w, at, m)
    steps_down(w, at, m)
    if len(m.ties.one) > 0:
        close_ties(w, at, m)


@routine
def damped_step(w: WorkArray, at: Places, m: EstimatorModel, step: float, before: float) -> tuple[float, float, float]:
    """Take a step that does not raise J from `before`; return it (per lane, at most `step`), the full move [pu], and J.

    J (with the priors of this iteration) may rise for a step that meets exact readings clearly better: a filter
    (R. Fletcher and S. Leyffer 2002, doi:10.1007/s101070100244), since a step back to an exact reading usually costs
    something elsewhere.
    """
    zero = splat(w, 0.0)
    most = before + prior_part(w, at, m)
    most = most + most * 1e-9 + 1e-9
    missed = violation(w, at, m)
    keep(w, at, m)
    moved, after = zero, zero
    for halving in range(HALVINGS):
        moved = move(w, at, m, step)
        after = objective(w, at, m)
        worse = after + prior_part(w, at, m) - most
        if largest(where_positive(worse, worse, zero)) > 0.0:
            worse = where_positive(missed * NEARER - violation(w, at, m), zero, worse)
        # nan lanes have no say
        if halving == HALVINGS - 1 or not largest(where_positive(worse, worse, zero)) > 0.0:
            break
        step = where_positive(worse, step * 0.5, step)
        restore(w, at, m)
        find_step(w, at, m)
    return step, moved, after


@inlined
def turn(w: WorkArray, at: Places, m: EstimatorModel) -> float:
    """Return > 0 if the steps of loads with a forecast go on as the last ones, < 0 if they go back; keep the steps."""
    along = 0.0
    for leaf in range(len(m.leaf_plus)):
        here = at.leaf + LEAF * leaf
        step, last = pair(w, here + DI), pair(w, here + LAST)
        soft = load(w, here + SOFT) + load(w, here + SOFT + 1)
        along = along + where_positive(soft, step[0] * last[0] + step[1] * last[1], 0.0)
        put_pair(w, here + LAST, step)
    return along


@inlined
def next_damping(damping: float, halved: float, slow: float, along: float) -> float:
    """Return more damping after a step that was halved (> 0) or went back, less after one that went on (along > 0).

    One that went back and was much shorter than the last (slow = 0) changes nothing.

    Where meters are sharp and forecasts wide, J curves more than its linearised meters say: steps overshoot along what
    only the forecasts hold, to and fro or until they are halved. Halving would slow everything; a damping of the
    forecasts (K. Levenberg 1944, doi:10.1090/qam/10666) leaves the metered directions their full step.
    """
    more, less = damping * 2.0 + 1.0, damping * 0.5
    after = where_positive(along, less, where_positive(slow, more, damping))
    after = where_positive(halved, more, after)
    return where_positive(after - 0.05, after, 0.0)


@routine
def hold(w: WorkArray, at: Places, m: EstimatorModel, damping: float) -> None:
    """Let forecast powers take 1 / (1 + damping) of their steps."""
    for leaf in range(len(m.leaf_plus)):
        here = at.leaf + LEAF * leaf
        for part in range(2):
            store(w, here + SHARE + part, 1.0 / (1.0 + damping * load(w, here + SOFT + part)))


@routine
def iterate(
    w: WorkArray, at: Places, m: EstimatorModel, tolerance: float, max_iterations: int, start: int, count: int,
    iterations: IntArray, j: FloatArray,
) -> None:  # fmt: skip
    """Gauss-Newton until no voltage is off by more than the tolerance [pu]; iterations stay -1 where it is not reached.

    What the last step left is estimated from the last two: their ratio is the rate of convergence.
    """
    last, active, after = splat(w, 0.0), splat(w, 1.0), objective(w, at, m)
    damping = splat(w, 0.0)
    for iteration in range(1, max_iterations + 1):
        factorise(w, at, m)
        find_step(w, at, m)
        along = turn(w, at, m) if len(m.flow_kind) > 0 else after  # J > 0: without them only halved steps damp
        step, moved, after = damped_step(w, at, m, active, after)
        full = where_positive(step - 0.75, moved, 0.0)
        left = where_positive(full * last, moved * moved * CAUTION / last, moved)
        left = where_positive(moved - left, left, moved) * (1.0 + damping)
        before, slow = damping, where_positive(last, moved - last * SLOW, 0.0)
        damping = next_damping(damping, active * 0.99 - step, slow, along)
        if largest(before + damping) > 0.0:
            hold(w, at, m, damping)
        last = full
        finished = True
        for k in range(count):
            if lane(active, k) > 0.0:
                j[start + k] = lane(after, k)
                if lane(left, k) < tolerance:
                    iterations[start + k] = iteration
                    active = with_lane(active, k, 0.0)  # stays as it is, whatever its neighbours still need
                elif lane(left, k) == lane(left, k):
                    finished = False
        if finished:
            break
    if largest(damping) > 0.0:
        hold(w, at, m, splat(w, 0.0))
