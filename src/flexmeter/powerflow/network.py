"""The electrical model of a grid under one switch status vector: what load flow and estimation compute on.

`compile_network` turns components with ids into frozen arrays: a tree of buses (parents first) whose edges carry a
3x3 series impedance and, for transformers, a transfer matrix:

    V_child = T V_parent - Z J        J_parent_side = T^H J        (J: current into the child's subtree)

Closed branches outside the tree are `Loop`s. Injections (loads per phase, and the aggregates that stand for areas
below) are one flat list without padding, nodes are a flat list of (bus, phase).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import numpy as np

from flexmeter.errors import Finding, GridError, NotRadial
from flexmeter.grid.impedance import (
    line_admittance_per_km,
    line_impedance_per_km,
    sequence_to_phase,
    transformer_impedance,
    transformer_shunt,
    transformer_transfer,
)
from flexmeter.grid.model import PHASES, Grid, Line, Load, Symmetry, Transformer
from flexmeter.grid.topology import Branch, branches, closed_branches
from flexmeter.powerflow.lanes import ComplexArray, FloatArray, IntArray

AGGREGATE = "aggregate"
"""Prefix of the injection ids that stand for a whole area: `aggregate:<area id>`."""


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
        return {name: row for row, name in enumerate(self.branch_ids) if name}

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
    edges = _Edges(grid, switches, members)
    order, upstream, loops = edges.tree(head)
    lost = tuple(bus for bus in members if bus not in upstream)
    if lost:
        raise NotRadial(f"grid {grid.id}: no source reaches {', '.join(lost[:6])}")
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


class _Edges:
    """The closed branches among the members, with their matrices."""

    def __init__(self, grid: Grid, switches: tuple[bool, ...] | None, members: Iterable[str]) -> None:
        self.grid = grid
        self.types = {item.id: item for item in grid.line_types}
        self.buses = {bus.id: bus for bus in grid.buses}
        self.neighbours: dict[str, list[Branch]] = {bus: [] for bus in members}
        for branch, closed in zip(branches(grid), closed_branches(grid, switches), strict=True):
            if closed and branch.from_bus in self.neighbours and branch.to_bus in self.neighbours:
                self.neighbours[branch.from_bus].append(branch)
                self.neighbours[branch.to_bus].append(branch)

    def tree(self, head: str) -> tuple[list[str], dict[str, tuple[str, Branch | None]], list[Branch]]:
        """Return breadth-first buses, their (parent, branch), and the branches that close loops.

        Breadth first, so that the two ends of a ring meet in the middle and transformers are met from above.
        """
        upstream: dict[str, tuple[str, Branch | None]] = {head: ("", None)}
        order = [head]
        loops: dict[str, Branch] = {}
        for here in order:
            for branch in self.neighbours[here]:
                there = branch.to_bus if branch.from_bus == here else branch.from_bus
                if branch is upstream[here][1]:
                    continue
                if there not in upstream:
                    upstream[there] = (here, branch)
                    order.append(there)
                elif upstream[there][1] is not branch:
                    loops[branch.id] = branch
        return order, upstream, list(loops.values())

    def matrices(self, branch: Branch, forward: bool) -> tuple[ComplexArray, ComplexArray]:
        """Return T and Z in the direction of supply."""
        if isinstance(branch, Line):
            return np.eye(3, dtype=complex), self._line_impedance(branch)
        return _transformer_matrices(branch, forward)

    def _line_impedance(self, line: Line) -> ComplexArray:
        z = line_impedance_per_km(self.types[line.type]) * line.length_km
        return np.asarray(z * _phase_mask(line.phases))

    def shunts(self, branch: Branch) -> Iterable[tuple[str, ComplexArray]]:
        """Return the admittances to earth a branch brings: half the charging at each end, iron at the from-side."""
        if isinstance(branch, Transformer):
            yield branch.from_bus, np.eye(3, dtype=np.complex128) * transformer_shunt(branch)
            return
        y = line_admittance_per_km(self.types[branch.type], self.grid.frequency_hz) * branch.length_km / 2
        if np.any(y):
            yield branch.from_bus, y * _phase_mask(branch.phases)
            yield branch.to_bus, y * _phase_mask(branch.phases)


def _phase_mask(phases: str) -> FloatArray:
    have = np.array([phase in phases for phase in PHASES], float)
    return np.outer(have, have)


def _transformer_matrices(transformer: Transformer, forward: bool) -> tuple[ComplexArray, ComplexArray]:
    t, z = transformer_transfer(transformer), transformer_impedance(transformer)
    if forward:
        return t, z
    if abs(np.linalg.det(t)) < 1e-9 * np.abs(t).max() ** 3:
        text = f"fed from its to-side, which {transformer.vector_group} cannot be (zero sequence undefined)"
        raise GridError([Finding("transformer", (transformer.id,), "from_bus", text)])
    inverse = np.asarray(np.linalg.inv(t), np.complex128)
    return inverse, np.asarray(inverse @ z @ inverse.conj().T)


def _assemble(
    grid: Grid,
    area: str | None,
    members: tuple[str, ...],
    order: list[str],
    upstream: dict[str, tuple[str, Branch | None]],
    loops: list[Branch],
    edges: _Edges,
) -> Network:
    order = _depth_first(order, upstream)
    position = {bus: k for k, bus in enumerate(order)}
    n = len(order)
    transfer = np.tile(np.eye(3, dtype=complex), (n, 1, 1))
    impedance = np.zeros((n, 3, 3), complex)
    shunt = np.zeros((n, 3, 3), complex)
    parent = np.full(n, -1, np.int64)
    names, forward = [""] * n, [True] * n
    for k, bus in enumerate(order[1:], 1):
        up, branch = upstream[bus]
        assert branch is not None
        parent[k], names[k], forward[k] = position[up], branch.id, branch.from_bus == up
        transfer[k], impedance[k] = edges.matrices(branch, forward[k])
    for branch in _unique(edges.neighbours):
        for bus, y in edges.shunts(branch):
            shunt[position[bus]] += y
    for item in grid.shunts:
        if item.bus in position:
            shunt[position[item.bus]] += _shunt_admittance(item.phases, item.g_s, item.b_s)
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
        transfer=transfer,
        impedance=impedance,
        shunt=shunt,
        nodes=tuple(nodes),
        node_bus=np.array([position[bus] for bus, _ in nodes], np.int64),
        node_phase=np.array([PHASES.index(phase) for _, phase in nodes], np.int64),
        **_injections(grid, area, position, nominal),
        loops=tuple(_loop(branch, position, edges) for branch in loops),
        source_v=source_v,
        source_impedance=source_z,
        symmetry=next((source.symmetry for source in grid.sources if source.bus == order[0]), "free"),
    )


def _depth_first(order: list[str], upstream: dict[str, tuple[str, Branch | None]]) -> list[str]:
    """Return the same tree with every subtree in one piece: neighbours in the tree lie near in memory."""
    children: dict[str, list[str]] = {bus: [] for bus in order}
    for bus in order[1:]:
        children[upstream[bus][0]].append(bus)
    result, stack = [], [order[0]]
    while stack:
        bus = stack.pop()
        result.append(bus)
        stack.extend(reversed(children[bus]))
    return result


def _unique(neighbours: dict[str, list[Branch]]) -> list[Branch]:
    return list({branch.id: branch for around in neighbours.values() for branch in around}.values())


def _shunt_admittance(phases: str, g_s: tuple[float, ...], b_s: tuple[float, ...]) -> ComplexArray:
    y = np.zeros((3, 3), complex)
    for k, phase in enumerate(phases):
        y[PHASES.index(phase), PHASES.index(phase)] = complex(g_s[k] if g_s else 0.0, b_s[k] if b_s else 0.0)
    return y


def _loop(branch: Branch, position: dict[str, int], edges: _Edges) -> Loop:
    transfer, impedance = edges.matrices(branch, True)
    phases = branch.phases if isinstance(branch, Line) else PHASES
    return Loop(branch.id, position[branch.from_bus], position[branch.to_bus], phases, transfer, impedance)


def _source(grid: Grid, head: str, nominal: float, area: str | None) -> tuple[ComplexArray, ComplexArray]:
    turn = np.exp(-2j * np.pi / 3 * np.arange(3))
    for source in grid.sources:
        if source.bus == head:
            voltage = source.voltage_v / np.sqrt(3) * np.exp(1j * source.angle_rad) * turn
            z = sequence_to_phase(complex(source.r1_ohm, source.x1_ohm), complex(source.r0_ohm, source.x0_ohm))
            return voltage, z
    return nominal * turn, np.zeros((3, 3), complex)


def _injections(grid: Grid, area: str | None, position: dict[str, int], nominal: FloatArray) -> _Injections:
    own = {bus.id for bus in grid.buses if area is None or bus.area == area}
    rows = [row for load in grid.loads if load.bus in own for row in _load_rows(load, position, nominal)]
    areas = [item for item in grid.areas if area is not None and item.parent == area and item.head_bus in position]
    for item in areas:
        bus = position[item.head_bus]
        rows += [
            ((f"{AGGREGATE}:{item.id}", PHASES[k]), bus, k, -1, 0.0, 0.0, (0.0, 0.0, 1.0), nominal[bus], 0.0, 1e9)
            for k in range(3)
        ]
    return _Injections(
        injections=tuple(row[0] for row in rows),
        injection_bus=np.array([row[1] for row in rows], np.int64),
        injection_plus=np.array([row[2] for row in rows], np.int64),
        injection_minus=np.array([row[3] for row in rows], np.int64),
        power_w=np.array([row[4] for row in rows], float),
        power_var=np.array([row[5] for row in rows], float),
        zip=np.array([row[6] for row in rows], float).reshape(-1, 3),
        load_v=np.array([row[7] for row in rows], float),
        v_min_pu=np.array([row[8] for row in rows], float),
        v_max_pu=np.array([row[9] for row in rows], float),
        aggregates=tuple((item.id, position[item.head_bus]) for item in areas),
    )


class _Injections(TypedDict):
    """The part of a network that describes its injections."""

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


_Row = tuple[tuple[str, str], int, int, int, float, float, tuple[float, float, float], float, float, float]


def _load_rows(load: Load, position: dict[str, int], nominal: FloatArray) -> list[_Row]:
    bus = position[load.bus]
    phase_v = load.nominal_voltage_v / np.sqrt(3) if load.nominal_voltage_v else float(nominal[bus])
    result = []
    for k, (plus, minus) in enumerate(_terminals(load)):
        name = PHASES[plus] if minus < 0 else PHASES[plus] + PHASES[minus]
        voltage = phase_v if minus < 0 else phase_v * np.sqrt(3)
        active = load.power_w[k] if load.power_w else 0.0
        reactive = load.power_var[k] if load.power_var else 0.0
        result.append(
            ((load.id, name), bus, plus, minus, active, reactive, load.zip, voltage, load.v_min_pu, load.v_max_pu)
        )
    return result


def _terminals(load: Load) -> list[tuple[int, int]]:
    phases = [PHASES.index(phase) for phase in load.phases]
    if load.connection == "wye":
        return [(phase, -1) for phase in phases]
    if len(phases) == 2:
        return [(phases[0], phases[1])]
    return [(0, 1), (1, 2), (2, 0)]
