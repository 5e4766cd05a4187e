"""Where every meter reads: rows of readings laid out on the leaves and edges of a reduced tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.flow import (
    ACTIVE,
    CURRENT,
    CURRENT_ANGLE,
    CURRENT_IMAGINARY,
    CURRENT_REAL,
    REACTIVE,
    VOLTAGE_ANGLE,
    VOLTAGE_IMAGINARY,
    VOLTAGE_REAL,
)
from flexmeter.estimation.measurements import Meter, describe
from flexmeter.estimation.ties import Ties, tie, without_loops
from flexmeter.grid.model import PHASES
from flexmeter.powerflow.injections import is_aggregate
from flexmeter.powerflow.lanes import FloatArray, IntArray
from flexmeter.powerflow.network import Network
from flexmeter.powerflow.tree import Tree, reduce_network, with_metering_points

_KINDS = {
    "active_power": ACTIVE,
    "reactive_power": REACTIVE,
    "current": CURRENT,
    "current_real": CURRENT_REAL,
    "current_imaginary": CURRENT_IMAGINARY,
    "current_angle": CURRENT_ANGLE,
    "voltage_real": VOLTAGE_REAL,
    "voltage_imaginary": VOLTAGE_IMAGINARY,
    "voltage_angle": VOLTAGE_ANGLE,
}
_PHASORS = ("voltage_real", "voltage_imaginary", "voltage_angle")
"""Of a voltage; read on the edge into its bus, as everything else but magnitudes is."""
_LEAF = {"active_power": 0, "reactive_power": 1, "voltage": 2}

Key = tuple[str, str, int, int, int, int]
"""Quantity, place (load, bus, phasor, upper or lower end of an edge), row of load or bus, phase, other phase (-1: none)
and sign or number of the meter: readings with equal keys are combined, which angles are not."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Meters on a tree.

    Attributes
    ----------
    network : what was laid out; the tree's own network has no loops, see `ties`
    ties : pairs of buses with one voltage
    slot : (n_meter,) row of the combined readings; meters of the same quantity share one
    leaf_rows : (3, n_leaf) rows for P, Q, |V| of every leaf, -1 = none
    first_flow : (n_spine + 1,) meters on the edge into each spine bus; `flow_spine`, `flow_kind`, `flow_phase`,
        `flow_minus` (a voltmeter's other phase, -1 = neutral), `flow_row`, `flow_sign` (n_flow,)
    load_injections, load_leaves : rows of the loads among all injections, and of their leaves
    aggregate_injections : rows of the aggregates among all injections; `aggregate_rows` of their voltages in `spine_v`
    """

    network: Network
    tree: Tree
    ties: Ties
    slot: IntArray
    n_slot: int
    leaf_rows: IntArray
    first_flow: IntArray
    flow_spine: IntArray
    flow_kind: IntArray
    flow_phase: IntArray
    flow_minus: IntArray
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
    opened, ends = without_loops(network)
    keys = [_key(opened, meter, number) for number, meter in enumerate(meters)]
    bad = tuple(describe(meter) for meter, key in zip(meters, keys, strict=True) if key is None)
    if bad:
        text = "nothing of that kind in the network (load, bus, branch, phase, quantity)"
        raise MeasurementError([Finding("meter", bad, "id", text)], network.name)
    slots = {key: row for row, key in enumerate(dict.fromkeys(key for key in keys if key is not None))}
    slot = np.array([slots[key] for key in keys if key is not None], np.int64)
    tree = _tree(opened, slots, [bus for end, loop in ends for bus in (end, loop.to_bus)])
    flows = sorted((_flow(tree, key), row) for key, row in slots.items() if key[1] not in {"load", "bus"})
    spine = np.array([flow[0] for flow, _ in flows], np.int64)
    aggregates = [k for k, row in enumerate(network.injections) if is_aggregate(row[0])]
    loads = np.flatnonzero(tree.injection_leaf >= 0)
    heads = np.array([tree.bus_spine[bus] for _, bus in network.aggregates], np.int64)
    return Layout(
        network=network,
        tree=tree,
        ties=tie(tree, ends),
        slot=slot,
        n_slot=len(slots),
        leaf_rows=_leaf_rows(tree, slots),
        first_flow=np.searchsorted(spine, np.arange(tree.n_spine + 1)).astype(np.int64),
        flow_spine=spine,
        flow_kind=np.array([flow[1] for flow, _ in flows], np.int64),
        flow_phase=np.array([flow[2] for flow, _ in flows], np.int64),
        flow_minus=np.array([flow[3] for flow, _ in flows], np.int64),
        flow_row=np.array([row for _, row in flows], np.int64),
        flow_sign=np.array([flow[4] for flow, _ in flows], float),
        load_injections=loads,
        load_leaves=tree.injection_leaf[loads],
        aggregate_injections=np.array(aggregates, np.int64),
        aggregate_rows=(3 * heads[:, None] + np.arange(3)).ravel(),
    )


def _key(network: Network, meter: Meter, number: int) -> Key | None:
    if meter.quantity in _PHASORS:
        return _phasor_key(network, meter, number)
    if meter.at == "load":
        return _load_key(network, meter) if meter.quantity in _LEAF else None
    if meter.at == "bus":
        return _bus_key(network, meter)
    return _flow_key(network, meter, number)


def _load_key(network: Network, meter: Meter) -> Key | None:
    row = network.injection_row.get((meter.id, meter.phase))
    if row is None or is_aggregate(meter.id):
        return None
    return meter.quantity, "load", row, 0, 0, 0


def _bus_key(network: Network, meter: Meter) -> Key | None:
    bus = network.bus_row.get(meter.id)
    phases = [PHASES.find(letter) for letter in meter.phase]
    have = all((meter.id, letter) in network.node_row for letter in meter.phase)
    if bus is None or not have or meter.quantity != "voltage" or not 1 <= len(phases) <= 2:
        return None
    return "voltage", "bus", bus, phases[0], phases[1] if len(phases) == 2 else -1, 0


def _phasor_key(network: Network, meter: Meter, number: int) -> Key | None:
    """Return the key of a voltage phasor: a load's terminals are its bus."""
    if meter.at == "load":
        row = network.injection_row.get((meter.id, meter.phase))
        if row is None or is_aggregate(meter.id):
            return None
        bus = int(network.injection_bus[row])
        phases = int(network.injection_plus[row]), int(network.injection_minus[row])
    else:
        magnitude = _bus_key(network, Meter("voltage", meter.at, meter.id, meter.phase)) if meter.at == "bus" else None
        if magnitude is None:
            return None
        bus, phases = magnitude[2], (magnitude[3], magnitude[4])
    return meter.quantity, "phasor", bus, *phases, _distinct(meter, number)


def _flow_key(network: Network, meter: Meter, number: int) -> Key | None:
    phase = PHASES.find(meter.phase) if len(meter.phase) == 1 else -1
    if meter.quantity == "voltage" or phase < 0:
        return None
    if meter.at == "head":
        sign = _distinct(meter, number) + 1
        return (meter.quantity, "lower", 0, phase, -1, sign) if meter.id == network.head_bus else None
    if meter.id not in network.branch_row or meter.phase not in network.branch_phases[meter.id]:
        return None
    bus = network.branch_row[meter.id]
    forward = network.branch_forward[meter.id]
    end = "upper" if (meter.at == "branch_from") == forward else "lower"
    sign = _distinct(meter, number) + 1
    return meter.quantity, end, bus, phase, -1, sign if forward else -sign


def _distinct(meter: Meter, number: int) -> int:
    """Return what keeps the readings of two meters apart: a mean of angles is not an angle."""
    return number if meter.quantity.endswith("_angle") else 0


def _tree(network: Network, slots: dict[Key, int], tied: list[int]) -> Tree:
    voltmeters = [key[2:5] for key in slots if key[1] == "bus"]
    upper = [key[2] for key in slots if key[1] == "upper"]
    keep = [key[2] for key in slots if key[1] in {"lower", "upper", "phasor"}]
    keep += [int(network.parent[bus]) for bus in upper] + tied
    tree = reduce_network(network, keep, voltmeters, aggregate_leaves=False)
    return with_metering_points(tree, [int(tree.bus_spine[bus]) for bus in upper]) if upper else tree


def _flow(tree: Tree, key: Key) -> tuple[int, int, int, int, int]:
    """Return spine row, kind, phase, other phase and sign of a meter on an edge."""
    quantity, end, bus, phase, minus, sign = key
    spine = int(tree.bus_spine[bus]) - (1 if end == "upper" else 0)
    turned = end != "phasor" and quantity != "current" and sign < 0
    return spine, _KINDS[quantity], phase, minus, -1 if turned else 1


def _leaf_rows(tree: Tree, slots: dict[Key, int]) -> IntArray:
    rows = np.full((3, tree.n_leaf), -1, np.int64)
    loose = {}
    for leaf in np.flatnonzero(tree.leaf_injection < 0):
        spine = int(np.searchsorted(tree.first_leaf, leaf, side="right")) - 1
        loose[int(tree.bus[spine]), int(tree.leaf_plus[leaf]), int(tree.leaf_minus[leaf])] = leaf
    for key, row in slots.items():
        if key[1] == "bus":
            rows[2, loose[key[2:5]]] = row
        elif key[1] == "load":
            rows[_LEAF[key[0]], tree.injection_leaf[key[2]]] = row
    return rows


def combine(slot: IntArray, value: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the readings with those of a slot combined: weighted mean; the smallest sigma allowed for is 1e-9."""
    weight = np.where(np.isnan(value), 0.0, 1 / np.maximum(sigma, 1e-9) ** 2)
    total, moment = np.zeros((2, int(slot.max()) + 1, value.shape[1]))
    np.add.at(total, slot, weight)
    np.add.at(moment, slot, weight * np.nan_to_num(value))
    with np.errstate(invalid="ignore", divide="ignore"):
        return moment / total, 1 / np.sqrt(total)


def places_of(layout: Layout, slots: Sequence[int]) -> tuple[IntArray, IntArray, IntArray, IntArray, FloatArray]:
    """Return for rows of combined readings spine bus, meter on its edge (or -1), leaf, which quantity, sign."""
    flow_of = {int(row): flow for flow, row in enumerate(layout.flow_row)}
    leaf_of = {int(row): (leaf, part) for part, rows in enumerate(layout.leaf_rows) for leaf, row in enumerate(rows)}
    bus_of = np.repeat(np.arange(layout.tree.n_spine), np.diff(layout.tree.first_leaf))
    places, signs = [], []
    for slot in slots:
        if slot in flow_of:
            flow = flow_of[slot]
            places.append((int(layout.flow_spine[flow]), flow, -1, 0))
            signs.append(1.0 if layout.flow_kind[flow] == CURRENT_ANGLE else float(layout.flow_sign[flow]))
        else:
            leaf, part = leaf_of[slot]
            places.append((int(bus_of[leaf]), -1, leaf, part))
            signs.append(1.0)
    bus, flows, leaves, parts = np.array(places, np.int64).reshape(-1, 4).T.copy()
    return bus, flows, leaves, parts, np.array(signs)
