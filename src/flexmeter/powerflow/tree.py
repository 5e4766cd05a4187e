"""The reduced tree that kernels run on: a spine of three-phase buses and one-phase leaves.

Only what shapes the solution stays: a bus with one injection behind it becomes a leaf with the series impedance of its
phase on the way, a bus where nothing branches off disappears into its edge, a dead end disappears altogether. The map
back to every bus is exact: V_bus = V_spine - X J with J the current of the edge or leaf the bus lies on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from flexmeter.powerflow.injections import is_aggregate
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
    leaves = _load_leaves(network, shape, place, aggregate_leaves)
    leaves += [(int(row[bus]), -1, plus, minus, 0j) for bus, plus, minus in meters]
    leaves.sort(key=lambda leaf: leaf[0])
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
        n = len(network.bus_ids)
        loads = np.array([row for row, name in enumerate(network.injections) if not is_aggregate(name[0])], np.int64)
        direct = np.bincount(network.injection_bus[loads], minlength=n)
        below, kept = direct.copy(), fixed.copy()
        for k in range(n - 1, 0, -1):
            below[network.parent[k]] += below[k]
            kept[network.parent[k]] |= kept[k]
        self.live = (below > 0) | kept
        self.is_leaf = (below == 1) & ~kept
        branching = direct + np.bincount(network.parent[1:][self.live[1:]], minlength=n)
        self.on_spine = fixed | (self.live & ~self.is_leaf & ((direct > 0) | (branching > 1)))
        self.injection_below = np.full(n, -1, np.int64)
        self.injection_below[network.injection_bus[loads]] = loads
        for k in range(n - 1, 0, -1):
            if self.is_leaf[k]:
                up = network.parent[k]
                self.injection_below[up] = max(self.injection_below[up], self.injection_below[k])


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
    place = _Place(
        spine=np.full(n, -1, np.int64),
        edge_bus=np.full(n, -1, np.int64),
        leaf=np.full(n, -1, np.int64),
        x=np.zeros((n, 3, 3), complex),
        flow_bus=np.full(n, -1, np.int64),
        flow_leaf=np.full(n, -1, np.int64),
    )
    lower = _lower_ends(network, shape)
    place.spine[0] = 0
    for k in range(1, n):
        up = network.parent[k]
        if shape.on_spine[k]:
            place.spine[k] = row[k]
            place.flow_bus[k] = k
            continue
        place.spine[k], place.edge_bus[k] = place.spine[up], place.edge_bus[up]
        place.leaf[k], place.x[k] = place.leaf[up], place.x[up]
        if not shape.live[k]:
            continue  # a dead end carries no current
        if shape.is_leaf[k]:
            own = shape.injection_below[k]
            place.leaf[k] = place.flow_leaf[k] = own
            place.edge_bus[k] = -1
            place.x[k] = place.x[k] + _leaf_columns(network, own, network.impedance[k])
        else:
            place.edge_bus[k] = place.flow_bus[k] = lower[k]
            place.x[k] = place.x[k] + network.impedance[k]
    return place


def _lower_ends(network: Network, shape: _Shape) -> IntArray:
    """Return for each collapsed series bus the spine bus its edge ends at."""
    lower = np.full(len(network.bus_ids), -1, np.int64)
    for k in range(len(network.bus_ids) - 1, 0, -1):
        if shape.on_spine[k]:
            lower[k] = k
        up = network.parent[k]
        if lower[k] >= 0 and not shape.on_spine[up]:
            lower[up] = lower[k]
    return lower


def _leaf_columns(network: Network, injection: int, z: ComplexArray) -> ComplexArray:
    """Return (3, 3) whose first column times the leaf current is the voltage drop of all phases."""
    column = z[:, network.injection_plus[injection]].copy()
    if network.injection_minus[injection] >= 0:
        column -= z[:, network.injection_minus[injection]]
    result = np.zeros((3, 3), complex)
    result[:, 0] = column
    return result


_Leaf = tuple[int, int, int, int, complex]


def _load_leaves(network: Network, shape: _Shape, place: _Place, aggregates: bool) -> list[_Leaf]:
    leaves = []
    for k, (name, _) in enumerate(network.injections):
        if is_aggregate(name) and not aggregates:
            continue
        bus, plus, minus = (int(a[k]) for a in (network.injection_bus, network.injection_plus, network.injection_minus))
        z = 0j
        if shape.is_leaf[bus]:
            column = place.x[bus][:, 0]
            z = complex(column[plus] - (column[minus] if minus >= 0 else 0))
        leaves.append((int(place.spine[bus]), k, plus, minus, z))
    return leaves


def _arrays(network: Network, spine: IntArray, row: IntArray, place: _Place, leaves: list[_Leaf]) -> Tree:
    n = len(spine)
    impedance = np.zeros((n, 3, 3), complex)
    parent = np.full(n, -1, np.int64)
    for k in range(1, n):
        up = network.parent[spine[k]]
        parent[k] = place.spine[up]
        impedance[k] = place.x[up] + network.impedance[spine[k]]
    leaf_rows = np.array([leaf[1] for leaf in leaves], np.int64)
    injection_leaf = np.full(len(network.injections), -1, np.int64)
    has_injection = leaf_rows >= 0
    injection_leaf[leaf_rows[has_injection]] = np.flatnonzero(has_injection)
    transfer, shunt = network.transfer[spine], network.shunt[spine]
    at = np.array([leaf[0] for leaf in leaves], np.int64)
    return Tree(
        network=network,
        bus=spine,
        parent=parent,
        impedance=real_form(impedance),
        transfer=real_form(transfer),
        shunt=real_form(shunt),
        has_transfer=np.any(transfer != np.eye(3), axis=(1, 2)).astype(np.int64),
        has_shunt=np.any(shunt, axis=(1, 2)).astype(np.int64),
        first_leaf=np.searchsorted(at, np.arange(n + 1)).astype(np.int64),
        leaf_injection=leaf_rows,
        leaf_plus=np.array([leaf[2] for leaf in leaves], np.int64),
        leaf_minus=np.array([leaf[3] for leaf in leaves], np.int64),
        leaf_z=np.array([[leaf[4].real, leaf[4].imag] for leaf in leaves], float).reshape(-1, 2),
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
