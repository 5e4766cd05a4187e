"""The reduced tree that kernels run on: a spine of three-phase buses and one-phase leaves.

Only what shapes the solution stays: a bus with one injection behind it becomes a leaf with the series impedance of its
phase on the way, a bus where nothing branches off disappears into its edge, a dead end disappears altogether. The map
back to every bus is exact: V_bus = V_spine - X J with J the current of the edge or leaf the bus lies on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from flexmeter.powerflow.lanes import ComplexArray, FloatArray, IntArray
from flexmeter.powerflow.network import Network


@dataclass(frozen=True, eq=False)
class Tree:
    """Arrays for the kernels; spine positions are parents first, leaves sorted by spine bus.

    Attributes
    ----------
    bus : (n_spine,) position of the spine bus in the network
    parent : (n_spine,) upstream spine position, -1 at the root
    impedance, transfer, shunt : (n_spine, 6, 6) real form of Z [ohm], T, Y [S] (phase, re/im)
    has_transfer, has_shunt : (n_spine,) whether T is not the identity, whether Y is not zero
    first_leaf : (n_spine + 1,) leaves of spine k are first_leaf[k] .. first_leaf[k + 1]
    leaf_injection : (n_leaf,) row of its injection, -1 for a voltmeter-only leaf
    leaf_plus, leaf_minus : (n_leaf,) phases between which the leaf hangs, minus = -1 for the neutral
    leaf_z : (n_leaf, 2) its series resistance and reactance [ohm]
    injection_leaf : (n_injection,) row of its leaf, -1 for aggregates
    bus_spine : (n_bus,) spine position a bus hangs on
    bus_edge : (n_bus,) spine position of the edge, or n_spine + leaf, whose current passes the bus; -1 = none
    bus_x : (n_bus, 3, 3) X [ohm]; for a leaf only the first column counts
    branch_edge : (n_bus,) the edge or leaf whose current flows in the branch to the parent, -1 = none
    """

    network: Network
    bus: IntArray
    parent: IntArray
    impedance: FloatArray
    transfer: FloatArray
    shunt: FloatArray
    has_transfer: IntArray
    has_shunt: IntArray
    first_leaf: IntArray
    leaf_injection: IntArray
    leaf_plus: IntArray
    leaf_minus: IntArray
    leaf_z: FloatArray
    injection_leaf: IntArray
    bus_spine: IntArray
    bus_edge: IntArray
    bus_x: ComplexArray
    branch_edge: IntArray

    @property
    def n_spine(self) -> int:
        """Number of three-phase buses."""
        return len(self.bus)

    @property
    def n_leaf(self) -> int:
        """Number of one-phase leaves."""
        return len(self.leaf_injection)


def real_form(matrix: ComplexArray) -> FloatArray:
    """Return complex matrices (..., 3, 3) as real (..., 6, 6) acting on (phase, re/im) vectors."""
    result = np.empty((*matrix.shape[:-2], 6, 6))
    result[..., 0::2, 0::2] = result[..., 1::2, 1::2] = matrix.real
    result[..., 1::2, 0::2] = matrix.imag
    result[..., 0::2, 1::2] = -matrix.imag
    return result


@cache
def unturned(n: int) -> FloatArray:
    """Return (n, 6, 6) identities: the transfer of all trees of n buses without transformers, in memory once."""
    return np.tile(np.eye(6), (n, 1, 1))


@cache
def unshunted(n: int) -> FloatArray:
    """Return (n, 6, 6) zeros: the shunts of all trees of n buses that have none, in memory once."""
    return np.zeros((n, 6, 6))


def reduce_network(
    network: Network,
    keep: Iterable[int] = (),
    voltmeters: Iterable[tuple[int, int, int]] = (),
    *,
    aggregate_leaves: bool = True,
) -> Tree:
    """Return the reduced tree of a network.

    Parameters
    ----------
    keep : bus positions that must stay on the spine (something is measured or injected there)
    aggregate_leaves : whether aggregates hang on their bus as leaves, one per phase (load flow), or not at all
    voltmeters : (bus position, plus, minus phase) of voltmeters without an injection: leaves without current
    """
    meters = list(voltmeters)
    fixed = _fixed(network, [*keep, *(bus for bus, _, _ in meters)])
    shape = _Shape(network, fixed)
    spine = np.flatnonzero(shape.on_spine)
    row = np.full(len(network.bus_ids), -1, np.int64)
    row[spine] = np.arange(len(spine))
    place = _place(network, shape, row)
    count = len(network.injections) if aggregate_leaves else _load_count(network)
    leaves = _leaves(network, shape, place, meters, row, count)
    return _arrays(network, spine, row, place, leaves)


def _fixed(network: Network, keep: list[int]) -> np.ndarray:
    fixed = np.zeros(len(network.bus_ids), bool)
    fixed[0] = True
    fixed[list(keep)] = True
    fixed[[bus for _, bus in network.aggregates]] = True
    fixed |= np.any(network.shunt, axis=(1, 2))
    turned = np.any(network.transfer != np.eye(3), axis=(1, 2))
    fixed |= turned
    fixed[network.parent[turned]] = True
    for loop in network.loops:
        fixed[[loop.from_bus, loop.to_bus]] = True
    return fixed


class _Shape:
    """What lies below each bus, and which buses are on the spine."""

    def __init__(self, network: Network, fixed: np.ndarray) -> None:
        n, loads = len(network.bus_ids), _load_count(network)
        at = network.injection_bus[:loads]
        direct = np.bincount(at, minlength=n)
        parent, below, kept = network.parent.tolist(), direct.tolist(), fixed.tolist()
        for k in range(n - 1, 0, -1):
            below[parent[k]] += below[k]
            kept[parent[k]] |= kept[k]
        several, holds = np.array(below), np.array(kept, bool)
        self.live = (several > 0) | holds
        self.is_leaf = (several == 1) & ~holds
        branching = direct + np.bincount(network.parent[1:][self.live[1:]], minlength=n)
        self.on_spine = fixed | (self.live & ~self.is_leaf & ((direct > 0) | (branching > 1)))
        own = np.full(n, -1, np.int64)
        own[at] = np.arange(loads)
        found = own.tolist()
        for k in (np.flatnonzero(self.is_leaf)[::-1]).tolist():
            up = parent[k]
            found[up] = max(found[up], found[k])
        self.injection_below = np.array(found, np.int64)


def _load_count(network: Network) -> int:
    """Return how many injections are loads: they come before the aggregates, three of each area."""
    return len(network.injections) - 3 * len(network.aggregates)


@dataclass
class _Place:
    spine: IntArray
    edge_bus: IntArray  # spine bus at the lower end of the edge the bus lies on, -1 none
    leaf: IntArray  # injection row whose leaf path the bus lies on, -1 none
    x: ComplexArray
    flow_bus: IntArray  # as edge_bus, for the branch to the parent
    flow_leaf: IntArray


def _place(network: Network, shape: _Shape, row: IntArray) -> _Place:
    n = len(network.bus_ids)
    lower = _lower_ends(network, shape)
    parent, on_spine = network.parent.tolist(), shape.on_spine
    carries = shape.live & ~on_spine  # a dead end carries no current
    spine, leaf = np.where(on_spine, row, -1).tolist(), np.where(carries & shape.is_leaf, shape.injection_below, -1)
    edge = np.where(carries & ~shape.is_leaf, lower, -1)
    flow_bus, flow_leaf = np.where(on_spine, np.arange(n), edge), leaf.copy()
    flow_bus[0] = -1
    x = np.zeros((n, 3, 3), complex)
    x[edge >= 0] = network.impedance[edge >= 0]
    own = np.flatnonzero(leaf >= 0)
    x[own, :, 0] = _leaf_columns(network, leaf[own], network.impedance[own])
    on_leaf, on_edge, live = leaf.tolist(), edge.tolist(), shape.live.tolist()
    for k in np.flatnonzero(~on_spine).tolist():
        up = parent[k]
        spine[k] = spine[up]
        if not live[k]:
            on_leaf[k], on_edge[k] = on_leaf[up], on_edge[up]
        if not on_spine[up]:
            x[k] += x[up]
    return _Place(
        spine=np.array(spine, np.int64),
        edge_bus=np.array(on_edge, np.int64),
        leaf=np.array(on_leaf, np.int64),
        x=x,
        flow_bus=flow_bus,
        flow_leaf=flow_leaf,
    )


def _lower_ends(network: Network, shape: _Shape) -> IntArray:
    """Return for each collapsed series bus the spine bus its edge ends at."""
    n, parent, on_spine = len(network.bus_ids), network.parent.tolist(), shape.on_spine.tolist()
    lower = np.where(shape.on_spine, np.arange(n), -1).tolist()
    for k in range(n - 1, 0, -1):
        if lower[k] >= 0 and not on_spine[parent[k]]:
            lower[parent[k]] = lower[k]
    return np.array(lower, np.int64)


def _leaf_columns(network: Network, injection: IntArray, z: ComplexArray) -> ComplexArray:
    """Return (n, 3) that times the leaf currents are the voltage drops of all phases along impedances z (n, 3, 3)."""
    each, plus, minus = np.arange(len(z)), network.injection_plus[injection], network.injection_minus[injection]
    column = z[each, :, plus]
    between = minus >= 0
    column[between] -= z[each, :, minus][between]
    return np.asarray(column)


@dataclass
class _Leaves:
    spine: IntArray
    injection: IntArray
    plus: IntArray
    minus: IntArray
    z: ComplexArray


def _leaves(
    network: Network, shape: _Shape, place: _Place, meters: Sequence[tuple[int, int, int]], row: IntArray, count: int
) -> _Leaves:
    """Return the leaves of the first `count` injections and of the voltmeters, by spine bus."""
    bus, plus, minus = (
        array[:count] for array in (network.injection_bus, network.injection_plus, network.injection_minus)
    )
    column, each = place.x[bus][:, :, 0], np.arange(count)
    z = column[each, plus] - np.where(minus >= 0, column[each, minus], 0.0)
    z[~shape.is_leaf[bus]] = 0.0
    at, one, other = np.array(meters, np.int64).reshape(-1, 3).T
    spine = np.concatenate([place.spine[bus], row[at]])
    order = np.argsort(spine, kind="stable")
    return _Leaves(
        spine=spine[order],
        injection=np.concatenate([each, np.full(len(at), -1)])[order],
        plus=np.concatenate([plus, one])[order],
        minus=np.concatenate([minus, other])[order],
        z=np.concatenate([z, np.zeros(len(at))])[order],
    )


def _arrays(network: Network, spine: IntArray, row: IntArray, place: _Place, leaves: _Leaves) -> Tree:
    n, up = len(spine), network.parent[spine]
    parent, impedance = place.spine[up], place.x[up] + network.impedance[spine]
    parent[0], impedance[0] = -1, 0.0
    injection_leaf = np.full(len(network.injections), -1, np.int64)
    injection_leaf[leaves.injection[leaves.injection >= 0]] = np.flatnonzero(leaves.injection >= 0)
    transfer, shunt = network.transfer[spine], network.shunt[spine]
    turned, shunted = np.any(transfer != np.eye(3), axis=(1, 2)), np.any(shunt, axis=(1, 2))
    return Tree(
        network=network,
        bus=spine,
        parent=parent,
        impedance=real_form(impedance),
        transfer=real_form(transfer) if turned.any() else unturned(n),
        shunt=real_form(shunt) if shunted.any() else unshunted(n),
        has_transfer=turned.astype(np.int64),
        has_shunt=shunted.astype(np.int64),
        first_leaf=np.searchsorted(leaves.spine, np.arange(n + 1)).astype(np.int64),
        leaf_injection=leaves.injection,
        leaf_plus=leaves.plus,
        leaf_minus=leaves.minus,
        leaf_z=np.column_stack([leaves.z.real, leaves.z.imag]),
        injection_leaf=injection_leaf,
        bus_spine=place.spine,
        bus_edge=_edges(place.edge_bus, place.leaf, row, injection_leaf, n),
        bus_x=place.x,
        branch_edge=_edges(place.flow_bus, place.flow_leaf, row, injection_leaf, n),
    )


def _edges(bus: IntArray, leaf: IntArray, row: IntArray, injection_leaf: IntArray, n_spine: int) -> IntArray:
    result = np.full(len(bus), -1, np.int64)
    result[bus >= 0] = row[bus[bus >= 0]]
    result[leaf >= 0] = n_spine + injection_leaf[leaf[leaf >= 0]]
    return result


def with_metering_points(tree: Tree, edges: Iterable[int]) -> Tree:
    """Return the tree with an extra spine bus at the upper end of some edges (rows of their lower buses).

    The edge of an extra bus has no impedance, so its voltage is the parent's and its current the edge's: what a meter
    at the upper end of a branch, or before a transformer, reads.
    """
    chosen = sorted(set(edges))
    extra = np.zeros(tree.n_spine, bool)
    extra[chosen] = True
    new = np.arange(tree.n_spine) + np.cumsum(extra)  # rows of the old buses
    source = np.sort(np.concatenate([np.arange(tree.n_spine), chosen])).astype(np.int64)
    is_extra = np.ones(len(source), bool)
    is_extra[new] = False
    parent = np.where(tree.parent[source] < 0, -1, new[tree.parent[source]])
    parent[new[extra]] = new[extra] - 1

    def blocks(array: FloatArray, filler: FloatArray) -> FloatArray:
        result = array[source].copy()
        result[is_extra] = filler
        return result

    def edge(rows: IntArray) -> IntArray:
        moved = np.where(rows >= tree.n_spine, rows + len(chosen), new[np.minimum(rows, tree.n_spine - 1)])
        return np.where(rows < 0, -1, moved).astype(np.int64)

    return replace(
        tree,
        bus=np.where(is_extra, tree.bus[tree.parent[source]], tree.bus[source]),
        parent=parent.astype(np.int64),
        impedance=blocks(tree.impedance, np.zeros((6, 6))),
        transfer=blocks(tree.transfer, np.eye(6)),
        shunt=blocks(tree.shunt, np.zeros((6, 6))),
        has_transfer=np.where(is_extra, 0, tree.has_transfer[source]),
        has_shunt=np.where(is_extra, 0, tree.has_shunt[source]),
        first_leaf=np.append(tree.first_leaf[source], tree.first_leaf[-1]),
        bus_spine=new[tree.bus_spine],
        bus_edge=edge(tree.bus_edge),
        branch_edge=edge(tree.branch_edge),
    )
