"""What readers share: collecting components under unique names, and joining what a file leaves open."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from flexmeter.errors import Finding, GridError
from flexmeter.grid.impedance import line_type_from_sequence
from flexmeter.grid.model import (
    Bus,
    Grid,
    Line,
    LineType,
    Load,
    Matrix,
    Neutral,
    Shunt,
    Source,
    Switch,
    Transformer,
)
from flexmeter.grid.topology import spanning_tree

ZERO_SEQUENCE_FACTOR = 4.0
"""R0/R1 and X0/X1 of a line whose file gives positive-sequence values only (a four-core cable has 4)."""
TIE = "tie"


@dataclass
class Parts:
    """The components of a grid in the making; `names` keeps ids unique over all kinds of branches and loads."""

    buses: list[Bus] = field(default_factory=list)
    types: dict[tuple[object, ...], LineType] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    transformers: list[Transformer] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    shunts: list[Shunt] = field(default_factory=list)
    assumptions: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    names: dict[str, set[str]] = field(default_factory=dict)

    def name(self, kind: str, wanted: object, fallback: str) -> str:
        """Return a free id: the wanted name, with a number behind it if it is taken, or the fallback."""
        text = re.sub(r"\s+", "_", str(wanted).strip()) if _is_text(wanted) else fallback
        taken = self.names.setdefault(kind, set())
        unique, number = text, 2
        while unique in taken:
            unique, number = f"{text}_{number}", number + 1
        taken.add(unique)
        return unique

    def assume(self, text: str) -> None:
        """Record an assumption; equal ones are counted."""
        self.assumptions[text] = self.assumptions.get(text, 0) + 1

    def find(self, component: str, name: str, column: str, text: str) -> None:
        """Record something that cannot be read."""
        self.findings.append(Finding(component, (name,), column, text))

    def sequence_type(
        self, name: str, *, z1: complex, z0: complex | None, c1: float, c0: float | None, rated_current_a: float
    ) -> str:
        """Return the id of the line type with these values per km, made at its first use."""
        if z0 is None:
            z0 = ZERO_SEQUENCE_FACTOR * z1
            self.assume(f"zero-sequence impedance of lines not given: {ZERO_SEQUENCE_FACTOR:g} times the positive one")
        if c0 is None:
            c0 = c1
            if c1:
                self.assume("zero-sequence capacitance of lines not given: equal to the positive one")
        key = (name, *(round(v, 12) for v in (z1.real, z1.imag, z0.real, z0.imag, c1, c0, rated_current_a)))
        if key not in self.types:
            self.types[key] = line_type_from_sequence(
                self.name("line_type", name, f"type_{len(self.types) + 1}"),
                r1_ohm_per_km=z1.real,
                x1_ohm_per_km=z1.imag,
                r0_ohm_per_km=z0.real,
                x0_ohm_per_km=z0.imag,
                c1_nf_per_km=c1,
                c0_nf_per_km=c0,
                rated_current_a=rated_current_a,
            )
        return self.types[key].id

    def matrix_type(
        self, name: str, *, r: Matrix, x: Matrix, c: Matrix, neutral: Neutral, rated_current_a: float = 0.0
    ) -> str:
        """Return the id of the line type with these matrices per km, made at its first use."""
        key = (name, r, x, c, neutral, rated_current_a)
        if key not in self.types:
            unique = self.name("line_type", name, f"type_{len(self.types) + 1}")
            self.types[key] = LineType(unique, r, x, c, neutral, rated_current_a)
        return self.types[key].id

    def tie(self, name: str, one: str, other: str) -> None:
        """Add a connection without impedance."""
        zero = ((0.0,) * 3,) * 3
        self.lines.append(Line(name, one, other, self.matrix_type(TIE, r=zero, x=zero, c=(), neutral="none"), 0.0))

    def grid(self, name: str, program: str, frequency_hz: float = 50.0) -> Grid:
        """Return the grid, its sources joined and what no source reaches left out.

        Raises
        ------
        GridError
            everything in the file that the model cannot represent, or sources that cannot be joined.
        """
        if not self.findings:
            self._join_sources()
        if self.findings:
            raise GridError(self.findings, name)
        return self._supplied(self._whole(name, program, frequency_hz))

    def _whole(self, name: str, program: str, frequency_hz: float) -> Grid:
        counted = [text if n == 1 else f"{text} ({n} times)" for text, n in self.assumptions.items()]
        return Grid(
            id=re.sub(r"[^A-Za-z0-9_-]", "_", name) or "grid",
            buses=tuple(self.buses),
            line_types=tuple(self.types.values()),
            lines=tuple(self.lines),
            transformers=tuple(self.transformers),
            switches=tuple(self.switches),
            sources=tuple(self.sources),
            loads=tuple(self.loads),
            shunts=tuple(self.shunts),
            frequency_hz=frequency_hz,
            assumptions=(f"converted from {program}", *counted),
        )

    def _join_sources(self) -> None:
        """Join several sources of the same voltage in one stiff bus, by lines with their own impedances."""
        if len(self.sources) < 2:
            return
        first, *others = self.sources
        level = {bus.id: bus.voltage_v for bus in self.buses}
        if any(
            (item.voltage_v, item.angle_rad, level[item.bus]) != (first.voltage_v, first.angle_rad, level[first.bus])
            for item in others
        ):
            self.findings.append(
                Finding("source", tuple(item.id for item in self.sources), "voltage_v", "differ, expected one voltage")
            )
            return
        hub = self.name("bus", "sources", "sources")
        self.buses.insert(0, Bus(hub, level[first.bus]))
        for item in self.sources:
            z1, z0 = complex(item.r1_ohm, item.x1_ohm), complex(item.r0_ohm, item.x0_ohm)
            name = self.name("branch", f"tie_{item.id}", "tie")
            kind = self.sequence_type(TIE, z1=z1, z0=z0, c1=0.0, c0=0.0, rated_current_a=0.0)
            self.lines.append(Line(name, hub, item.bus, kind, 1.0))
        self.assumptions[f"{len(self.sources)} sources of equal voltage joined in bus {hub}"] = 1
        self.sources = [Source(first.id, hub, first.voltage_v, first.angle_rad)]

    def _supplied(self, grid: Grid) -> Grid:
        """Leave out what no source reaches under the switch positions of the file."""
        known = {bus.id for bus in grid.buses}
        ends = [end for branch in grid.lines + grid.transformers for end in (branch.from_bus, branch.to_bus)]
        if not known.issuperset([*ends, *(item.bus for item in grid.sources)]):
            return grid  # unknown buses are for `validate` to report
        islands = spanning_tree(grid).islands
        if not islands or not grid.sources:
            return grid
        lost = {grid.buses[k].id for k in islands}
        shown = ", ".join(sorted(lost)[:4]) + (" ..." if len(lost) > 4 else "")
        lines = tuple(item for item in grid.lines if not {item.from_bus, item.to_bus} & lost)
        transformers = tuple(item for item in grid.transformers if not {item.from_bus, item.to_bus} & lost)
        kept = {item.id for item in (*lines, *transformers)}
        return msgspec.structs.replace(
            grid,
            buses=tuple(item for item in grid.buses if item.id not in lost),
            lines=lines,
            transformers=transformers,
            switches=tuple(item for item in grid.switches if item.branch in kept),
            loads=tuple(item for item in grid.loads if item.bus not in lost),
            shunts=tuple(item for item in grid.shunts if item.bus not in lost),
            assumptions=(*grid.assumptions, f"{len(lost)} buses without supply left out: {shown}"),
        )


def _is_text(value: object) -> bool:
    return value is not None and str(value).strip() not in ("", "nan", "None", "<NA>")


def is_number(value: object) -> bool:
    """Whether a cell of a table holds a finite number."""
    return isinstance(value, (int, float, np.number)) and math.isfinite(float(value))


def whole(value: object) -> int | None:
    """Return a cell that holds a whole number, None for any other."""
    return int(value) if is_number(value) and float(value).is_integer() else None  # type: ignore[call-overload, arg-type]


def thirds(total: float, count: int = 3) -> tuple[float, ...]:
    """Return a total shared equally by the phases."""
    return (total / count,) * count


def nested(rows: Iterable[Iterable[float]]) -> Matrix:
    """Return a matrix as nested tuples."""
    return tuple(tuple(float(value) for value in row) for row in rows)
