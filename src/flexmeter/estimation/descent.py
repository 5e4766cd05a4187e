"""The iteration: steps of Gauss-Newton, each halved while it would raise J, until no voltage moves any more."""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE, STEP, aggregate_objective, move_aggregate
from flexmeter.estimation.blocks import add, apply_constant, clear
from flexmeter.estimation.border import close_ties, factor_border, start_ties
from flexmeter.estimation.flow import FLOW, flow_misfit
from flexmeter.estimation.leaf import DI, DV, LEAF, V, add_pair, between, impedance, leaf_objective, leaf_violation, move_leaf, on, pair
from flexmeter.estimation.message import step_shunt
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.passes import messages_up, steps_down
from flexmeter.estimation.phasor import solve_wide_root, spread_objective
from flexmeter.estimation.places import BUS, BUS_DJ, BUS_DV, BUS_J, BUS_SHUNT, BUS_V
from flexmeter.estimation.root import prior_objective, solve_root
from flexmeter.estimation.start import follow_edge, sum_up
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
    with_lane,
)
from flexmeter.powerflow.sweep import larger

HALVINGS = 12
"""A step is halved at most this often before it is taken as it is."""
NEARER = 0.25
"""The squared miss of exact readings falls at least to this part: the step counts as one towards them."""
MET = 1e-12
"""Below this the squared miss is rounding: a microwatt, microvar or microampere."""
SHUNT_ROUNDS = 2
"""Shunts move the voltages they depend on, by less than a thousandth of their own change each time."""
CAUTION = 10.0
"""Convergence may be this much slower than the last two steps say."""


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
def damped_step(w: FloatArray, at: Places, m: EstimatorModel, step: float) -> tuple[float, float]:
    """Return a step that does not raise J (with the priors of this iteration), per lane, and J there; start with step.

    J may rise for a step that meets exact readings clearly better: a filter (R. Fletcher and S. Leyffer 2002,
    doi:10.1007/s101070100244), since a step back to an exact reading usually costs something elsewhere.
    """
    nominal, zero = m.nominal[0], splat(0.0)
    before = objective(w, at, m, zero) + prior_objective(w, at.bus, at.root, nominal, m.symmetry, zero)
    after = before
    for halving in range(HALVINGS):
        after = objective(w, at, m, step)
        worse = after + prior_objective(w, at.bus, at.root, nominal, m.symmetry, step) - before
        worse = worse - before * 1e-9 - splat(1e-9)
        if largest(where_positive(worse, worse, zero)) > 0.0:
            nearer = violation(w, at, m, zero) * NEARER - violation(w, at, m, step) - splat(MET)
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
    for k in range(len(m.aggregate_bus)):
        move_aggregate(w, at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k], step)
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
            move_leaf(w, here, step)
    follow_currents(w, at, m)
    if len(m.ties.one) > 0:
        start_ties(w, at, m)
    return square_root(moved)


@routine
def follow_currents(w: FloatArray, at: Places, m: EstimatorModel) -> None:
    """Let edges and voltages follow what `move_leaf` changed of the currents beyond the linear step; then the shunts.

    A shunt whose current were not Y V would be put right by the next step, and J may rise for that.
    """
    shunts = 0
    for k in range(len(m.parent)):
        clear(w, at.bus + BUS * k + BUS_DJ, 6)
        shunts += m.has_shunt[k]
    for k in range(len(m.aggregate_bus)):
        add(w, at.bus + BUS * m.aggregate_bus[k] + BUS_DJ, at.aggregate + AGGREGATE * k + STEP, 6)
    spread_currents(w, at, m)
    for _ in range(SHUNT_ROUNDS if shunts > 0 else 0):
        for leaf in range(len(m.leaf_plus)):
            clear(w, at.leaf + LEAF * leaf + DI, 2)
        for k in range(len(m.parent)):
            if m.has_shunt[k]:
                follow_shunt(w, at.bus + BUS * k, m.shunt[k])
            else:
                clear(w, at.bus + BUS * k + BUS_DJ, 6)
        spread_currents(w, at, m)


@inlined
def follow_shunt(w: FloatArray, bus: int, admittance: FloatArray) -> None:
    """Set a shunt's current to Y V; leave the change in DJ."""
    apply_constant(w, bus + BUS_DJ, admittance, bus + BUS_V)
    for q in range(6):
        change = load(w, bus + BUS_DJ + q) - load(w, bus + BUS_SHUNT + q)
        store(w, bus + BUS_SHUNT + q, load(w, bus + BUS_SHUNT + q) + change)
        store(w, bus + BUS_DJ + q, change)


@routine
def spread_currents(w: FloatArray, at: Places, m: EstimatorModel) -> None:
    """Add the changes of currents in DJ (buses) and DI (leaves) to all edges, and move the voltages by their drops."""
    n = len(m.parent)
    for k in range(n - 1, -1, -1):
        bus = at.bus + BUS * k
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            add_pair(w, bus + BUS_DJ + 2 * m.leaf_plus[leaf], pair(w, here + DI), 1.0)
            if m.leaf_minus[leaf] >= 0:
                add_pair(w, bus + BUS_DJ + 2 * m.leaf_minus[leaf], pair(w, here + DI), -1.0)
        if k > 0:
            sum_up(w, at, m, k, BUS_DJ)
        add(w, bus + BUS_J, bus + BUS_DJ, 6)
    clear(w, at.bus + BUS_DV, 6)
    for k in range(n):
        bus = at.bus + BUS * k
        if k > 0:
            follow_edge(w, at, m, k, BUS_DV, BUS_DJ)
            add(w, bus + BUS_V, bus + BUS_DV, 6)
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            dv = between(w, bus + BUS_DV, m.leaf_plus[leaf], m.leaf_minus[leaf])
            drop = on(impedance(m.leaf_z[leaf]), pair(w, here + DI))
            add_pair(w, here + V, (dv[0] - drop[0], dv[1] - drop[1]), 1.0)


@routine
def solve_step(w: FloatArray, at: Places, m: EstimatorModel) -> None:
    """Factorise at the present point and write the Gauss-Newton step."""
    messages_up(w, at, m)
    if m.phasors:
        solve_wide_root(w, at, m.nominal[0], m.symmetry)
    else:
        solve_root(w, at.bus, at.root, m.nominal[0], m.symmetry)
    steps_down(w, at, m)
    if len(m.ties.one) > 0:
        factor_border(w, at, m)
        close_ties(w, at, m)


@routine
def iterate(
    w: FloatArray, at: Places, m: EstimatorModel, tolerance: float, max_iterations: int, start: int, count: int,
    iterations: IntArray, j: FloatArray,
) -> None:  # fmt: skip
    """Gauss-Newton until no voltage is off by more than the tolerance [pu]; iterations stay -1 where it is not reached.

    What the last step left is estimated from the last two: their ratio is the rate of convergence.
    """
    before, active = splat(0.0), splat(1.0)
    for iteration in range(1, max_iterations + 1):
        solve_step(w, at, m)
        step, after = damped_step(w, at, m, active)
        moved = move(w, at, m, step)
        full = where_positive(step - splat(0.75), moved, splat(0.0))
        left = where_positive(full * before, moved * moved * CAUTION / before, moved)
        left = where_positive(moved - left, left, moved)
        before = full
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
