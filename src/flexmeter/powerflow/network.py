"""The electrical model of a grid under one switch status vector: what load flow and estimation compute on.

`compile_network` turns components with ids into frozen arrays: a tree of buses (parents first) whose edges carry a
3x3 series impedance and, for transformers, a transfer matrix:

    V_child = T V_parent - Z J        J_parent_side = T^H J        (J: current into the child's subtree)

Closed branches outside the tree are `Loop`s. Injections (loads per phase, and the aggregates that stand for areas
below) are one flat list without padding, nodes are a flat list of (bus, phase).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flexmeter.errors import Finding, GridError, NotRadial
from flexmeter.grid.impedance import sequence_to_phase
from flexmeter.grid.model import PHASES, Grid, Symmetry
from flexmeter.grid.topology import Branch
from flexmeter.powerflow.edges import UNTURNED, Edges, Upstream, depth_first
from flexmeter.powerflow.injections import list_injections
from flexmeter.powerflow.lanes import ComplexArray, FloatArray, IntArray

NOTHING = np.zeros((3, 3), np.complex128)


@dataclass(frozen=True)
class Loop:
    """A closed branch outside the tree between two buses (positions): V_to = T V_from - Z x, x its current.

    `phases` are those it connects; in the others no current flows and the two voltages have nothing to do with each
    other.
    """

    branch: str
    from_bus: int
    to_bus: int
    phases: str
    transfer: ComplexArray
    impedance: ComplexArray


@dataclass(frozen=True, eq=False)
class Network:
    """A grid or area as frozen arrays, buses parents first (position 0 is the head or source bus).

    Attributes
    ----------
    name : grid id, and area id if it is one
    bus_ids : ids by position; `nominal_v` (n_bus,) phase-to-earth nominal voltage [V]
    parent : (n_bus,) position of the upstream bus, -1 at the head
    branch_ids : (n_bus,) branch to the parent, "" at the head
    forward : (n_bus,) whether the branch's own from-side is the parent
    transfer, impedance, shunt : (n_bus, 3, 3) T [-], Z [ohm] of the edge, admittance to earth at the bus [S]
    nodes : (bus id, phase) of every phase that exists, in file order; `node_bus`, `node_phase` their positions
    injections : (load id, phase or phase pair), then (aggregate:area id, phase); positions in `injection_bus`,
        `injection_plus` and `injection_minus` (-1 = neutral)
    power_w, power_var : (n_injection,) default power of each injection
    zip : (n_injection, 3) shares of constant impedance, current, power; `load_v` (n_injection,) its nominal
        voltage [V]; `v_min_pu`, `v_max_pu` (n_injection,) limits of the load model
    aggregates : (area id, bus position) of the areas below that are modelled as aggregates
    loops : closed branches outside the tree
    source_v : (3,) complex default voltage of the source [V]; `source_impedance` (3, 3) behind it [ohm]
    symmetry : what is known of the head voltages, see `grid.Source`; `free` at the head of an area
    parallel : (branch id, position of its lower bus, whether its from-side is the parent) of further branches in an
        edge, each with phases of its own: `branch_ids` and `forward` tell the first one's
    branch_phases : phases of every branch in the network, closed loops included
    """

    name: str
    bus_ids: tuple[str, ...]
    nominal_v: FloatArray
    parent: IntArray
    branch_ids: tuple[str, ...]
    forward: tuple[bool, ...]
    transfer: ComplexArray
    impedance: ComplexArray
    shunt: ComplexArray
    nodes: tuple[tuple[str, str], ...]
    node_bus: IntArray
    node_phase: IntArray
    injections: tuple[tuple[str, str], ...]
    injection_bus: IntArray
    injection_plus: IntArray
    injection_minus: IntArray
    power_w: FloatArray
    power_var: FloatArray
    zip: FloatArray
    load_v: FloatArray
    v_min_pu: FloatArray
    v_max_pu: FloatArray
    aggregates: tuple[tuple[str, int], ...]
    loops: tuple[Loop, ...]
    source_v: ComplexArray
    source_impedance: ComplexArray
    symmetry: Symmetry
    parallel: tuple[tuple[str, int, bool], ...]
    branch_phases: dict[str, str]

    @property
    def head_bus(self) -> str:
        """Id of the bus at the root."""
        return self.bus_ids[0]

    @cached_property
    def node_row(self) -> dict[tuple[str, str], int]:
        """Row of each (bus id, phase) in all node arrays."""
        return {name: row for row, name in enumerate(self.nodes)}

    @cached_property
    def injection_row(self) -> dict[tuple[str, str], int]:
        """Row of each (load id, phase) in all injection arrays."""
        return {name: row for row, name in enumerate(self.injections)}

    @cached_property
    def bus_row(self) -> dict[str, int]:
        """Position of each bus."""
        return {name: row for row, name in enumerate(self.bus_ids)}

    @cached_property
    def branch_row(self) -> dict[str, int]:
        """Position of the bus at the lower end of each branch of the tree."""
        rows = {name: row for row, name in enumerate(self.branch_ids) if name}
        return rows | {name: row for name, row, _ in self.parallel}

    @cached_property
    def branch_forward(self) -> dict[str, bool]:
        """Whether the from-side of each branch of the tree is its upper end."""
        ways = {name: way for name, way in zip(self.branch_ids, self.forward, strict=True) if name}
        return ways | {name: way for name, _, way in self.parallel}

    @cached_property
    def injection_nodes(self) -> tuple[IntArray, IntArray]:
        """(n_injection,) node rows between which each injection hangs, -1 for the neutral."""
        row = np.full((len(self.bus_ids), 3), -1, np.int64)
        row[self.node_bus, self.node_phase] = np.arange(len(self.nodes))
        minus = np.where(self.injection_minus < 0, -1, row[self.injection_bus, self.injection_minus])
        return row[self.injection_bus, self.injection_plus], minus


def compile_network(grid: Grid, switches: tuple[bool, ...] | None = None, *, area: str | None = None) -> Network:
    """Return the network of a grid under a switch status vector (default: the grid's own), whole or one area's.

    An area's network holds the buses with that `Bus.area`, its head bus, and the head buses of the areas directly
    below, where the latter enter as aggregate injections (paper section 4). A load belongs to the area of its bus.
    Without `area` the whole grid is one network and areas play no part.

    Raises
    ------
    GridError
        no source or several, a transformer fed backwards that cannot be.
    NotRadial
        buses that nothing supplies.
    """
    members = _members(grid, area)
    head = _head_bus(grid, area)
    edges = Edges(grid, switches, members)
    order, upstream, loops = edges.tree(head)
    lost = tuple(bus for bus in members if bus not in upstream)
    if lost:
        raise NotRadial(f"grid {grid.id}: no source reaches {', '.join(lost[:6])} with all phases")
    return _assemble(grid, area, members, order, upstream, loops, edges)


def _members(grid: Grid, area: str | None) -> tuple[str, ...]:
    if area is None:
        return tuple(bus.id for bus in grid.buses)
    heads = {item.head_bus for item in grid.areas if area in (item.id, item.parent)}
    if not any(item.id == area for item in grid.areas):
        raise GridError([Finding("area", (area,), "id", "is not in the grid")], f"grid {grid.id}")
    return tuple(bus.id for bus in grid.buses if bus.area == area or bus.id in heads)


def _head_bus(grid: Grid, area: str | None) -> str:
    if area is not None:
        return next(item.head_bus for item in grid.areas if item.id == area)
    if len(grid.sources) != 1:
        ids = tuple(source.id for source in grid.sources)
        raise GridError([Finding("source", ids, "bus", f"{len(ids)} sources, expected one")], f"grid {grid.id}")
    return grid.sources[0].bus


def _assemble(
    grid: Grid,
    area: str | None,
    members: tuple[str, ...],
    order: list[str],
    upstream: Upstream,
    loops: list[Branch],
    edges: Edges,
) -> Network:
    order = depth_first(order, upstream)
    position = {bus: k for k, bus in enumerate(order)}
    n = len(order)
    transfer: dict[int, ComplexArray] = {}
    impedance = np.zeros((n, 3, 3), complex)
    shunt: dict[int, ComplexArray] = {}
    parent = np.full(n, -1, np.int64)
    names, forward = [""] * n, [True] * n
    parallel: list[tuple[str, int, bool]] = []
    for k, bus in enumerate(order[1:], 1):
        up, edge = upstream[bus]
        assert edge is not None
        branch, *beside = edge.branches
        parent[k], names[k], forward[k] = position[up], branch.id, branch.from_bus == up
        parallel += [(other.id, k, other.from_bus == up) for other in beside]
        turn, impedance[k] = edges.edge_matrices(edge, up)
        if turn is not UNTURNED:
            transfer[k] = turn
    inside = [branch for edge in edges.all for branch in edge.branches]
    for branch in inside:
        for bus, y in edges.shunts(branch):
            shunt[position[bus]] = shunt.get(position[bus], 0.0) + y
    for item in grid.shunts:
        if item.bus in position:
            y = _shunt_admittance(item.phases, item.g_s, item.b_s)
            shunt[position[item.bus]] = shunt.get(position[item.bus], 0.0) + y
    nodes = [(bus, phase) for bus in members for phase in edges.buses[bus].phases]
    nominal = np.array([edges.buses[bus].voltage_v for bus in order]) / np.sqrt(3)
    source_v, source_z = _source(grid, order[0], nominal[0], area)
    return Network(
        name=grid.id if area is None else f"{grid.id}/{area}",
        bus_ids=tuple(order),
        nominal_v=nominal,
        parent=parent,
        branch_ids=tuple(names),
        forward=tuple(forward),
        transfer=_blocks(n, UNTURNED, transfer),
        impedance=impedance,
        shunt=_blocks(n, NOTHING, shunt),
        nodes=tuple(nodes),
        node_bus=np.array([position[bus] for bus, _ in nodes], np.int64),
        node_phase=np.array([PHASES.index(phase) for _, phase in nodes], np.int64),
        **list_injections(grid, area, position, nominal),
        loops=tuple(_loop(branch, position, edges) for branch in loops),
        source_v=source_v,
        source_impedance=source_z,
        symmetry=next((source.symmetry for source in grid.sources if source.bus == order[0]), "free"),
        parallel=tuple(parallel),
        branch_phases={branch.id: branch.phases for branch in inside},
    )


def _blocks(n: int, usual: ComplexArray, other: dict[int, ComplexArray]) -> ComplexArray:
    """Return (n, 3, 3) with some blocks unlike the others; where all are the usual one, a view that takes no memory."""
    result = np.broadcast_to(usual, (n, 3, 3))
    if other:
        result = result.copy()
        result[list(other)] = list(other.values())
    return result


def _shunt_admittance(phases: str, g_s: tuple[float, ...], b_s: tuple[float, ...]) -> ComplexArray:
    y = np.zeros((3, 3), complex)
    for k, phase in enumerate(phases):
        y[PHASES.index(phase), PHASES.index(phase)] = complex(g_s[k] if g_s else 0.0, b_s[k] if b_s else 0.0)
    return y


def _loop(branch: Branch, position: dict[str, int], edges: Edges) -> Loop:
    transfer, impedance = edges.matrices(branch, True)
    start, end = position[branch.from_bus], position[branch.to_bus]
    return Loop(branch.id, start, end, branch.phases, transfer, impedance)


def _source(grid: Grid, head: str, nominal: float, area: str | None) -> tuple[ComplexArray, ComplexArray]:
    turn = np.exp(-2j * np.pi / 3 * np.arange(3))
    for source in grid.sources:
        if source.bus == head:
            voltage = source.voltage_v / np.sqrt(3) * np.exp(1j * source.angle_rad) * turn
            z = sequence_to_phase(complex(source.r1_ohm, source.x1_ohm), complex(source.r0_ohm, source.x0_ohm))
            return voltage, z
    return nominal * turn, np.zeros((3, 3), complex)
