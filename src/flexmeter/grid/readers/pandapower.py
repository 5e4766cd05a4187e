"""pandapower networks (JSON files and nets in memory), balanced or with zero-sequence and asymmetric data."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from flexmeter.errors import InputError
from flexmeter.grid.model import Bus, Grid, Line, Load, Shunt, Source, Switch, Transformer
from flexmeter.grid.readers.optional import optional_module
from flexmeter.grid.readers.parts import Parts, is_number, thirds, whole

Row = dict[str, object]
Kind = Literal["customer", "generation"]
LOADS: dict[str, tuple[Kind, float]] = {
    "load": ("customer", 1.0),
    "asymmetric_load": ("customer", 1.0),
    "sgen": ("generation", -1.0),
    "asymmetric_sgen": ("generation", -1.0),
    "storage": ("customer", 1.0),
    "motor": ("customer", 1.0),
}
REFUSED = (
    "trafo3w", "xward", "dcline", "svc", "ssc", "tcsc", "vsc", "b2b_vsc", "line_dc", "bus_dc", "load_dc",
    "source_dc",
)  # fmt: skip
SWITCH_RX = 2.0
"""R/X of a switch with an impedance: the default of pandapower's load flow."""
CLOCKS = {0: "YNyn0", 1: "Dyn1", 5: "Dyn5", 6: "YNyn6", 7: "Dyn7", 11: "Dyn11"}


def read_pandapower(path: Path | str) -> Grid:
    """Read a pandapower JSON file; `InputError` names what cannot be read."""
    return grid_from_pandapower(load_pandapower(path), Path(path).stem)


def load_pandapower(path: Path | str) -> object:
    """Return the pandapower net of a JSON file."""
    pandapower = optional_module("pandapower", "reading pandapower files")
    try:
        text = Path(path).read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = pandapower.from_json_string(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # pandapower has no error class of its own for broken files
        raise InputError(f"{path}: not a pandapower network: {type(error).__name__}: {error}") from error
    if not isinstance(net, pandapower.pandapowerNet):
        raise InputError(f"{path}: not a pandapower network")
    return net


def grid_from_pandapower(net: object, name: str = "pandapower") -> Grid:
    """Convert a pandapower net; what it leaves open is in `Grid.assumptions`.

    Zero-sequence values of lines that are not given are 4 times the positive sequence; vector groups follow from
    the phase shift; loads are shared equally by three phases; voltage-controlled generators become constant powers;
    a transformer's no-load branch sits at its high-voltage side. Several external grids of equal voltage are joined.
    """
    return _Conversion(net).grid(name)


def pandapower_voltages(net: object) -> dict[tuple[str, str], float]:
    """Return |V| per (bus id, phase) [V] of pandapower's own load flow, three-phase if the net has asymmetric loads.

    Raises
    ------
    InputError
        its load flow does not converge or lacks data.
    """
    pandapower = optional_module("pandapower", "comparing with pandapower")
    conversion = _Conversion(net)
    asymmetric = any(len(conversion.net[table]) for table in ("asymmetric_load", "asymmetric_sgen"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if asymmetric:
                pandapower.runpp_3ph(net, tolerance_mva=1e-9, max_iteration=100)
            else:
                pandapower.runpp(net, tolerance_mva=1e-9, max_iteration=100, calculate_voltage_angles=True, numba=False)
    except Exception as error:  # whatever stops pandapower, there is nothing to compare with
        text = f"pandapower's load flow failed: {type(error).__name__}: {error} (--no-compare goes without)"
        raise InputError(text) from error
    table = conversion.net["res_bus_3ph" if asymmetric else "res_bus"]
    columns = {phase: f"vm_{phase}_pu" if asymmetric else "vm_pu" for phase in "abc"}
    voltages = {}
    for index, bus in conversion.buses.items():
        for phase, column in columns.items():
            value = float(table.at[index, column]) * bus.voltage_v / math.sqrt(3)
            if math.isfinite(value):
                voltages[bus.id, phase] = value
    return voltages


class _Conversion:
    """One net on its way into the model."""

    def __init__(self, net: object) -> None:
        pandapower = optional_module("pandapower", "converting a pandapower net")
        if not isinstance(net, pandapower.pandapowerNet):
            raise InputError(f"{type(net).__name__}, expected a pandapower net")
        self.net = net
        self.parts = Parts()
        self.buses: dict[int, Bus] = {}
        for index, row in self._rows("bus"):
            self._bus(index, row)

    def grid(self, name: str) -> Grid:
        """Return the grid."""
        self._refuse_the_unknown()
        self.branch: dict[tuple[str, int], str] = {}
        self.tie: dict[tuple[int, int | None], str] = {}
        self.half_open = self._half_open_lines()
        for index, row in self._rows("line"):
            self._line(index, row)
        for index, row in self._rows("trafo"):
            self._transformer(index, row)
        for index, row in self._rows("impedance"):
            self._impedance(index, row)
        for index, row in self._rows("switch", service=False):
            self._switch(index, row)
        for index, row in self._rows("ext_grid"):
            self._source("ext_grid", index, row)
        for table in LOADS:
            for index, row in self._rows(table):
                self._load(table, index, row)
        for index, row in self._rows("gen"):
            self._generator(index, row)
        for index, row in self._rows("shunt"):
            self._shunt(index, row, self._number("shunt", index, row, "step", 1.0))
        for index, row in self._rows("ward"):
            self._ward(index, row)
        frequency = self.net["f_hz"] if is_number(self.net["f_hz"]) else 50.0
        return self.parts.grid(name, "pandapower", float(frequency))

    def _rows(self, table: str, *, service: bool = True) -> Iterator[tuple[int, Row]]:
        if table not in self.net or not len(self.net[table]):
            return
        frame = self.net[table]
        for index, row in zip(frame.index, frame.to_dict("records"), strict=True):
            if not service or bool(row.get("in_service", True)):
                yield int(index), row

    def _number(self, table: str, index: int, row: Row, column: str, default: float | None = None) -> float:
        value = row.get(column, default)
        if is_number(value):
            return float(value)  # type: ignore[arg-type]
        if default is not None:
            return default
        self.parts.find(table, str(index), column, f"{value!r}, expected a number")
        return 1.0

    def _parallel(self, table: str, index: int, row: Row) -> float:
        """Return how many of a branch lie side by side."""
        count = self._number(table, index, row, "parallel", 1.0)
        if count > 0:
            return count
        self.parts.find(table, str(index), "parallel", f"{count:g}, expected a positive number")
        return 1.0

    def _refuse_the_unknown(self) -> None:
        for table in REFUSED:
            if any(self._rows(table)):
                self.parts.find(table, "", "table", "has elements that the model cannot represent")

    def _at(self, table: str, index: int, row: Row, column: str = "bus") -> str | None:
        bus = whole(row.get(column))
        if bus is None or bus not in self.net["bus"].index:
            self.parts.find(table, str(index), column, f"{row.get(column)!r} is not in the net")
            return None
        known = self.buses.get(bus)
        return known.id if known else None  # a bus out of service takes what hangs on it along

    def _bus(self, index: int, row: Row) -> None:
        x, y = _position(row.get("geo"))
        bus = Bus(
            id=self.parts.name("bus", row.get("name"), f"bus_{index}"),
            voltage_v=self._number("bus", index, row, "vn_kv") * 1e3,
            x_m=x,
            y_m=y,
        )
        self.buses[index] = bus
        self.parts.buses.append(bus)

    def _line(self, index: int, row: Row) -> None:
        one, other = self._at("line", index, row, "from_bus"), self._at("line", index, row, "to_bus")
        if one is None or other is None:
            return
        parallel = self._parallel("line", index, row)

        def value(column: str, default: float | None = None) -> float:
            return self._number("line", index, row, column, default)

        z1 = complex(value("r_ohm_per_km"), value("x_ohm_per_km")) / parallel
        has_zero = is_number(row.get("r0_ohm_per_km")) and is_number(row.get("x0_ohm_per_km"))
        z0 = complex(value("r0_ohm_per_km"), value("x0_ohm_per_km")) / parallel if has_zero else None
        c0 = value("c0_nf_per_km") * parallel if is_number(row.get("c0_nf_per_km")) else None
        if value("g_us_per_km", 0.0):
            self.parts.assume("shunt conductance of lines left out")
        current = value("max_i_ka", 0.0) * 1e3 * parallel
        kind = self.parts.sequence_type(
            str(row.get("std_type") or "line"),
            z1=z1,
            z0=z0,
            c1=value("c_nf_per_km", 0.0) * parallel,
            c0=c0,
            rated_current_a=current,
        )
        name = self.parts.name("branch", row.get("name"), f"line_{index}")
        self.branch["l", index] = name
        if index in self.half_open and value("c_nf_per_km", 0.0):
            one, other = self._open_end(index, row, name, one, other)
        self.parts.lines.append(Line(name, one, other, kind, value("length_km")))

    def _half_open_lines(self) -> dict[int, int]:
        """Return the lines with an open switch at one end only: line and bus at that end."""
        ends: dict[int, set[int]] = {}
        for _, row in self._rows("switch", service=False):
            line, bus = whole(row.get("element")), whole(row.get("bus"))
            if row.get("et") == "l" and not row.get("closed") and line is not None and bus in self.buses:
                ends.setdefault(line, set()).add(bus)
        return {line: next(iter(buses)) for line, buses in ends.items() if len(buses) == 1}

    def _open_end(self, index: int, row: Row, name: str, one: str, other: str) -> tuple[str, str]:
        """End a half-open line in a bus of its own, tied by the open switch: it still draws its charging current."""
        at = self.half_open[index]
        if at not in (row["from_bus"], row["to_bus"]):
            return one, other
        bus = self.parts.name("bus", f"{name}_open_end", "")
        self.parts.buses.append(Bus(bus, self.buses[at].voltage_v))
        self.tie[index, at] = self.parts.name("branch", f"tie_{bus}", "tie")
        self.parts.tie(self.tie[index, at], bus, self.buses[at].id)
        return (bus, other) if at == row["from_bus"] else (one, bus)

    def _transformer(self, index: int, row: Row) -> None:
        high, low = self._at("trafo", index, row, "hv_bus"), self._at("trafo", index, row, "lv_bus")
        if high is None or low is None:
            return

        def value(column: str, default: float | None = None) -> float:
            return self._number("trafo", index, row, column, default)

        parallel, power = self._parallel("trafo", index, row), value("sn_mva") * 1e6
        from_factor, to_factor, steps = self._taps(index, row)
        name = self.parts.name("branch", row.get("name"), f"transformer_{index}")
        self.branch["t", index] = name
        self.parts.transformers.append(
            Transformer(
                id=name,
                from_bus=high,
                to_bus=low,
                rated_power_va=power * parallel,
                rated_from_v=value("vn_hv_kv") * 1e3 * from_factor,
                rated_to_v=value("vn_lv_kv") * 1e3 * to_factor,
                uk_percent=value("vk_percent"),
                ukr_percent=value("vkr_percent"),
                vector_group=self._vector_group(row, value("shift_degree", 0.0)),
                uk0_percent=value("vk0_percent", 0.0),
                ukr0_percent=value("vkr0_percent", 0.0),
                no_load_loss_w=value("pfe_kw", 0.0) * 1e3 * parallel,
                no_load_current_percent=max(
                    value("i0_percent", 0.0), 100 * value("pfe_kw", 0.0) * 1e3 / power if power else 0.0
                ),
                tap_position=steps,
                tap_step_percent=value("tap_step_percent", 0.0) if steps else 0.0,
            )
        )

    def _taps(self, index: int, row: Row) -> tuple[float, float, int]:
        """Return factors of the rated voltages, and whole steps of a changer at the high-voltage side.

        Any other tap is part of a rated voltage: as in pandapower, the impedance then follows the tapped low side.
        """
        if row.get("tap_dependency_table") is True or row.get("tap_changer_type") == "Tabular":
            self.parts.find("trafo", str(index), "tap_dependency_table", "tables of taps are not represented")
        factors, steps = {"hv": 1.0, "lv": 1.0}, 0
        for tap in ("tap", "tap2"):
            position, neutral, percent, degree = (
                self._number("trafo", index, row, f"{tap}_{column}", 0.0)
                for column in ("pos", "neutral", "step_percent", "step_degree")
            )
            changer = row.get(f"{tap}_changer_type", "Ratio")
            side = row.get(f"{tap}_side")
            if changer not in ("Ratio", "Symmetrical", "Ideal") or side not in factors or position == neutral:
                continue  # without a type pandapower lets a tap have no effect
            if degree:
                self.parts.find("trafo", str(index), f"{tap}_step_degree", "phase-shifting taps are not represented")
            elif tap == "tap" and side == "hv" and float(position - neutral).is_integer():
                steps = int(position - neutral)
            else:
                factors[str(side)] *= 1 + (position - neutral) * percent / 100
                self.parts.assume("a tap at the low-voltage side or between steps is part of the rated voltage")
        return factors["hv"], factors["lv"], steps

    def _vector_group(self, row: Row, shift_degree: float) -> str:
        clock = round(shift_degree / 30) % 12
        group = row.get("vector_group")
        if isinstance(group, str) and group.strip():
            return group.rstrip("0123456789") + str(clock)
        self.parts.assume(f"vector group not given: {CLOCKS.get(clock, f'Dd{clock}')} from the phase shift")
        return CLOCKS.get(clock, f"Dd{clock}")

    def _switch(self, index: int, row: Row) -> None:
        kind, element, closed = row.get("et"), whole(row.get("element")), bool(row.get("closed"))
        name = self.parts.name("switch", row.get("name"), f"switch_{index}")
        if kind in ("l", "t") and element is not None:
            own = self.branch.get((str(kind), element))
            branch = self.tie.get((element, whole(row.get("bus"))), own) if kind == "l" else own
            if branch is not None:
                self.parts.switches.append(Switch(name, branch, closed))
        elif kind == "b":
            one, other = self._at("switch", index, row), self._at("switch", index, row, "element")
            if one is not None and other is not None:
                tie = self.parts.name("branch", f"tie_{name}", "tie")
                self._coupler(tie, one, other, self._number("switch", index, row, "z_ohm", 0.0))
                self.parts.switches.append(Switch(name, tie, closed))
        elif not closed:
            self.parts.find("switch", str(index), "et", f"{kind!r}, expected 'l', 't' or 'b'")

    def _coupler(self, name: str, one: str, other: str, ohm: float) -> None:
        """Add a bus-bus switch; with an impedance it has pandapower's default ratio of R to X."""
        if ohm <= 0:
            self.parts.tie(name, one, other)
            return
        z = complex(SWITCH_RX, 1) / abs(complex(SWITCH_RX, 1)) * ohm
        self.parts.assume(f"impedance of switches: R/X {SWITCH_RX:g}, zero sequence equal to the positive one")
        kind = self.parts.sequence_type("switch", z1=z, z0=z, c1=0.0, c0=0.0, rated_current_a=0.0)
        self.parts.lines.append(Line(name, one, other, kind, 1.0))

    def _impedance(self, index: int, row: Row) -> None:
        """Add a series impedance between two buses of one voltage, alike in both directions."""
        one, other = self._at("impedance", index, row, "from_bus"), self._at("impedance", index, row, "to_bus")
        if one is None or other is None:
            return

        def value(column: str, default: float | None = None) -> float:
            return self._number("impedance", index, row, column, default)

        level = {bus.id: bus.voltage_v for bus in self.buses.values()}
        there, back = (complex(value(f"r{way}_pu"), value(f"x{way}_pu")) for way in ("ft", "tf"))
        shunts = any(value(column, 0.0) for column in ("gf_pu", "bf_pu", "gt_pu", "bt_pu"))
        if there != back or shunts or level[one] != level[other]:
            text = "expected r and x alike in both directions, no shunts, one voltage"
            self.parts.find("impedance", str(index), "rft_pu", text)
            return
        base_ohm = level[one] ** 2 / (value("sn_mva") * 1e6 or 1.0)
        zero = [row.get(f"{part}0ft_pu") for part in "rx"]
        z0 = complex(value("r0ft_pu"), value("x0ft_pu")) * base_ohm if all(map(is_number, zero)) else None
        kind = self.parts.sequence_type("impedance", z1=there * base_ohm, z0=z0, c1=0.0, c0=0.0, rated_current_a=0.0)
        name = self.parts.name("branch", row.get("name"), f"impedance_{index}")
        self.parts.lines.append(Line(name, one, other, kind, 1.0))

    def _source(self, table: str, index: int, row: Row) -> None:
        """An external grid, or the generator that takes its part."""
        bus = self._at(table, index, row)
        if bus is None:
            return
        level = next(item.voltage_v for item in self.buses.values() if item.id == bus)
        self.parts.sources.append(
            Source(
                id=self.parts.name("source", row.get("name"), f"{table}_{index}"),
                bus=bus,
                voltage_v=level * self._number(table, index, row, "vm_pu", 1.0),
                angle_rad=math.radians(self._number(table, index, row, "va_degree", 0.0)),
            )
        )
        self.parts.assumptions.setdefault("external grid taken as stiff, as in pandapower's balanced load flow", 1)

    def _load(self, table: str, index: int, row: Row) -> None:
        bus = self._at(table, index, row)
        if bus is None:
            return
        kind, sign = LOADS[table]
        scaling = sign * self._number(table, index, row, "scaling", 1.0) * 1e6
        active, reactive = self._powers(table, index, row)
        connection: Literal["wye", "delta"] = "delta" if str(row.get("type")) == "delta" else "wye"
        if connection == "delta" and not table.startswith("asymmetric"):
            connection = "wye"  # balanced: the same, and it keeps phase quantities
        self.parts.loads.append(
            Load(
                id=self.parts.name("load", row.get("name"), f"{table}_{index}"),
                bus=bus,
                connection=connection,
                power_w=tuple(scaling * value for value in active),
                power_var=tuple(scaling * value for value in reactive),
                zip=self._zip(table, index, row),
                kind=kind,
            )
        )

    def _powers(self, table: str, index: int, row: Row) -> tuple[tuple[float, ...], tuple[float, ...]]:
        def value(column: str) -> float:
            return self._number(table, index, row, column, 0.0)

        if table.startswith("asymmetric"):
            return tuple(value(f"p_{p}_mw") for p in "abc"), tuple(value(f"q_{p}_mvar") for p in "abc")
        if table == "motor":
            share = value("loading_percent") / 100 / (value("efficiency_percent") / 100 or 1.0)
            active = value("pn_mech_mw") * share
            phi = math.acos(min(max(value("cos_phi"), 0.05), 1.0))
            return thirds(active), thirds(active * math.tan(phi))
        return thirds(value("p_mw")), thirds(value("q_mvar"))

    def _zip(self, table: str, index: int, row: Row) -> tuple[float, float, float]:
        def share(kind: str) -> float:
            both = [
                self._number(table, index, row, f"const_{kind}_{axis}percent", 0.0) / 100 for axis in ("", "p_", "q_")
            ]
            if both[1] != both[2]:
                self.parts.find(table, str(index), f"const_{kind}_p_percent", "differs from that of q, expected equal")
            return both[0] or both[1]

        z, i = share("z"), share("i")
        return z, i, 1.0 - z - i

    def _generator(self, index: int, row: Row) -> None:
        if row.get("slack") is True:
            self._source("gen", index, row)
            return
        bus = self._at("gen", index, row)
        if bus is None:
            return
        self.parts.assume("voltage-controlled generator: constant active power, no reactive power")
        power = -1e6 * self._number("gen", index, row, "p_mw") * self._number("gen", index, row, "scaling", 1.0)
        name = self.parts.name("load", row.get("name"), f"gen_{index}")
        self.parts.loads.append(Load(name, bus, power_w=thirds(power), kind="generation"))

    def _shunt(self, index: int, row: Row, step: float) -> None:
        bus = self._at("shunt", index, row)
        if bus is None:
            return
        level = next(item.voltage_v for item in self.buses.values() if item.id == bus)
        rated = self._number("shunt", index, row, "vn_kv", level / 1e3) * 1e3
        g = step * 1e6 * self._number("shunt", index, row, "p_mw", 0.0) / rated**2
        b = -step * 1e6 * self._number("shunt", index, row, "q_mvar", 0.0) / rated**2
        name = self.parts.name("shunt", row.get("name"), f"shunt_{index}")
        self.parts.shunts.append(Shunt(name, bus, g_s=(g,) * 3, b_s=(b,) * 3))

    def _ward(self, index: int, row: Row) -> None:
        """A ward is a constant power (ps, qs) and a constant impedance (pz, qz)."""
        bus = self._at("ward", index, row)
        for part, shares in (("s", (0.0, 0.0, 1.0)), ("z", (1.0, 0.0, 0.0))):
            columns = (f"p{part}_mw", f"q{part}_mvar")
            active, reactive = (thirds(1e6 * self._number("ward", index, row, column, 0.0)) for column in columns)
            if bus is not None:
                name = self.parts.name("load", None, f"ward_{part}_{index}")
                load = Load(name, bus, power_w=active, power_var=reactive, zip=shares, kind="other")
                self.parts.loads.append(load)


def _position(geo: object) -> tuple[float | None, float | None]:
    """Return x and y of a GeoJSON point."""
    try:
        point = json.loads(geo) if isinstance(geo, str) else geo
        x, y = point["coordinates"][:2]  # type: ignore[index]
        return float(x), float(y)
    except (TypeError, ValueError, KeyError):
        return None, None
