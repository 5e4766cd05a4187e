"""The starting point of the iteration: an estimate from before, or two sweeps of a load flow of the readings."""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE, CURRENT, start_aggregate
from flexmeter.estimation.blocks import add, apply_constant, apply_transposed_constant, clear, copy
from flexmeter.estimation.intake import Readings
from flexmeter.estimation.leaf import LEAF, POWER, I, V, add_pair, pair
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import BUS, BUS_J, BUS_SHUNT, BUS_V
from flexmeter.estimation.root import ROOT_ANGLE, ROOT_UNTOLD, set_basis
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import WorkArray, load, store, take, where_positive


@inlined
def start_state(
    w: WorkArray, at: Places, m: EstimatorModel, readings: Readings, start: int, count: int, level: float
) -> None:
    """Set all voltages and currents to a load flow of the readings; level [pu] of the head voltages."""
    start_voltages(w, at, m, readings, start, count, level)
    for _ in range(2):
        start_currents(w, at, m, readings, start, count)
        settle_voltages(w, at, m)


@inlined
def known_or(value: float, other: float) -> float:
    """Return the value, or the other where it is nan."""
    known = where_positive(value * value + 1.0, 1.0, 0.0)
    return where_positive(known, value, other)


@inlined
def put_start(w: WorkArray, at: int, readings: Readings, row: int, start: int, count: int) -> None:
    """Replace a current by the one of the start, where it has one."""
    store(w, at, known_or(take(w, readings.start_re, row, start, count), load(w, at)))
    store(w, at + 1, known_or(take(w, readings.start_im, row, start, count), load(w, at + 1)))


@routine
def start_voltages(
    w: WorkArray, at: Places, m: EstimatorModel, readings: Readings, start: int, count: int, level: float
) -> None:
    """Set the root's directions, and all voltages to the no-load voltages at a level [pu]."""
    clear(w, at.scratch, 6)
    for phase in range(3):
        re, im = take(w, readings.angle_re, phase, start, count), take(w, readings.angle_im, phase, start, count)
        store(w, at.root + ROOT_ANGLE + 2 * phase, re)
        store(w, at.root + ROOT_ANGLE + 2 * phase + 1, im)
        size = level
        if len(readings.start_re) > 0:
            size = known_or(take(w, readings.start_re, phase, start, count), level)
        store(w, at.bus + BUS_V + 2 * phase, re * size * m.nominal[0])
        store(w, at.bus + BUS_V + 2 * phase + 1, im * size * m.nominal[0])
    set_basis(w, at.root, m.symmetry)
    clear(w, at.root + ROOT_UNTOLD, 3)
    for k in range(1, len(m.parent)):
        follow(w, at, m, k, BUS_V, at.bus + BUS * m.parent[k] + BUS_V)


@inlined
def follow(w: WorkArray, at: Places, m: EstimatorModel, k: int, place: int, above: int) -> None:
    """Copy a vector of the parent to the bus, through the transformer if there is one."""
    if m.has_transfer[k]:
        apply_constant(w, at.bus + BUS * k + place, m.transfer[k], above)
    else:
        copy(w, at.bus + BUS * k + place, above, 6)


@inlined
def sum_up(w: WorkArray, at: Places, m: EstimatorModel, k: int, place: int) -> None:
    """Add a bus's current to its parent's, through the transformer if there is one."""
    up = at.bus + BUS * m.parent[k] + place
    if m.has_transfer[k]:
        apply_transposed_constant(w, at.scratch, m.transfer[k], at.bus + BUS * k + place)
        add(w, up, at.scratch, 6)
    else:
        add(w, up, at.bus + BUS * k + place, 6)


@inlined
def follow_edge(w: WorkArray, at: Places, m: EstimatorModel, k: int, v: int, j: int) -> None:
    """Write V = T V_parent - Z J of a bus, v and j the places of V and J."""
    follow(w, at, m, k, v, at.bus + BUS * m.parent[k] + v)
    bus = at.bus + BUS * k
    apply_constant(w, at.scratch, m.impedance[k], bus + j)
    for q in range(6):
        store(w, bus + v + q, load(w, bus + v + q) - load(w, at.scratch + q))


@inlined
def leaf_voltage(w: WorkArray, at: Places, m: EstimatorModel, k: int, leaf: int, place: int) -> tuple[float, float]:
    """Return the bus voltage between the leaf's phases."""
    v = at.bus + BUS * k + place
    re, im = load(w, v + 2 * m.leaf_plus[leaf]), load(w, v + 2 * m.leaf_plus[leaf] + 1)
    if m.leaf_minus[leaf] >= 0:
        re = re - load(w, v + 2 * m.leaf_minus[leaf])
        im = im - load(w, v + 2 * m.leaf_minus[leaf] + 1)
    return re, im


@routine
def start_currents(w: WorkArray, at: Places, m: EstimatorModel, readings: Readings, start: int, count: int) -> None:
    """Set currents of leaves and aggregates as the start or the readings say; those of shunts and edges follow."""
    n, n_leaf, warm = len(m.parent), len(m.leaf_plus), len(readings.start_re) > 0
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
        if warm:
            for phase in range(3):
                current = at.aggregate + AGGREGATE * k + CURRENT + 2 * phase
                put_start(w, current, readings, 3 + n_leaf + 3 * k + phase, start, count)
        add(w, bus + BUS_J, at.aggregate + AGGREGATE * k + CURRENT, 6)
    for k in range(n - 1, -1, -1):
        bus = at.bus + BUS * k
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            re, im = leaf_voltage(w, at, m, k, leaf, BUS_V)
            p, q = load(w, here + POWER), load(w, here + POWER + 1)
            inverse2 = 1.0 / (re * re + im * im)
            store(w, here + I, (p * re + q * im) * inverse2)
            store(w, here + I + 1, (p * im - q * re) * inverse2)
            if warm:
                put_start(w, here + I, readings, 3 + leaf, start, count)
            add_pair(w, bus + BUS_J + 2 * m.leaf_plus[leaf], pair(w, here + I), 1.0)
            if m.leaf_minus[leaf] >= 0:
                add_pair(w, bus + BUS_J + 2 * m.leaf_minus[leaf], pair(w, here + I), -1.0)
        if k > 0:
            sum_up(w, at, m, k, BUS_J)


@routine
def settle_voltages(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Set all voltages to those that follow from the root's voltage and the currents."""
    for k in range(len(m.parent)):
        if k > 0:
            follow_edge(w, at, m, k, BUS_V, BUS_J)
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            re, im = leaf_voltage(w, at, m, k, leaf, BUS_V)
            i_re, i_im = load(w, here + I), load(w, here + I + 1)
            r, x = m.leaf_z[leaf, 0], m.leaf_z[leaf, 1]
            store(w, here + V, re - i_re * r + i_im * x)
            store(w, here + V + 1, im - i_im * r - i_re * x)
