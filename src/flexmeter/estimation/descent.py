"""The iteration: steps of Gauss-Newton, each halved while it would raise J, until no voltage moves any more."""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE, aggregate_objective, move_aggregate
from flexmeter.estimation.border import close_ties, factor_border
from flexmeter.estimation.flow import FLOW, flow_misfit
from flexmeter.estimation.leaf import DI, DV, LEAF, I, V, leaf_objective, leaf_violation
from flexmeter.estimation.message import step_shunt
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.passes import messages_up, steps_down
from flexmeter.estimation.phasor import solve_wide_root, spread_objective
from flexmeter.estimation.places import BUS, BUS_DJ, BUS_DV, BUS_J, BUS_V
from flexmeter.estimation.root import prior_objective, solve_root
from flexmeter.powerflow.lanes import (
    FloatArray,
    IntArray,
    inlined,
    lane,
    largest,
    load,
    routine,
    splat,
    square_root,
    store,
    where_positive,
)
from flexmeter.powerflow.sweep import larger

HALVINGS = 12
"""A step is halved at most this often before it is taken as it is."""
NEARER = 0.25
"""The squared miss of exact readings falls at least to this part: the step counts as one towards them."""


@routine
def objective(w: FloatArray, at: Places, m: EstimatorModel, step: float) -> float:
    """Return J after a step, forecasts of missing readings included."""
    total = splat(0.0)
    for leaf in range(len(m.leaf_plus)):
        total = total + leaf_objective(w, at.leaf + LEAF * leaf, step)
    for k in range(len(m.aggregate_bus)):
        bus = at.bus + BUS * m.aggregate_bus[k]
        total = total + aggregate_objective(w, at.aggregate + AGGREGATE * k, bus, step)
    total = total + flow_misfits(w, at, m, step)[0]
    if m.phasors:
        total = total + spread_objective(w, at, m.symmetry, step)
    return total


@inlined
def flow_misfits(w: FloatArray, at: Places, m: EstimatorModel, step: float) -> tuple[float, float]:
    """Return the part of J of the meters on edges after a step, and by how much exact ones are missed, squared."""
    total, missed = splat(0.0), splat(0.0)
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        v, j, dv, dj = bus + BUS_V, bus + BUS_J, bus + BUS_DV, bus + BUS_DJ
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, kind, phase, minus = at.flow + FLOW * flow, m.flow_kind[flow], m.flow_phase[flow], m.flow_minus[flow]
            part, off = flow_misfit(w, here, kind, phase, minus, v, j, dv, dj, step)
            total, missed = total + part, missed + off
    return total, missed


@routine
def violation(w: FloatArray, at: Places, m: EstimatorModel, step: float) -> float:
    """Return by how much exact readings are missed after a step, squared."""
    total = flow_misfits(w, at, m, step)[1]
    for leaf in range(len(m.leaf_plus)):
        total = total + leaf_violation(w, at.leaf + LEAF * leaf, step)
    return total


@routine
def damped_step(w: FloatArray, at: Places, m: EstimatorModel) -> tuple[float, float]:
    """Return the step in (0, 1] that does not raise J (with the priors of this iteration), per lane, and J there.

    J may rise for a step that meets exact readings clearly better: a filter (R. Fletcher and S. Leyffer 2002,
    doi:10.1007/s101070100244), since a step back to an exact reading usually costs something elsewhere.
    """
    nominal = m.nominal[0]
    zero, step = splat(0.0), splat(1.0)
    before = objective(w, at, m, zero) + prior_objective(w, at.bus, at.root, nominal, m.symmetry, zero)
    after = before
    for halving in range(HALVINGS):
        after = objective(w, at, m, step)
        worse = after + prior_objective(w, at.bus, at.root, nominal, m.symmetry, step) - before
        worse = worse - before * 1e-9 - splat(1e-9)
        if largest(where_positive(worse, worse, zero)) > 0.0:
            nearer = violation(w, at, m, zero) * NEARER - violation(w, at, m, step)
            worse = where_positive(nearer, zero, worse)
        # nan lanes have no say
        if halving == HALVINGS - 1 or not largest(where_positive(worse, worse, zero)) > 0.0:
            break
        step = where_positive(worse, step * 0.5, step)
    return step, after


@routine
def move(w: FloatArray, at: Places, m: EstimatorModel, step: float) -> float:
    """Take the step; return the largest full move of a voltage [pu]: a damped step is not convergence."""
    moved = splat(0.0)
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        if m.has_shunt[k]:
            step_shunt(w, bus, m.shunt[k], step, at.scratch)
        scale = 1.0 / m.nominal[k] ** 2
        for q in range(3):
            re, im = load(w, bus + BUS_DV + 2 * q), load(w, bus + BUS_DV + 2 * q + 1)
            moved = larger(moved, (re * re + im * im) * scale)
        for q in range(6):
            store(w, bus + BUS_V + q, load(w, bus + BUS_V + q) + step * load(w, bus + BUS_DV + q))
            store(w, bus + BUS_J + q, load(w, bus + BUS_J + q) + step * load(w, bus + BUS_DJ + q))
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            re, im = load(w, here + DV), load(w, here + DV + 1)
            moved = larger(moved, (re * re + im * im) * scale)
            for q in range(2):
                store(w, here + V + q, load(w, here + V + q) + step * load(w, here + DV + q))
                store(w, here + I + q, load(w, here + I + q) + step * load(w, here + DI + q))
    for k in range(len(m.aggregate_bus)):
        move_aggregate(w, at.aggregate + AGGREGATE * k, step)
    return square_root(moved)


@routine
def iterate(
    w: FloatArray, at: Places, m: EstimatorModel, tolerance: float, max_iterations: int, start: int, count: int,
    iterations: IntArray, j: FloatArray,
) -> None:  # fmt: skip
    """Gauss-Newton until no voltage moves by more than the tolerance [pu]; iterations stay -1 where it does not."""
    after = splat(0.0)
    for iteration in range(1, max_iterations + 1):
        messages_up(w, at, m)
        if m.phasors:
            solve_wide_root(w, at, m.nominal[0], m.symmetry)
        else:
            solve_root(w, at.bus, at.root, m.nominal[0], m.symmetry)
        steps_down(w, at, m)
        if len(m.ties.one) > 0:
            factor_border(w, at, m)
            close_ties(w, at, m)
        step, after = damped_step(w, at, m)
        moved = move(w, at, m, step)
        finished = True
        for k in range(count):
            if lane(moved, k) < tolerance:
                if iterations[start + k] < 0:
                    iterations[start + k] = iteration
            elif lane(moved, k) == lane(moved, k):
                finished = False
        if finished:
            break
    for k in range(count):
        j[start + k] = lane(after, k)
