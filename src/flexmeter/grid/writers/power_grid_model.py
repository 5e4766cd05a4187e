"""Grids as power-grid-model input datasets (JSON); needs no power-grid-model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from flexmeter.grid.impedance import line_impedance_per_km, parse_vector_group
from flexmeter.grid.model import Bus, Grid, Line, LineType, Load, Transformer
from flexmeter.grid.topology import closed_branches
from flexmeter.grid.writers.limits import refuse_phases_apart

Row = dict[str, object]
WINDINGS = {"Y": 0, "YN": 1, "D": 2, "Z": 3, "ZN": 4}
STIFF_VA = 1e12
ZIGZAG = 0.1
LINK_OHM = 1e-6


@dataclass(frozen=True)
class Dataset:
    """An input dataset: the JSON document, the number of every bus, and what the format could not say."""

    document: dict[str, object]
    nodes: dict[str, int]
    notes: tuple[str, ...]


def write_power_grid_model(grid: Grid, path: Path | str) -> tuple[str, ...]:
    """Write the input dataset; return what the format could not say."""
    dataset = power_grid_model_input(grid)
    Path(path).write_text(json.dumps(dataset.document, indent=1) + "\n", encoding="utf-8")
    return dataset.notes


def power_grid_model_input(grid: Grid) -> Dataset:
    """Return a grid as input dataset.

    Lines become `asym_line` with their phase matrices, so nothing about coupling is lost; a line or customer of one
    phase is padded to three, the missing phases get the impedance of the existing one. Neutral conductors earthed at
    the source only are eliminated beforehand (the format knows the other elimination only). Open branches have both
    ends open. Ids, load phases and map positions are kept in extra attributes, which power-grid-model ignores.

    Raises
    ------
    GridError
        branches on different phases between the same buses, one-phase transformers.
    """
    refuse_phases_apart(grid, "power-grid-model")
    return _Writer(grid).dataset()


class _Writer:
    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.number = 0
        self.notes: dict[str, None] = {}
        self.nodes = {bus.id: self._next() for bus in grid.buses}
        self.buses = {bus.id: bus for bus in grid.buses}
        self.types = {item.id: item for item in grid.line_types}

    def _next(self) -> int:
        self.number += 1
        return self.number

    def dataset(self) -> Dataset:
        """Return the whole dataset."""
        grid = self.grid
        closed = closed_branches(grid)
        lines = [self._line(item, on) for item, on in zip(grid.lines, closed, strict=False)]
        transformers = [
            self._transformer(item, on) for item, on in zip(grid.transformers, closed[len(grid.lines) :], strict=True)
        ]
        data: dict[str, list[Row]] = {
            "node": [self._node(bus) for bus in grid.buses],
            "asym_line": lines,
            "transformer": transformers,
            "source": [self._source(k) for k in range(len(grid.sources))],
            "asym_load": [row for load in grid.loads for row in self._load(load)],
            "shunt": [self._shunt(k) for k in range(len(grid.shunts))],
        }
        document: dict[str, object] = {
            "version": "1.0",
            "type": "input",
            "is_batch": False,
            "attributes": {},
            "data": {component: rows for component, rows in data.items() if rows},
        }
        return Dataset(document, self.nodes, tuple(self.notes))

    def _node(self, bus: Bus) -> Row:
        row: Row = {"id": self.nodes[bus.id], "u_rated": bus.voltage_v, "name": bus.id}
        if bus.x_m is not None and bus.y_m is not None:
            row |= {"x_m": bus.x_m, "y_m": bus.y_m}
        if bus.phases != "abc":
            self.notes["buses of one or two phases are padded to three"] = None
        return row

    def _line(self, line: Line, closed: bool) -> Row:
        kind = self.types[line.type]
        row: Row = {
            "id": self._next(),
            "from_node": self.nodes[line.from_bus],
            "to_node": self.nodes[line.to_bus],
            "from_status": int(closed),
            "to_status": int(closed),
            "name": line.id,
        }
        if kind.rated_current_a:
            row["i_n"] = kind.rated_current_a
        row |= _triangle("r", [[z.real for z in r] for r in self._series(kind, line)])
        row |= _triangle("x", [[z.imag for z in r] for r in self._series(kind, line)])
        farads = [[c * 1e-9 * line.length_km for c in r] for r in kind.c_nf_per_km] if kind.c_nf_per_km else None
        return row | (_triangle("c", farads) if farads else {"c0": 0.0, "c1": 0.0})

    def _series(self, kind: LineType, line: Line) -> list[list[complex]]:
        """Return the total impedance, the missing phases of a line padded with the first one's."""
        z = line_impedance_per_km(kind) * line.length_km
        rows = [[complex(value) for value in row] for row in z]
        have = ["abc".index(phase) for phase in line.phases]
        for k in range(3):
            if k not in have:
                for j in range(3):
                    rows[k][j] = rows[j][k] = 0j
                rows[k][k] = rows[have[0]][have[0]]
            if abs(rows[k][k]) < LINK_OHM:
                rows[k][k] = complex(LINK_OHM, 0)
                self.notes[f"connections without impedance are given {LINK_OHM:g} ohm"] = None
        return rows

    def _transformer(self, item: Transformer, closed: bool) -> Row:
        primary, secondary, clock = parse_vector_group(item.vector_group)
        implied = (ZIGZAG if secondary == "zn" else 1.0) * item.uk_percent
        if secondary in ("yn", "zn") and not math.isclose(item.uk0_percent or item.uk_percent, implied):
            text = "equals the positive one in this format, a tenth of it at zigzag windings"
            self.notes[f"zero-sequence impedance of transformers {text}"] = None
        rated = item.rated_from_v if item.tap_side == "from" else item.rated_to_v
        offset = item.tap_position - item.tap_neutral
        return {
            "id": self._next(),
            "from_node": self.nodes[item.from_bus],
            "to_node": self.nodes[item.to_bus],
            "from_status": int(closed),
            "to_status": int(closed),
            "u1": item.rated_from_v,
            "u2": item.rated_to_v,
            "sn": item.rated_power_va,
            "uk": item.uk_percent / 100,
            "pk": item.ukr_percent / 100 * item.rated_power_va,
            "i0": item.no_load_current_percent / 100,
            "p0": item.no_load_loss_w,
            "winding_from": WINDINGS[primary],
            "winding_to": WINDINGS[secondary.upper()],
            "clock": clock,
            "tap_side": 0 if item.tap_side == "from" else 1,
            "tap_pos": item.tap_position,
            "tap_min": item.tap_neutral - max(abs(offset), 1),
            "tap_max": item.tap_neutral + max(abs(offset), 1),
            "tap_nom": item.tap_neutral,
            "tap_size": item.tap_step_percent / 100 * rated,
            "name": item.id,
        }

    def _source(self, place: int) -> Row:
        source = self.grid.sources[place]
        level = self.buses[source.bus].voltage_v
        z1, z0 = complex(source.r1_ohm, source.x1_ohm), complex(source.r0_ohm, source.x0_ohm)
        return {
            "id": self._next(),
            "node": self.nodes[source.bus],
            "status": 1,
            "u_ref": source.voltage_v / level,
            "u_ref_angle": source.angle_rad,
            "sk": level**2 / abs(z1) if z1 else STIFF_VA,
            "rx_ratio": source.r1_ohm / source.x1_ohm if source.x1_ohm else 0.1,
            "z01_ratio": abs(z0) / abs(z1) if z1 and z0 else 1.0,
            "name": source.id,
        }

    def _load(self, load: Load) -> list[Row]:
        """Return a load, one row per share of its ZIP model."""
        if load.connection == "delta":
            self.notes["loads between phases are written as wye"] = None
        if load.v_min_pu > 0 or load.v_max_pu < 10:
            self.notes["voltage limits of loads are left out"] = None
        rows = []
        for share, kind in zip(load.zip, (1, 2, 0), strict=True):
            if share:
                p, q = (_padded(values, load.phases, share) for values in (load.power_w, load.power_var))
                row: Row = {"id": self._next(), "node": self.nodes[load.bus], "status": 1, "type": kind}
                rows.append(row | {"p_specified": p, "q_specified": q, "name": load.id, "phases": load.phases})
        return rows

    def _shunt(self, place: int) -> Row:
        shunt = self.grid.shunts[place]
        g, b = (sum(values) / 3 if values else 0.0 for values in (shunt.g_s, shunt.b_s))
        if any(len(set(values)) > 1 for values in (shunt.g_s, shunt.b_s)) or shunt.phases != "abc":
            self.notes["unequal shunts are written as their mean"] = None
        return {
            "id": self._next(),
            "node": self.nodes[shunt.bus],
            "status": 1,
            "g1": g,
            "b1": b,
            "g0": g,
            "b0": b,
            "name": shunt.id,
        }


def _padded(values: tuple[float, ...], phases: str, share: float) -> list[float]:
    known = dict(zip(phases, values, strict=False))
    return [share * known.get(phase, 0.0) for phase in "abc"]


def _triangle(letter: str, matrix: list[list[float]]) -> Row:
    return {f"{letter}_{'abc'[i]}{'abc'[j]}": matrix[i][j] for i in range(3) for j in range(i + 1)}
