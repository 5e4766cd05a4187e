"""Taking a step, and taking it back: the state of everything on the tree."""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE, CURRENT, STEP, move_aggregate
from flexmeter.estimation.aggregate import BASE as AGGREGATE_BASE
from flexmeter.estimation.blocks import add, apply_constant, clear, copy
from flexmeter.estimation.leaf import BASE, DI, DV, LEAF, V, add_pair, between, impedance, move_leaf, on, pair
from flexmeter.estimation.message import step_shunt
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import BUS, BUS_BASE, BUS_DJ, BUS_DV, BUS_J, BUS_SHUNT, BUS_V
from flexmeter.estimation.start import follow_edge, sum_up
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import WorkArray, load, square_root, store
from flexmeter.powerflow.sweep import larger

SHUNT_ROUNDS = 2
"""Each leaves about Z Y of what its shunts' currents are off: a few per cent."""


@routine
def keep(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Remember the state for `restore`."""
    for k in range(len(m.parent)):
        copy(w, at.bus + BUS * k + BUS_BASE, at.bus + BUS * k + BUS_V, 18)  # V, J and the shunt's current
    for leaf in range(len(m.leaf_plus)):
        copy(w, at.leaf + LEAF * leaf + BASE, at.leaf + LEAF * leaf + V, 4)
    for k in range(len(m.aggregate_bus)):
        here = at.aggregate + AGGREGATE * k
        copy(w, here + AGGREGATE_BASE, here + CURRENT, 6)


@routine
def restore(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Return to the state that was kept; the steps are lost."""
    for k in range(len(m.parent)):
        copy(w, at.bus + BUS * k + BUS_V, at.bus + BUS * k + BUS_BASE, 18)
    for leaf in range(len(m.leaf_plus)):
        copy(w, at.leaf + LEAF * leaf + V, at.leaf + LEAF * leaf + BASE, 4)
    for k in range(len(m.aggregate_bus)):
        here = at.aggregate + AGGREGATE * k
        copy(w, here + CURRENT, here + AGGREGATE_BASE, 6)


@routine
def move(w: WorkArray, at: Places, m: EstimatorModel, step: float) -> float:
    """Take the step; return the largest full move of a voltage [pu]: a damped step is not convergence.

    Currents are chosen such that powers change linearly, see `leaf.powered_current`, and edges and voltages follow
    them; with ties, which would open by it, currents change linearly.
    """
    moved, powered, shunts = 0.0, len(m.ties.one) == 0, False
    for k in range(len(m.aggregate_bus)):
        move_aggregate(w, at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k], step, powered)
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        if m.has_shunt[k]:
            shunts = True
            step_shunt(w, bus, m.shunt[k], step, at.scratch)
        scale = 1.0 / m.nominal[k] ** 2
        for q in range(3):
            re, im = load(w, bus + BUS_DV + 2 * q), load(w, bus + BUS_DV + 2 * q + 1)
            moved = larger(moved, (re * re + im * im) * scale)
        for q in range(6):
            store(w, bus + BUS_V + q, load(w, bus + BUS_V + q) + step * load(w, bus + BUS_DV + q))
            store(w, bus + BUS_J + q, load(w, bus + BUS_J + q) + step * load(w, bus + BUS_DJ + q))
        clear(w, bus + BUS_DJ, 6)
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            re, im = load(w, here + DV), load(w, here + DV + 1)
            moved = larger(moved, (re * re + im * im) * scale)
            move_leaf(w, here, step, powered)
    if powered:
        follow_currents(w, at, m)
        if shunts:
            for _ in range(SHUNT_ROUNDS):
                follow_shunts(w, at, m)
    return square_root(moved)


@routine
def follow_currents(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Let edges and voltages follow changes of the currents: DI of leaves, STEP of aggregates, DJ of buses."""
    n = len(m.parent)
    for k in range(len(m.aggregate_bus)):
        add(w, at.bus + BUS * m.aggregate_bus[k] + BUS_DJ, at.aggregate + AGGREGATE * k + STEP, 6)
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


@inlined
def follow_shunts(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Let the shunts' currents follow the change DV of their voltages, and everything else these currents."""
    for leaf in range(len(m.leaf_plus)):
        clear(w, at.leaf + LEAF * leaf + DI, 2)
    for k in range(len(m.aggregate_bus)):
        clear(w, at.aggregate + AGGREGATE * k + STEP, 6)
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        clear(w, bus + BUS_DJ, 6)
        if m.has_shunt[k]:
            apply_constant(w, bus + BUS_DJ, m.shunt[k], bus + BUS_DV)
            add(w, bus + BUS_SHUNT, bus + BUS_DJ, 6)
    follow_currents(w, at, m)
