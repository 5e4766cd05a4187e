"""The estimator kernel: Gauss-Newton by elimination on the tree, refactorised in every iteration.

For a block of scenarios: start from one load flow of the readings, then repeat leaves and buses up (messages), root,
down (steps), and move; a step that would raise J is halved. It stops when no voltage moves by more than the tolerance.
Exact weighted least squares: minimise J = sum ((z - h(x)) / sigma)^2 over head magnitudes and injected currents.
"""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.estimation.aggregate import (
    AGGREGATE,
    CURRENT,
    STEP,
    Z_V,
    aggregate_down,
    aggregate_objective,
    aggregate_up,
    move_aggregate,
    read_report,
    start_aggregate,
)
from flexmeter.estimation.aggregate import A as MESSAGE_A
from flexmeter.estimation.aggregate import B as MESSAGE_B
from flexmeter.estimation.aggregate import R as MESSAGE_R
from flexmeter.estimation.blocks import add, apply_constant, apply_transposed_constant, clear, copy
from flexmeter.estimation.correction import CORRECTION, correct_root, corrected_psi, head_joint
from flexmeter.estimation.covariance import (
    COV_ABOVE,
    COV_JJ,
    COV_JV,
    COV_LL,
    COV_VL,
    COV_VV,
    Wanted,
    cross_covariance,
    current_covariance,
    edge_node_sigma,
    leaf_covariance,
    leaf_node_sigma,
    leaf_sigmas,
    root_of,
    root_psi,
    spine_node_sigma,
    write_nine,
)
from flexmeter.estimation.flow import (
    FLOW,
    H_J,
    H_V,
    KNOWN,
    READING,
    RHO,
    VARIANCE,
    flow_down,
    flow_objective,
    flow_psi,
    flow_up,
    linearise,
    quadratic_form,
)
from flexmeter.estimation.leaf import (
    DI,
    DV,
    LEAF,
    MAGNITUDE,
    POWER,
    POWER_VARIANCE,
    WEIGHT,
    B,
    I,
    V,
    leaf_down,
    leaf_objective,
    leaf_up,
)
from flexmeter.estimation.message import add_shunt, cross, hand_up, step_down, step_shunt
from flexmeter.estimation.places import (
    ACCUMULATED,
    BUS,
    BUS_A,
    BUS_B,
    BUS_B2,
    BUS_DJ,
    BUS_DV,
    BUS_ETA,
    BUS_J,
    BUS_L,
    BUS_LAMBDA,
    BUS_R,
    BUS_SHUNT,
    BUS_V,
    SCRATCH,
)
from flexmeter.estimation.root import ROOT, ROOT_ANGLE, ROOT_PRIOR, prior_objective, set_basis, solve_root
from flexmeter.powerflow.lanes import (
    LANES,
    ComplexArray,
    FloatArray,
    IntArray,
    inlined,
    kernel,
    lane,
    lanes_left,
    largest,
    load,
    put,
    put_complex,
    routine,
    splat,
    square_root,
    store,
    take,
    where_positive,
)
from flexmeter.powerflow.sweep import larger

ROOT_3, NAN = 3.0**0.5, float("nan")
HALVINGS = 12
"""A step is halved at most this often before it is taken as it is."""


class EstimatorModel(NamedTuple):
    """What the kernel knows about a network and its meters; tree arrays as in `powerflow.tree.Tree`.

    `row_p`, `row_q`, `row_v` (n_leaf,) rows of the readings, -1 = no meter; `forecast` (n_leaf, 4) mean and sigma of P
    and Q where there is no reading [W, var]; `nominal` (n_spine,) [V]; `aggregate_bus` (n_aggregate,);
    `symmetry` of the head voltages, see `root.set_basis`. Meters on branches sit where the branch enters a spine bus:
    `first_flow` (n_spine + 1,), and (n_flow,) kind, phase, row of the readings, sign of the branch's own direction.
    """

    parent: IntArray
    impedance: FloatArray
    transfer: FloatArray
    has_transfer: IntArray
    shunt: FloatArray
    has_shunt: IntArray
    first_leaf: IntArray
    leaf_plus: IntArray
    leaf_minus: IntArray
    leaf_z: FloatArray
    row_p: IntArray
    row_q: IntArray
    row_v: IntArray
    forecast: FloatArray
    nominal: FloatArray
    aggregate_bus: IntArray
    symmetry: int
    first_flow: IntArray
    flow_kind: IntArray
    flow_phase: IntArray
    flow_row: IntArray
    flow_sign: FloatArray


def work_size(m: EstimatorModel) -> int:
    """Return the length of the work array."""
    items = BUS * len(m.parent) + LEAF * len(m.leaf_plus) + AGGREGATE * len(m.aggregate_bus)
    items += FLOW * len(m.flow_kind)
    return (items + ROOT + CORRECTION + SCRATCH) * LANES


class Places(NamedTuple):
    """Where the groups start in the work array."""

    bus: int
    leaf: int
    aggregate: int
    flow: int
    root: int
    correction: int
    scratch: int
    size: int


@inlined
def places(m: EstimatorModel) -> Places:
    """Return the layout of the work array."""
    leaf = BUS * len(m.parent)
    aggregate = leaf + LEAF * len(m.leaf_plus)
    flow = aggregate + AGGREGATE * len(m.aggregate_bus)
    root = flow + FLOW * len(m.flow_kind)
    correction = root + ROOT
    scratch = correction + CORRECTION
    return Places(0, leaf, aggregate, flow, root, correction, scratch, scratch + SCRATCH)


@inlined
def read_power(w: FloatArray, at: int, part: int, value: float, sigma: float, mean: float, spread: float) -> None:
    """Store a power reading and its variance, or the forecast where the reading is missing (nan)."""
    known = where_positive(value * value + splat(1.0), splat(1.0), splat(0.0))
    store(w, at + POWER + part, where_positive(known, value, splat(mean)))
    store(w, at + POWER_VARIANCE + part, where_positive(known, sigma * sigma, splat(spread * spread)))


@routine
def read_meters(
    w: FloatArray, at: Places, m: EstimatorModel, value: FloatArray, sigma: FloatArray, report: FloatArray,
    start: int, count: int,
) -> float:  # fmt: skip
    """Fill leaves and aggregates with readings; return the mean of the voltages read [pu], 1 where there is none."""
    total, number = splat(0.0), splat(0.0)
    for k in range(len(m.parent)):
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            clear(w, here + DV, 4)
            missing = splat(NAN)
            p, sp, q, sq = missing, missing, missing, missing
            if m.row_p[leaf] >= 0:
                p, sp = take(value, m.row_p[leaf], start, count), take(sigma, m.row_p[leaf], start, count)
            if m.row_q[leaf] >= 0:
                q, sq = take(value, m.row_q[leaf], start, count), take(sigma, m.row_q[leaf], start, count)
            read_power(w, here, 0, p, sp, m.forecast[leaf, 0], m.forecast[leaf, 1])
            read_power(w, here, 1, q, sq, m.forecast[leaf, 2], m.forecast[leaf, 3])
            store(w, here + MAGNITUDE, splat(0.0))
            store(w, here + WEIGHT, splat(0.0))
            if m.row_v[leaf] >= 0:
                v, sv = take(value, m.row_v[leaf], start, count), take(sigma, m.row_v[leaf], start, count)
                known = where_positive(v, splat(1.0), splat(0.0))
                scale = 1.0 / m.nominal[k] if m.leaf_minus[leaf] < 0 else 1.0 / (m.nominal[k] * ROOT_3)
                v = where_positive(known, v, splat(0.0))
                store(w, here + MAGNITUDE, v)
                store(w, here + WEIGHT, where_positive(known, splat(1.0) / (sv * sv), splat(0.0)))
                total, number = total + v * scale, number + known
    for k in range(len(m.aggregate_bus)):
        here = at.aggregate + AGGREGATE * k
        read_report(w, here, report, k, start, count)
        clear(w, here + STEP, 6)
        clear(w, at.bus + BUS * m.aggregate_bus[k] + BUS_DV, 6)
        for phase in range(3):
            v = load(w, here + Z_V + phase)
            total = total + v * (1.0 / m.nominal[m.aggregate_bus[k]])
            number = number + where_positive(v, splat(1.0), splat(0.0))
    return where_positive(number, total / where_positive(number, number, splat(1.0)), splat(1.0))


@routine
def read_flows(
    w: FloatArray, at: Places, m: EstimatorModel, value: FloatArray, sigma: FloatArray, start: int, count: int
) -> None:
    """Fill the meters on branches with readings."""
    for k in range(len(m.parent)):
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, bus = at.flow + FLOW * flow, at.bus + BUS * k
            clear(w, bus + BUS_DV, 6)
            clear(w, bus + BUS_DJ, 6)
            z = take(value, m.flow_row[flow], start, count) * m.flow_sign[flow]
            deviation = take(sigma, m.flow_row[flow], start, count)
            known = where_positive(z * z + splat(1.0), splat(1.0), splat(0.0))
            store(w, here + KNOWN, known)
            store(w, here + READING, where_positive(known, z, splat(0.0)))
            store(w, here + VARIANCE, where_positive(known, deviation * deviation, splat(0.0)))


@routine
def start_voltages(
    w: FloatArray, at: Places, m: EstimatorModel, angle_re: FloatArray, angle_im: FloatArray, start: int, count: int,
    level: float,
) -> None:  # fmt: skip
    """Set the root's directions, and all voltages to the no-load voltages at a level [pu]."""
    clear(w, at.scratch, 6)
    for phase in range(3):
        re, im = take(angle_re, phase, start, count), take(angle_im, phase, start, count)
        store(w, at.root + ROOT_ANGLE + 2 * phase, re)
        store(w, at.root + ROOT_ANGLE + 2 * phase + 1, im)
        store(w, at.bus + BUS_V + 2 * phase, re * level * m.nominal[0])
        store(w, at.bus + BUS_V + 2 * phase + 1, im * level * m.nominal[0])
    set_basis(w, at.root, m.symmetry)
    for k in range(1, len(m.parent)):
        follow(w, at, m, k, BUS_V, at.bus + BUS * m.parent[k] + BUS_V)


@inlined
def follow(w: FloatArray, at: Places, m: EstimatorModel, k: int, place: int, above: int) -> None:
    """Copy a vector of the parent to the bus, through the transformer if there is one."""
    if m.has_transfer[k]:
        apply_constant(w, at.bus + BUS * k + place, m.transfer[k], above)
    else:
        copy(w, at.bus + BUS * k + place, above, 6)


@inlined
def leaf_voltage(w: FloatArray, at: Places, m: EstimatorModel, k: int, leaf: int, place: int) -> tuple[float, float]:
    """Return the bus voltage between the leaf's phases."""
    v = at.bus + BUS * k + place
    re, im = load(w, v + 2 * m.leaf_plus[leaf]), load(w, v + 2 * m.leaf_plus[leaf] + 1)
    if m.leaf_minus[leaf] >= 0:
        re = re - load(w, v + 2 * m.leaf_minus[leaf])
        im = im - load(w, v + 2 * m.leaf_minus[leaf] + 1)
    return re, im


@routine
def start_currents(w: FloatArray, at: Places, m: EstimatorModel) -> None:
    """Set leaf, aggregate, shunt and edge currents to what the readings ask for at the present voltages."""
    n = len(m.parent)
    for k in range(n):
        bus = at.bus + BUS * k
        if m.has_shunt[k]:
            apply_constant(w, bus + BUS_SHUNT, m.shunt[k], bus + BUS_V)
            copy(w, bus + BUS_J, bus + BUS_SHUNT, 6)
        else:
            clear(w, bus + BUS_J, 6)
    for k in range(len(m.aggregate_bus)):
        bus = at.bus + BUS * m.aggregate_bus[k]
        start_aggregate(w, at.aggregate + AGGREGATE * k, bus)
        add(w, bus + BUS_J, at.aggregate + AGGREGATE * k + CURRENT, 6)
    for k in range(n - 1, -1, -1):
        bus = at.bus + BUS * k
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            re, im = leaf_voltage(w, at, m, k, leaf, BUS_V)
            p, q = load(w, here + POWER), load(w, here + POWER + 1)
            inverse2 = splat(1.0) / (re * re + im * im)
            i_re, i_im = (p * re + q * im) * inverse2, (p * im - q * re) * inverse2
            store(w, here + I, i_re)
            store(w, here + I + 1, i_im)
            j = bus + BUS_J + 2 * m.leaf_plus[leaf]
            store(w, j, load(w, j) + i_re)
            store(w, j + 1, load(w, j + 1) + i_im)
            if m.leaf_minus[leaf] >= 0:
                j = bus + BUS_J + 2 * m.leaf_minus[leaf]
                store(w, j, load(w, j) - i_re)
                store(w, j + 1, load(w, j + 1) - i_im)
        if k > 0:
            up = at.bus + BUS * m.parent[k] + BUS_J
            if m.has_transfer[k]:
                apply_transposed_constant(w, at.scratch, m.transfer[k], bus + BUS_J)
                add(w, up, at.scratch, 6)
            else:
                add(w, up, bus + BUS_J, 6)


@routine
def settle_voltages(w: FloatArray, at: Places, m: EstimatorModel) -> None:
    """Set all voltages to those that follow from the root's voltage and the currents."""
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        if k > 0:
            follow(w, at, m, k, BUS_V, at.bus + BUS * m.parent[k] + BUS_V)
            apply_constant(w, at.scratch, m.impedance[k], bus + BUS_J)
            for q in range(6):
                store(w, bus + BUS_V + q, load(w, bus + BUS_V + q) - load(w, at.scratch + q))
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            re, im = leaf_voltage(w, at, m, k, leaf, BUS_V)
            i_re, i_im = load(w, here + I), load(w, here + I + 1)
            r, x = m.leaf_z[leaf, 0], m.leaf_z[leaf, 1]
            store(w, here + V, re - i_re * r + i_im * x)
            store(w, here + V + 1, im - i_im * r - i_re * x)


@routine
def messages_up(w: FloatArray, at: Places, m: EstimatorModel) -> None:
    """Collect the messages of all leaves, aggregates, shunts and buses at the root."""
    n = len(m.parent)
    for k in range(n):
        clear(w, at.bus + BUS * k, ACCUMULATED)
        if m.has_shunt[k]:
            add_shunt(w, at.bus + BUS * k, m.shunt[k], at.scratch)
    for k in range(len(m.aggregate_bus)):
        aggregate_up(w, at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k], at.scratch)
    for k in range(n - 1, -1, -1):
        bus = at.bus + BUS * k
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            leaf_up(w, at.leaf + LEAF * leaf, m.leaf_z[leaf], bus, m.leaf_plus[leaf], m.leaf_minus[leaf])
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here = at.flow + FLOW * flow
            off = linearise(w, here, m.flow_kind[flow], m.flow_phase[flow], bus + BUS_V, bus + BUS_J)
            flow_up(w, here, off, bus + BUS_A, bus + BUS_R, bus + BUS_L, bus + BUS_B, bus + BUS_ETA)
        if k > 0:
            cross(w, bus, m.impedance[k], at.scratch)
            hand_up(w, bus, at.bus + BUS * m.parent[k], at.scratch, m.transfer[k], m.has_transfer[k])


@routine
def steps_down(w: FloatArray, at: Places, m: EstimatorModel) -> None:
    """Follow the root's step to every bus, leaf and aggregate."""
    dv, force = at.scratch, at.scratch + 6
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        if k > 0:
            up = at.bus + BUS * m.parent[k]
            if m.has_transfer[k]:
                apply_constant(w, dv, m.transfer[k], up + BUS_DV)
                apply_constant(w, force, m.transfer[k], up + BUS_LAMBDA)
            else:
                copy(w, dv, up + BUS_DV, 6)
                copy(w, force, up + BUS_LAMBDA, 6)
            step_down(w, bus, dv, force, m.impedance[k], at.scratch)
        for flow in range(m.first_flow[k + 1] - 1, m.first_flow[k] - 1, -1):
            flow_down(w, at.flow + FLOW * flow, bus + BUS_DV, bus + BUS_LAMBDA)
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            leaf_down(w, at.leaf + LEAF * leaf, m.leaf_z[leaf], bus, m.leaf_plus[leaf], m.leaf_minus[leaf])
    for k in range(len(m.aggregate_bus)):
        aggregate_down(w, at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k], at.scratch)


@routine
def objective(w: FloatArray, at: Places, m: EstimatorModel, step: float) -> float:
    """Return J after a step, forecasts of missing readings included."""
    total = splat(0.0)
    for leaf in range(len(m.leaf_plus)):
        total = total + leaf_objective(w, at.leaf + LEAF * leaf, step)
    for k in range(len(m.aggregate_bus)):
        bus = at.bus + BUS * m.aggregate_bus[k]
        total = total + aggregate_objective(w, at.aggregate + AGGREGATE * k, bus, step)
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        v, j, dv, dj = bus + BUS_V, bus + BUS_J, bus + BUS_DV, bus + BUS_DJ
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, kind, phase = at.flow + FLOW * flow, m.flow_kind[flow], m.flow_phase[flow]
            total = total + flow_objective(w, here, kind, phase, v, j, dv, dj, step)
    return total


@routine
def damped_step(w: FloatArray, at: Places, m: EstimatorModel) -> tuple[float, float]:
    """Return the step in (0, 1] that does not raise J (with the priors of this iteration), per lane, and J there."""
    nominal = m.nominal[0]
    zero, step = splat(0.0), splat(1.0)
    before = objective(w, at, m, zero) + prior_objective(w, at.bus, at.root, nominal, m.symmetry, zero)
    after = before
    for halving in range(HALVINGS):
        after = objective(w, at, m, step)
        worse = after + prior_objective(w, at.bus, at.root, nominal, m.symmetry, step) - before
        worse = worse - before * 1e-9 - splat(1e-9)
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
        solve_root(w, at.bus, at.root, m.nominal[0], m.symmetry)
        steps_down(w, at, m)
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


@inlined
def prepare_block(
    w: FloatArray, at: Places, m: EstimatorModel, value: FloatArray, sigma: FloatArray, report: FloatArray,
    angle_re: FloatArray, angle_im: FloatArray, start: int, count: int,
) -> None:  # fmt: skip
    """Readings in, and a load flow of them as the starting point."""
    level = read_meters(w, at, m, value, sigma, report, start, count)
    read_flows(w, at, m, value, sigma, start, count)
    start_voltages(w, at, m, angle_re, angle_im, start, count, level)
    start_currents(w, at, m)
    settle_voltages(w, at, m)
    start_currents(w, at, m)
    settle_voltages(w, at, m)


@routine
def correct(w: FloatArray, at: Places, m: EstimatorModel, above: FloatArray, start: int, count: int) -> None:
    """Move the state to what the level above answers: the steps follow from the root's alone, all b and eta are 0."""
    for k in range(len(m.parent)):
        clear(w, at.bus + BUS * k + BUS_B2, 6)
        clear(w, at.bus + BUS * k + BUS_ETA, 6)
    for leaf in range(len(m.leaf_plus)):
        clear(w, at.leaf + LEAF * leaf + B, 2)
    for k in range(len(m.aggregate_bus)):
        clear(w, at.aggregate + AGGREGATE * k + MESSAGE_B, 6)
    for flow in range(len(m.flow_kind)):
        store(w, at.flow + FLOW * flow + RHO, splat(0.0))
    correct_root(w, at.bus, at.root, at.correction, at.scratch, above, start, count)
    steps_down(w, at, m)
    move(w, at, m, splat(1.0))


@inlined
def flow_variance(w: FloatArray, at: Places, m: EstimatorModel, k: int, here: int, jv: int, jj: int) -> float:
    """Return the variance of what a branch meter at bus k reads; jv, jj: Cov(J0, V0), Cov(J0) for the root."""
    bus = at.bus + BUS * k
    if k == 0:
        return quadratic_form(w, here + H_V, here + H_J, bus + COV_VV, jv, jj)
    on_j = at.scratch + 400
    apply_transposed_constant(w, on_j, m.impedance[k], here + H_V)  # V = T V_parent - Z J
    for q in range(6):
        store(w, on_j + q, load(w, here + H_J + q) - load(w, on_j + q))
    return quadratic_form(w, here + H_V, on_j, bus + COV_ABOVE, bus + COV_JV, bus + COV_JJ)


@routine
def covariances(
    w: FloatArray, at: Places, m: EstimatorModel, wanted: Wanted, above: FloatArray, start: int, count: int,
    node_sigma: FloatArray,
    leaf_sigma: FloatArray, flow_sigma: FloatArray, head: FloatArray, nine: FloatArray,
) -> None:  # fmt: skip
    """Root to leaf once more: standard deviations of nodes and leaves, joint 9x9 of the head and of aggregates."""
    n = len(m.parent)
    vv, vl, ll, a, r = at.scratch, at.scratch + 36, at.scratch + 72, at.scratch + 108, at.scratch + 144
    root_psi(w, at.root, vv)
    clear(w, vl, 72)
    if len(above) > 0:
        corrected_psi(w, at.correction, vv, vl, ll, above, start, count)
    head_joint(w, at.bus, vv, vl, ll, a, r, at.scratch + 180)
    write_nine(w, at.bus + BUS_V, at.bus + BUS_J, vv, a, r, at.scratch + 180, head, 0, start, count)
    copy(w, at.bus + COV_VV, vv, 36)
    copy(w, at.bus + COV_VL, vl, 36)
    copy(w, at.bus + COV_LL, ll, 36)
    for k in range(n):
        bus = at.bus + BUS * k
        if k > 0:
            up = at.bus + BUS * m.parent[k]
            cross_covariance(w, bus, up, m.impedance[k], m.transfer[k], m.has_transfer[k], at.scratch)
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            variance = flow_variance(w, at, m, k, at.flow + FLOW * flow, a, r)
            put(flow_sigma, flow, start, count, root_of(variance))
        for flow in range(m.first_flow[k + 1] - 1, m.first_flow[k] - 1, -1):
            flow_psi(w, at.flow + FLOW * flow, bus + COV_VV, bus + COV_VL, bus + COV_LL, at.scratch)
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            leaf_covariance(w, here, bus, m.leaf_plus[leaf], m.leaf_minus[leaf])
            p, q, v = leaf_sigmas(w, here, bus, m.leaf_z[leaf], m.leaf_plus[leaf], m.leaf_minus[leaf])
            put(leaf_sigma, 3 * leaf, start, count, p)
            put(leaf_sigma, 3 * leaf + 1, start, count, q)
            put(leaf_sigma, 3 * leaf + 2, start, count, v)
    for k in range(len(m.aggregate_bus)):
        here, bus = at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k]
        one, two, three = at.scratch, at.scratch + 36, at.scratch + 72
        a, r = here + MESSAGE_A, here + MESSAGE_R
        current_covariance(w, a, r, bus + COV_VV, bus + COV_VL, bus + COV_LL, one, two, three)
        write_nine(w, bus + BUS_V, here + CURRENT, bus + COV_VV, a, r, one, nine, 81 * k, start, count)
    for node in range(len(wanted.node_spine)):
        k, edge, phase = wanted.node_spine[node], wanted.node_edge[node], wanted.node_phase[node]
        bus, x = at.bus + BUS * k, wanted.node_x[node]
        if edge < 0:
            value = spine_node_sigma(w, bus, phase)
        elif edge < n:
            value = edge_node_sigma(w, at.bus + BUS * edge, bus, phase, x, at.scratch)
        else:
            value = leaf_node_sigma(w, at.leaf + LEAF * (edge - n), bus, phase, x[0])
        put(node_sigma, node, start, count, value)


@kernel
def estimate_blocks(
    first_block: int,
    last_block: int,
    w: FloatArray,
    m: EstimatorModel,
    value: FloatArray,
    sigma: FloatArray,
    report: FloatArray,
    angle_re: FloatArray,
    angle_im: FloatArray,
    tolerance: float,
    max_iterations: int,
    spine_v: ComplexArray,
    edge_i: ComplexArray,
    aggregate_i: ComplexArray,
    iterations: IntArray,
    objective_j: FloatArray,
    helped: FloatArray,
    above: FloatArray,
    with_covariance: bool,
    wanted: Wanted,
    node_sigma: FloatArray,
    leaf_sigma: FloatArray,
    flow_sigma: FloatArray,
    head: FloatArray,
    nine: FloatArray,
) -> None:
    """Estimate the scenarios of some blocks.

    `edge_i` holds the edge currents of the spine (3 n_spine), then the leaf currents; `helped` (3, n_scenario) is 1
    where a head magnitude was not observable; `above` (180, n_scenario) is the answer of the level above (see
    `correction`), or has no rows.
    """
    n, n_leaf, n_scenario = len(m.parent), len(m.leaf_plus), value.shape[1]
    at = places(m)
    for block in range(first_block, last_block):
        start = block * LANES
        count = lanes_left(n_scenario - start)
        for k in range(count):
            iterations[start + k] = -1
        prepare_block(w, at, m, value, sigma, report, angle_re, angle_im, start, count)
        iterate(w, at, m, tolerance, max_iterations, start, count, iterations, objective_j)
        if len(above) > 0:
            correct(w, at, m, above, start, count)
        for k in range(n):
            bus = at.bus + BUS * k
            for q in range(3):
                row = 3 * k + q
                put_complex(spine_v, row, start, count, load(w, bus + BUS_V + 2 * q), load(w, bus + BUS_V + 2 * q + 1))
                put_complex(edge_i, row, start, count, load(w, bus + BUS_J + 2 * q), load(w, bus + BUS_J + 2 * q + 1))
        for leaf in range(n_leaf):
            here = at.leaf + LEAF * leaf
            put_complex(edge_i, 3 * n + leaf, start, count, load(w, here + I), load(w, here + I + 1))
        for k in range(len(m.aggregate_bus)):
            here = at.aggregate + AGGREGATE * k + CURRENT
            for q in range(3):
                put_complex(aggregate_i, 3 * k + q, start, count, load(w, here + 2 * q), load(w, here + 2 * q + 1))
        for q in range(3):
            put(helped, q, start, count, load(w, at.root + ROOT_PRIOR + q))
        if with_covariance:
            covariances(w, at, m, wanted, above, start, count, node_sigma, leaf_sigma, flow_sigma, head, nine)
