"""Where every meter reads: rows of readings laid out on the leaves and edges of a reduced tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.flow import ACTIVE, CURRENT, REACTIVE
from flexmeter.estimation.measurements import Meter, describe
from flexmeter.grid.model import PHASES
from flexmeter.powerflow.injections import is_aggregate
from flexmeter.powerflow.lanes import FloatArray, IntArray
from flexmeter.powerflow.network import Network
from flexmeter.powerflow.tree import Tree, reduce_network, with_metering_points

_KINDS = {"active_power": ACTIVE, "reactive_power": REACTIVE, "current": CURRENT}
_LEAF = {"active_power": 0, "reactive_power": 1, "voltage": 2}

Key = tuple[str, str, int, int, int]
"""Quantity, place (load, bus, upper or lower end of an edge), row of load or bus, phases."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Meters on a tree.

    Attributes
    ----------
    slot : (n_meter,) row of the combined readings; meters of the same quantity share one
    leaf_rows : (3, n_leaf) rows for P, Q, |V| of every leaf, -1 = none
    first_flow : (n_spine + 1,) branch meters of each spine bus; `flow_spine`, `flow_kind`, `flow_phase`, `flow_row`,
        `flow_sign` (n_flow,)
    load_injections, load_leaves : rows of the loads among all injections, and of their leaves
    aggregate_injections : rows of the aggregates among all injections; `aggregate_rows` of their voltages in `spine_v`
    """

    tree: Tree
    slot: IntArray
    n_slot: int
    leaf_rows: IntArray
    first_flow: IntArray
    flow_spine: IntArray
    flow_kind: IntArray
    flow_phase: IntArray
    flow_row: IntArray
    flow_sign: FloatArray
    load_injections: IntArray
    load_leaves: IntArray
    aggregate_injections: IntArray
    aggregate_rows: IntArray


def lay_out(network: Network, meters: Sequence[Meter]) -> Layout:
    """Return the layout of meters on a network, reduced as far as the meters allow.

    Raises
    ------
    MeasurementError
        meters at loads, buses, branches or phases that do not exist, or of a quantity that is not read there.
    """
    keys = [_key(network, meter) for meter in meters]
    bad = tuple(describe(meter) for meter, key in zip(meters, keys, strict=True) if key is None)
    if bad:
        text = "nothing of that kind in the network (load, bus, branch, phase, quantity)"
        raise MeasurementError([Finding("meter", bad, "id", text)], network.name)
    slots = {key: row for row, key in enumerate(dict.fromkeys(key for key in keys if key is not None))}
    slot = np.array([slots[key] for key in keys if key is not None], np.int64)
    tree = _tree(network, slots)
    flows = sorted((_flow(tree, network, key), row) for key, row in slots.items() if key[1] in {"lower", "upper"})
    spine = np.array([flow[0] for flow, _ in flows], np.int64)
    aggregates = [k for k, row in enumerate(network.injections) if is_aggregate(row[0])]
    loads = np.flatnonzero(tree.injection_leaf >= 0)
    heads = np.array([tree.bus_spine[bus] for _, bus in network.aggregates], np.int64)
    return Layout(
        tree=tree,
        slot=slot,
        n_slot=len(slots),
        leaf_rows=_leaf_rows(tree, slots),
        first_flow=np.searchsorted(spine, np.arange(tree.n_spine + 1)).astype(np.int64),
        flow_spine=spine,
        flow_kind=np.array([flow[1] for flow, _ in flows], np.int64),
        flow_phase=np.array([flow[2] for flow, _ in flows], np.int64),
        flow_row=np.array([row for _, row in flows], np.int64),
        flow_sign=np.array([flow[3] for flow, _ in flows], float),
        load_injections=loads,
        load_leaves=tree.injection_leaf[loads],
        aggregate_injections=np.array(aggregates, np.int64),
        aggregate_rows=(3 * heads[:, None] + np.arange(3)).ravel(),
    )


def _key(network: Network, meter: Meter) -> Key | None:
    if meter.at == "load":
        return _load_key(network, meter)
    if meter.at == "bus":
        return _bus_key(network, meter)
    return _flow_key(network, meter)


def _load_key(network: Network, meter: Meter) -> Key | None:
    row = network.injection_row.get((meter.id, meter.phase))
    if row is None or is_aggregate(meter.id) or meter.quantity == "current":
        return None
    return meter.quantity, "load", row, 0, 0


def _bus_key(network: Network, meter: Meter) -> Key | None:
    bus = network.bus_row.get(meter.id)
    phases = [PHASES.find(letter) for letter in meter.phase]
    have = all((meter.id, letter) in network.node_row for letter in meter.phase)
    if bus is None or not have or meter.quantity != "voltage" or not 1 <= len(phases) <= 2:
        return None
    return "voltage", "bus", bus, phases[0], phases[1] if len(phases) == 2 else -1


def _flow_key(network: Network, meter: Meter) -> Key | None:
    phase = PHASES.find(meter.phase) if len(meter.phase) == 1 else -1
    if meter.quantity == "voltage" or phase < 0:
        return None
    if meter.at == "head":
        return (meter.quantity, "lower", 0, phase, 1) if meter.id == network.head_bus else None
    if meter.id not in network.branch_row:
        return None
    bus = network.branch_row[meter.id]
    forward = network.forward[bus]
    end = "upper" if (meter.at == "branch_from") == forward else "lower"
    return meter.quantity, end, bus, phase, 1 if forward else -1


def _tree(network: Network, slots: dict[Key, int]) -> Tree:
    voltmeters = [key[2:] for key in slots if key[1] == "bus"]
    upper = [key[2] for key in slots if key[1] == "upper"]
    keep = [key[2] for key in slots if key[1] in {"lower", "upper"}] + [int(network.parent[bus]) for bus in upper]
    tree = reduce_network(network, keep, voltmeters, aggregate_leaves=False)
    return with_metering_points(tree, [int(tree.bus_spine[bus]) for bus in upper]) if upper else tree


def _flow(tree: Tree, network: Network, key: Key) -> tuple[int, int, int, int]:
    """Return spine row, kind, phase and sign of a branch meter."""
    quantity, end, bus, phase, sign = key
    spine = int(tree.bus_spine[bus]) - (1 if end == "upper" else 0)
    return spine, _KINDS[quantity], phase, 1 if quantity == "current" else sign


def _leaf_rows(tree: Tree, slots: dict[Key, int]) -> IntArray:
    rows = np.full((3, tree.n_leaf), -1, np.int64)
    loose = {}
    for leaf in np.flatnonzero(tree.leaf_injection < 0):
        spine = int(np.searchsorted(tree.first_leaf, leaf, side="right")) - 1
        loose[int(tree.bus[spine]), int(tree.leaf_plus[leaf]), int(tree.leaf_minus[leaf])] = leaf
    for key, row in slots.items():
        if key[1] == "bus":
            rows[2, loose[key[2:]]] = row
        elif key[1] == "load":
            rows[_LEAF[key[0]], tree.injection_leaf[key[2]]] = row
    return rows
