"""One Gauss-Newton step: messages of leaves and buses up to the root, steps from the root down."""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE, aggregate_down, aggregate_up
from flexmeter.estimation.blocks import apply_constant, clear, copy
from flexmeter.estimation.flow import FLOW, flow_down, flow_up, linearise
from flexmeter.estimation.leaf import LEAF, leaf_down, leaf_up
from flexmeter.estimation.message import add_shunt, cross, hand_up, step_down
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import (
    ACCUMULATED,
    BUS,
    BUS_A,
    BUS_B,
    BUS_DV,
    BUS_ETA,
    BUS_J,
    BUS_L,
    BUS_LAMBDA,
    BUS_R,
    BUS_V,
)
from flexmeter.powerflow.compiling import routine
from flexmeter.powerflow.lanes import WorkArray


@routine
def messages_up(w: WorkArray, at: Places, m: EstimatorModel) -> None:
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
            kind, phase, minus = m.flow_kind[flow], m.flow_phase[flow], m.flow_minus[flow]
            off = linearise(w, here, kind, phase, minus, bus + BUS_V, bus + BUS_J)
            flow_up(w, here, off, bus + BUS_A, bus + BUS_R, bus + BUS_L, bus + BUS_B, bus + BUS_ETA)
        if k > 0:
            cross(w, bus, m.impedance[k], at.scratch)
            hand_up(w, bus, at.bus + BUS * m.parent[k], at.scratch, m.transfer[k], m.has_transfer[k])


@routine
def steps_down(w: WorkArray, at: Places, m: EstimatorModel) -> None:
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
