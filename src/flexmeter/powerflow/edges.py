"""The closed branches of a grid as matrices, and the tree that they span from the head bus."""

from __future__ import annotations

from collections.abc import Iterable

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
from flexmeter.grid.topology import Branch, branches, closed_branches
from flexmeter.powerflow.lanes import ComplexArray, FloatArray

UNTURNED = np.eye(3, dtype=np.complex128)
"""T of a line."""


class Edges:
    """The closed branches among the members, with their matrices."""

    def __init__(self, grid: Grid, switches: tuple[bool, ...] | None, members: Iterable[str]) -> None:
        self.grid = grid
        self.types = {item.id: item for item in grid.line_types}
        self._series: dict[tuple[str, str], ComplexArray] = {}
        self._charging: dict[tuple[str, str], ComplexArray | None] = {}
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
            return UNTURNED, self._line_impedance(branch)
        return _transformer_matrices(branch, forward)

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
            yield branch.from_bus, np.eye(3, dtype=np.complex128) * transformer_shunt(branch)
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


def depth_first(order: list[str], upstream: dict[str, tuple[str, Branch | None]]) -> list[str]:
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
