"""What the kernel knows of a network and its meters, and where everything lies in its work array."""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.estimation.aggregate import AGGREGATE
from flexmeter.estimation.correction import CORRECTION
from flexmeter.estimation.flow import FLOW
from flexmeter.estimation.leaf import LEAF
from flexmeter.estimation.places import BUS, SCRATCH
from flexmeter.estimation.root import ROOT
from flexmeter.powerflow.lanes import LANES, FloatArray, IntArray, inlined


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
