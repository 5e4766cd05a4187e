"""Grids as pandapower nets: sequence values, asymmetric loads."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np

from flexmeter.grid.impedance import SEQUENCE, ComplexMatrix, line_impedance_per_km, parse_vector_group
from flexmeter.grid.model import Grid, Line, LineType, Load, Transformer
from flexmeter.grid.readers.optional import optional_module
from flexmeter.grid.topology import closed_branches
from flexmeter.grid.writers.limits import refuse_phases_apart

LINK_OHM = 1e-6


def write_pandapower(grid: Grid, path: Path | str) -> tuple[str, ...]:
    """Write a pandapower JSON file; return what the format could not say."""
    pandapower = optional_module("pandapower", "writing pandapower files")
    net, notes = pandapower_net(grid)
    Path(path).write_text(pandapower.to_json(net), encoding="utf-8")
    return notes


def pandapower_net(grid: Grid) -> tuple[object, tuple[str, ...]]:
    """Return a grid as pandapower net, and what the format could not say.

    pandapower knows positive and zero sequence only: the phase matrix of a line is replaced by that of the transposed
    line, one-phase lines and buses are padded to three phases. Open branches get an open switch.

    Raises
    ------
    GridError
        branches on different phases between the same buses, one-phase transformers.
    """
    refuse_phases_apart(grid, "pandapower")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Writer(grid, optional_module("pandapower", "writing a pandapower net")).net_and_notes()


class _Writer:
    def __init__(self, grid: Grid, pandapower: ModuleType) -> None:
        self.grid = grid
        self.pp = pandapower
        self.net = pandapower.create_empty_network(name=grid.id, f_hz=grid.frequency_hz)
        self.types = {item.id: item for item in grid.line_types}
        self.notes: dict[str, None] = {}
        self.at = {bus.id: k for k, bus in enumerate(grid.buses)}

    def net_and_notes(self) -> tuple[object, tuple[str, ...]]:
        """Write everything."""
        closed = closed_branches(self.grid)
        self._buses()
        self._lines([on for _, on in zip(self.grid.lines, closed, strict=False)])
        for transformer, on in zip(self.grid.transformers, closed[len(self.grid.lines) :], strict=True):
            self._transformer(transformer, on)
        self._sources()
        self._loads()
        self._shunts()
        return self.net, tuple(self.notes)

    def _buses(self) -> None:
        buses = self.grid.buses
        names, levels = [bus.id for bus in buses], [bus.voltage_v / 1e3 for bus in buses]
        self.pp.create_buses(self.net, len(buses), vn_kv=levels, name=names)
        self.net.bus["geo"] = [
            json.dumps({"coordinates": [bus.x_m, bus.y_m], "type": "Point"}) if bus.x_m is not None else None
            for bus in buses
        ]
        if any(bus.phases != "abc" for bus in buses):
            self.notes["buses of one or two phases are padded to three"] = None

    def _lines(self, closed: list[bool]) -> None:
        lines = self.grid.lines
        if not lines:
            return
        lengths = [line.length_km or 1e-6 for line in lines]
        kinds = [self.types[line.type] for line in lines]
        sequence = [self._sequence(kind, line) for kind, line in zip(kinds, lines, strict=True)]
        for k, (line, length) in enumerate(zip(lines, lengths, strict=True)):
            if line.length_km == 0 or not sequence[k][0]:
                sequence[k] = (complex(LINK_OHM / length),) * 2
                self.notes[f"connections without impedance are given {LINK_OHM:g} ohm"] = None
        charging = [
            _transposed(np.asarray(kind.c_nf_per_km, complex)) if kind.c_nf_per_km else (0j, 0j) for kind in kinds
        ]
        self.pp.create_lines_from_parameters(
            self.net,
            [self.at[line.from_bus] for line in lines],
            [self.at[line.to_bus] for line in lines],
            length_km=lengths,
            r_ohm_per_km=[z1.real for z1, _ in sequence],
            x_ohm_per_km=[z1.imag for z1, _ in sequence],
            c_nf_per_km=[c1.real for c1, _ in charging],
            max_i_ka=[kind.rated_current_a / 1e3 or 1.0 for kind in kinds],
            r0_ohm_per_km=[z0.real for _, z0 in sequence],
            x0_ohm_per_km=[z0.imag for _, z0 in sequence],
            c0_nf_per_km=[c0.real for _, c0 in charging],
            name=[line.id for line in lines],
        )
        for k, on in enumerate(closed):
            if not on:
                for end in (lines[k].from_bus, lines[k].to_bus):
                    self.pp.create_switch(self.net, self.at[end], k, et="l", closed=False)

    def _sources(self) -> None:
        level = {bus.id: bus.voltage_v for bus in self.grid.buses}
        for source in self.grid.sources:
            if source.x1_ohm or source.r1_ohm:
                self.notes["source impedance left out: pandapower's load flow has stiff external grids"] = None
            self.pp.create_ext_grid(
                self.net,
                self.at[source.bus],
                vm_pu=source.voltage_v / level[source.bus],
                va_degree=float(np.degrees(source.angle_rad)),
                s_sc_max_mva=1e6,
                rx_max=0.1,
                r0x0_max=0.1,
                x0x_max=1.0,
                name=source.id,
            )

    def _shunts(self) -> None:
        level = {bus.id: bus.voltage_v for bus in self.grid.buses}
        for shunt in self.grid.shunts:
            volts2 = level[shunt.bus] ** 2 / 1e6
            g, b = (sum(values) / 3 if values else 0.0 for values in (shunt.g_s, shunt.b_s))
            self.pp.create_shunt(self.net, self.at[shunt.bus], q_mvar=-b * volts2, p_mw=g * volts2, name=shunt.id)

    def _sequence(self, kind: LineType, line: Line) -> tuple[complex, complex]:
        z = line_impedance_per_km(kind)
        if line.phases != "abc":
            own = "abc".index(line.phases[0])
            return complex(z[own, own]), complex(z[own, own])
        coupled = np.linalg.inv(SEQUENCE) @ z @ SEQUENCE
        if np.abs(coupled - np.diag(np.diag(coupled))).max() > 1e-6 * np.abs(coupled).max():
            self.notes["lines whose phases differ are written as if transposed"] = None
        z1, z0 = _transposed(z)
        return z1, z0

    def _transformer(self, item: Transformer, closed: bool) -> None:
        primary, secondary, clock = parse_vector_group(item.vector_group)
        index = self.pp.create_transformer_from_parameters(
            self.net,
            self.at[item.from_bus],
            self.at[item.to_bus],
            sn_mva=item.rated_power_va / 1e6,
            vn_hv_kv=item.rated_from_v / 1e3,
            vn_lv_kv=item.rated_to_v / 1e3,
            vkr_percent=item.ukr_percent,
            vk_percent=item.uk_percent,
            pfe_kw=item.no_load_loss_w / 1e3,
            i0_percent=item.no_load_current_percent,
            shift_degree=30.0 * clock,
            vector_group=primary + secondary,
            vk0_percent=item.uk0_percent or item.uk_percent,
            vkr0_percent=item.ukr0_percent if item.uk0_percent else item.ukr_percent,
            mag0_percent=100.0,
            mag0_rx=0.0,
            si0_hv_partial=0.9,
            tap_side="hv" if item.tap_side == "from" else "lv",
            tap_neutral=item.tap_neutral,
            tap_pos=item.tap_position,
            tap_step_percent=item.tap_step_percent,
            tap_changer_type="Ratio",
            name=item.id,
        )
        if not closed:
            self.pp.create_switch(self.net, self.at[item.from_bus], index, et="t", closed=False)

    def _loads(self) -> None:
        loads = self.grid.loads
        if any(load.connection == "delta" for load in loads):
            self.notes["loads between phases are written as wye"] = None
        if any(load.zip != (0.0, 0.0, 1.0) or load.v_min_pu > 0 or load.v_max_pu < 10 for load in loads):
            self.notes["loads are written as constant powers"] = None
        rows = [
            {
                "name": load.id,
                "bus": self.at[load.bus],
                **_megawatts(load),
                "scaling": 1.0,
                "in_service": True,
                "type": "wye",
            }
            for load in loads
        ]
        if rows:
            frame = self.net.asymmetric_load
            pandas = optional_module("pandas", "writing a pandapower net")
            table = pandas.DataFrame(rows, columns=frame.columns)
            self.net.asymmetric_load = table.astype(frame.dtypes.to_dict())


def _megawatts(load: Load) -> dict[str, float]:
    result = {f"{letter}_{phase}_{unit}": 0.0 for phase in "abc" for letter, unit in (("p", "mw"), ("q", "mvar"))}
    for letter, unit, values in (("p", "mw", load.power_w), ("q", "mvar", load.power_var)):
        for phase, value in zip(load.phases, values, strict=False):
            result[f"{letter}_{phase}_{unit}"] = value / 1e6
    return result


def _transposed(matrix: ComplexMatrix) -> tuple[complex, complex]:
    """Return positive and zero sequence of the transposed line: self minus mutual, self plus twice mutual."""
    own = np.trace(matrix) / 3
    mutual = (matrix.sum() - np.trace(matrix)) / 6
    return complex(own - mutual), complex(own + 2 * mutual)
