"""The closed branches of a grid as matrices, and the tree that they span from the head bus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from flexmeter.errors import Finding, GridError
from flexmeter.grid.impedance import (
    line_admittance_per_km,
    line_impedance_per_km,
    transformer_impedance,
    transformer_shunt,
    transformer_transfer,
)
from flexmeter.grid.model import PHASES, Grid, Line, Transformer
from flexmeter.grid.topology import Branch, branches, closed_branches, parallel_branches, phases_of
from flexmeter.powerflow.lanes import ComplexArray, FloatArray

UNTURNED = np.eye(3, dtype=np.complex128)
"""T of a line."""


@dataclass(frozen=True, eq=False)
class Edge:
    """What lies between two buses: one branch, or several with different phases."""

    branches: tuple[Branch, ...]
    phases: str

    @property
    def ends(self) -> tuple[str, str]:
        """The two buses."""
        return self.branches[0].from_bus, self.branches[0].to_bus


Upstream = dict[str, tuple[str, Edge | None]]
"""Of each bus the one above and the edge from there; "" and None at the head."""


class Edges:
    """The closed branches among the members, with their matrices."""

    def __init__(self, grid: Grid, switches: tuple[bool, ...] | None, members: Iterable[str]) -> None:
        self.grid = grid
        self.types = {item.id: item for item in grid.line_types}
        self._series: dict[tuple[str, str], ComplexArray] = {}
        self._charging: dict[tuple[str, str], ComplexArray | None] = {}
        self.buses = {bus.id: bus for bus in grid.buses}
        self.neighbours: dict[str, list[Edge]] = {bus: [] for bus in members}
        inside = [
            branch
            for branch, closed in zip(branches(grid), closed_branches(grid, switches), strict=True)
            if closed and branch.from_bus in self.neighbours and branch.to_bus in self.neighbours
        ]
        self.all = [Edge(tuple(group), phases_of(group)) for group in parallel_branches(inside)]
        for edge in self.all:
            for bus in edge.ends:
                self.neighbours[bus].append(edge)

    def tree(self, head: str) -> tuple[list[str], Upstream, list[Branch]]:
        """Return breadth-first buses, their (parent, edge), and the branches that close loops.

        Breadth first, so that the two ends of a ring meet in the middle and transformers are met from above. Only an
        edge with all phases of a bus feeds it.
        """
        upstream: Upstream = {head: ("", None)}
        order = [head]
        loops: dict[str, Branch] = {}
        for here in order:
            for edge in self.neighbours[here]:
                there = edge.ends[1] if edge.ends[0] == here else edge.ends[0]
                if edge is upstream[here][1]:
                    continue
                if there in upstream:
                    if upstream[there][1] is not edge:
                        loops |= {branch.id: branch for branch in edge.branches}
                elif set(self.buses[there].phases) <= set(edge.phases):
                    upstream[there] = (here, edge)
                    order.append(there)
        return order, upstream, list(loops.values())

    def edge_matrices(self, edge: Edge, above: str) -> tuple[ComplexArray, ComplexArray]:
        """Return T and Z of an edge fed from the bus `above`: each branch fills the rows and columns of its phases."""
        if len(edge.branches) == 1:
            return self.matrices(edge.branches[0], edge.branches[0].from_bus == above)
        t, z = np.eye(3, dtype=complex), np.zeros((3, 3), complex)
        for branch in edge.branches:
            own = np.flatnonzero([phase in branch.phases for phase in PHASES])
            one_t, one_z = self.matrices(branch, branch.from_bus == above)
            t[np.ix_(own, own)] = one_t[np.ix_(own, own)]
            z[np.ix_(own, own)] = one_z[np.ix_(own, own)]
        return (UNTURNED if all(isinstance(branch, Line) for branch in edge.branches) else t), z

    def matrices(self, branch: Branch, forward: bool) -> tuple[ComplexArray, ComplexArray]:
        """Return T and Z in the direction of supply."""
        if isinstance(branch, Line):
            return UNTURNED, self._line_impedance(branch)
        t, z = _transformer_matrices(branch, forward)
        return t, z * _phase_mask(branch.phases)

    def _line_impedance(self, line: Line) -> ComplexArray:
        per_km = self._series.get((line.type, line.phases))
        if per_km is None:
            per_km = line_impedance_per_km(self.types[line.type]) * _phase_mask(line.phases)
            self._series[line.type, line.phases] = per_km
        return np.asarray(per_km * line.length_km)

    def _line_charging(self, line: Line) -> ComplexArray | None:
        """Return half the admittance to earth per km, None where there is none."""
        key = line.type, line.phases
        if key not in self._charging:
            y = line_admittance_per_km(self.types[line.type], self.grid.frequency_hz) / 2
            self._charging[key] = np.asarray(y * _phase_mask(line.phases)) if np.any(y) else None
        return self._charging[key]

    def shunts(self, branch: Branch) -> Iterable[tuple[str, ComplexArray]]:
        """Return the admittances to earth a branch brings: half the charging at each end, iron at the from-side."""
        if isinstance(branch, Transformer):
            mask = np.eye(3, dtype=np.complex128) * _phase_mask(branch.phases)
            yield branch.from_bus, mask * transformer_shunt(branch)
            return
        per_km = self._line_charging(branch)
        if per_km is not None:
            yield branch.from_bus, per_km * branch.length_km
            yield branch.to_bus, per_km * branch.length_km


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


def depth_first(order: list[str], upstream: Upstream) -> list[str]:
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
