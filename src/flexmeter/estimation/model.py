"""What the kernel knows of a network and its meters, and where everything lies in its work array."""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.estimation.aggregate import AGGREGATE
from flexmeter.estimation.correction import CORRECTION
from flexmeter.estimation.flow import FLOW
from flexmeter.estimation.leaf import LEAF
from flexmeter.estimation.places import BUS, COLUMN, RESPONSE, SCRATCH, WIDE
from flexmeter.estimation.root import ROOT
from flexmeter.estimation.ties import Ties
from flexmeter.powerflow.compiling import inlined
from flexmeter.powerflow.lanes import FloatArray, IntArray


class EstimatorModel(NamedTuple):
    """What the kernel knows about a network and its meters; tree arrays as in `powerflow.tree.Tree`.

    `row_p`, `row_q`, `row_v` (n_leaf,) rows of the readings, -1 = no meter; `forecast` (n_leaf, 4) mean and sigma of P
    and Q where there is no reading [W, var]; `nominal` (n_spine,) [V]; `aggregate_bus` (n_aggregate,);
    `symmetry` of the head voltages, see `root.set_basis`. Meters on branches sit where the branch enters a spine bus:
    `first_flow` (n_spine + 1,), and (n_flow,) kind, phase, a voltmeter's other phase, row of the readings, sign of the
    branch's own direction. `phasors` says whether any of them knows an angle, `magnitudes` whether any reads |I|.
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
    flow_minus: IntArray
    flow_row: IntArray
    flow_sign: FloatArray
    phasors: bool
    magnitudes: bool
    ties: Ties


def work_size(m: EstimatorModel, n_joint: int = 0) -> int:
    """Return the length of the work array; `n_joint` is how many quantities' joint covariance is asked for."""
    n, strands = len(m.parent), 2 * len(m.ties.one)
    items = BUS * n + LEAF * len(m.leaf_plus) + AGGREGATE * len(m.aggregate_bus)
    items += FLOW * len(m.flow_kind) + ROOT + CORRECTION + SCRATCH + WIDE + HEAD_JOINT
    if strands or n_joint or len(m.flow_kind):
        items += RESPONSE * n + 2 * len(m.leaf_plus) + len(m.flow_kind)
        items += 4 * strands**2 + 2 * strands + 9 * max(n_joint, 1)
    if strands:
        items += COLUMN * n * (2 * strands + 9)
    return items


HEAD_JOINT = 72
"""Items of the covariance of the head's current with its voltage, and of the current."""


class Places(NamedTuple):
    """Where the groups start in the work array; what comes after `head_joint` is there only if it is used.

    `response` the buses' answers to forces, `leaf_push` and `meter_push` the leaves' and meters' parts of it; `border`
    S of the ties and a right-hand side; `column` the answers that are kept; `touch` what quantities have to do with the
    head's nine (9 each).
    """

    bus: int
    leaf: int
    aggregate: int
    flow: int
    root: int
    correction: int
    scratch: int
    wide: int
    head_joint: int
    response: int
    leaf_push: int
    meter_push: int
    border: int
    column: int
    touch: int


@inlined
def places(m: EstimatorModel) -> Places:
    """Return the layout of the work array."""
    n, strands = len(m.parent), 2 * len(m.ties.one)
    leaf = BUS * n
    aggregate = leaf + LEAF * len(m.leaf_plus)
    flow = aggregate + AGGREGATE * len(m.aggregate_bus)
    root = flow + FLOW * len(m.flow_kind)
    correction = root + ROOT
    scratch = correction + CORRECTION
    wide = scratch + SCRATCH
    head_joint = wide + WIDE
    response = head_joint + HEAD_JOINT
    leaf_push = response + RESPONSE * n
    meter_push = leaf_push + 2 * len(m.leaf_plus)
    border = meter_push + len(m.flow_kind)
    column = border + 4 * strands**2 + 2 * strands
    touch = column + (COLUMN * n * (2 * strands + 9) if strands else 0)
    return Places(
        0, leaf, aggregate, flow, root, correction, scratch, wide, head_joint, response, leaf_push, meter_push, border,
        column, touch,
    )  # fmt: skip
