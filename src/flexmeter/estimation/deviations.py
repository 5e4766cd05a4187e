"""Root to leaf once more, on the last factor: standard deviations, and the joint covariances of head and areas."""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.estimation.aggregate import AGGREGATE, CURRENT
from flexmeter.estimation.aggregate import A as MESSAGE_A
from flexmeter.estimation.aggregate import R as MESSAGE_R
from flexmeter.estimation.blocks import apply_transposed_constant, clear, copy
from flexmeter.estimation.border import amend, store_columns
from flexmeter.estimation.correction import corrected_psi, head_joint
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
    spine_node_sigma,
    write_nine,
)
from flexmeter.estimation.flow import FLOW, H_J, H_V, flow_psi, quadratic_form
from flexmeter.estimation.leaf import LEAF
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import BUS, BUS_J, BUS_V
from flexmeter.estimation.response import psi_of_root
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, put, store


class Deviations(NamedTuple):
    """Where the standard deviations of every scenario go; without scenarios, none are computed.

    `node` (n_node, n) of |V|; `leaf` (3 n_leaf, n) of P, Q, |V|; `flow` (n_flow, n) of the meters on branches; `head`
    (81, n) and `aggregate` (81 n_aggregate, n) joint covariances of |V|, P, Q.
    """

    node: FloatArray
    leaf: FloatArray
    flow: WorkArray
    head: FloatArray
    aggregate: FloatArray


@inlined
def flow_variance(w: WorkArray, at: Places, m: EstimatorModel, k: int, here: int, jv: int, jj: int) -> float:
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
def prepare_root(
    w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, tied: bool, start: int, count: int
) -> None:
    """Write Psi of the root, and the covariances of its current, over the factor."""
    vv, vl, ll = at.scratch, at.scratch + 36, at.scratch + 72
    if tied:
        store_columns(w, at, m, len(above) > 0)
    psi_of_root(w, at, m, vv)
    clear(w, vl, 72)
    if len(above) > 0 and not tied:
        corrected_psi(w, at.correction, vv, vl, ll, above, start, count)
    head_joint(w, at.bus, vv, vl, ll, at.head_joint, at.head_joint + 36, at.scratch + 180)
    copy(w, at.bus + COV_VV, vv, 36)
    copy(w, at.bus + COV_VL, vl, 36)
    copy(w, at.bus + COV_LL, ll, 36)


@inlined
def carry_psi(w: WorkArray, at: Places, m: EstimatorModel, k: int) -> None:
    """Carry Psi to bus k from its parent, across the edge and its meters."""
    bus = at.bus + BUS * k
    if k > 0:
        up = at.bus + BUS * m.parent[k]
        cross_covariance(w, bus, up, m.impedance[k], m.transfer[k], m.has_transfer[k], at.scratch)
    for flow in range(m.first_flow[k + 1] - 1, m.first_flow[k] - 1, -1):
        flow_psi(w, at.flow + FLOW * flow, bus + COV_VV, bus + COV_VL, bus + COV_LL, at.scratch)


@routine
def write_covariances(w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, start: int, count: int) -> None:
    """Write the covariances of all buses and edges over the last factor."""
    tied = len(m.ties.one) > 0
    prepare_root(w, at, m, above, tied, start, count)
    for k in range(len(m.parent)):
        carry_psi(w, at, m, k)
    if tied:
        amend(w, at, m, above, start, count)


@inlined
def write_bus(w: WorkArray, at: Places, m: EstimatorModel, k: int, out: Deviations, start: int, count: int) -> None:
    """Write the standard deviations of the meters on the edge into a bus, and of its leaves."""
    bus = at.bus + BUS * k
    for flow in range(m.first_flow[k], m.first_flow[k + 1]):
        variance = flow_variance(w, at, m, k, at.flow + FLOW * flow, at.head_joint, at.head_joint + 36)
        put(out.flow, flow, start, count, root_of(variance))
    for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
        here = at.leaf + LEAF * leaf
        leaf_covariance(w, here, bus, m.leaf_plus[leaf], m.leaf_minus[leaf])
        p, q, v = leaf_sigmas(w, here, bus, m.leaf_z[leaf], m.leaf_plus[leaf], m.leaf_minus[leaf])
        put(out.leaf, 3 * leaf, start, count, p)
        put(out.leaf, 3 * leaf + 1, start, count, q)
        put(out.leaf, 3 * leaf + 2, start, count, v)


@routine
def write_deviations(
    w: WorkArray, at: Places, m: EstimatorModel, wanted: Wanted, above: FloatArray, out: Deviations,
    start: int, count: int,
) -> None:  # fmt: skip
    """Root to leaf once more: standard deviations of nodes and leaves, joint 9x9 of the head and of aggregates."""
    n, tied = len(m.parent), len(m.ties.one) > 0
    prepare_root(w, at, m, above, tied, start, count)
    for k in range(n):
        carry_psi(w, at, m, k)
        if not tied:
            write_bus(w, at, m, k, out, start, count)
    if tied:
        amend(w, at, m, above, start, count)
        for k in range(n):
            write_bus(w, at, m, k, out, start, count)
    a, r = at.head_joint, at.head_joint + 36
    write_nine(w, at.bus + BUS_V, at.bus + BUS_J, at.bus + COV_VV, a, r, at.scratch, out.head, 0, start, count)
    for k in range(len(m.aggregate_bus)):
        here, bus = at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k]
        one, two, three = at.scratch, at.scratch + 36, at.scratch + 72
        a, r = here + MESSAGE_A, here + MESSAGE_R
        current_covariance(w, a, r, bus + COV_VV, bus + COV_VL, bus + COV_LL, one, two, three)
        write_nine(w, bus + BUS_V, here + CURRENT, bus + COV_VV, a, r, one, out.aggregate, 81 * k, start, count)
    for node in range(len(wanted.node_spine)):
        put(out.node, node, start, count, node_sigma(w, at, m, wanted, node))


@routine
def node_sigma(w: WorkArray, at: Places, m: EstimatorModel, wanted: Wanted, node: int) -> float:
    """Return the standard deviation of |V| of a node, from the covariances of buses and edges."""
    k, edge, phase = wanted.node_spine[node], wanted.node_edge[node], wanted.node_phase[node]
    bus, n, x = at.bus + BUS * k, len(m.parent), wanted.node_x[node]
    if edge < 0:
        return spine_node_sigma(w, bus, phase)
    if edge < n:
        return edge_node_sigma(w, at.bus + BUS * edge, bus, phase, x, at.scratch)
    return leaf_node_sigma(w, at.leaf + LEAF * (edge - n), bus, phase, x[0])
