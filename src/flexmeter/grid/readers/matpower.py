"""MATPOWER cases (.m, version 2): balanced per-unit tables, read without MATLAB."""

from __future__ import annotations

import math
import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import InputError
from flexmeter.grid.model import PHASES, Bus, Grid, Line, Load, Shunt, Source, Switch, Transformer
from flexmeter.grid.readers.parts import Parts, thirds

Table = NDArray[np.float64]
Row = list[float]
FREQUENCY_HZ = 50.0
COLUMNS = {"bus": 13, "gen": 8, "branch": 11}
_KILOWATTS = re.compile(r"mpc\.bus\(:,\s*\[PD,?\s*QD\]\)\s*=\s*mpc\.bus\(:,\s*\[PD,?\s*QD\]\)\s*/\s*1e3")
_OHMS = re.compile(
    r"mpc\.branch\(:,\s*\[BR_R,?\s*BR_X\]\)\s*=\s*mpc\.branch\(:,\s*\[BR_R,?\s*BR_X\]\)\s*/\s*\(Vbase\^2\s*/\s*Sbase\)"
)
_HARMLESS = re.compile(
    r"function\s|mpc\.(version|baseMVA|gencost|areas|bus_name|dclinecost)\b|Vbase\s*=|Sbase\s*="
    r"|\[.*\]\s*=\s*idx_|define_constants|end$|return$"
)
VBASE = r"Vbase\s*=\s*mpc\.bus\(1,\s*BASE_KV\)\s*\*\s*1e3"
SBASE = r"Sbase\s*=\s*mpc\.baseMVA\s*\*\s*1e6"


def read_matpower(path: Path | str) -> Grid:
    """Read a MATPOWER case; `InputError` says which table or statement cannot be read.

    Tables must be plain numbers. Two statements behind them are understood, those of the published distribution
    cases: loads from kW to MW and branches from ohm to per unit; any other statement is refused, not skipped.

    Loads are shared equally by three phases, zero-sequence values assumed (`Grid.assumptions`); branches out of
    service become open switches, and then every branch gets a switch.
    """
    return _Conversion(_case(path)).grid(Path(path).stem)


def matpower_voltages(path: Path | str) -> dict[tuple[str, str], float]:
    """Return |V| per (bus id, phase) [V] of pandapower's load flow of the case's own tables, empty without pandapower.

    Raises
    ------
    InputError
        its load flow does not converge.
    """
    if find_spec("pandapower") is None:
        return {}
    case = _case(path)
    conversion = _Conversion(case)
    conversion.grid(Path(path).stem)
    columns = {"bus": 13, "gen": 10, "branch": 13}
    tables = {name: _widened(getattr(case, name), width) for name, width in columns.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = import_module("pandapower.converter.pypower").from_ppc(
                {"version": "2", "baseMVA": case.base_mva, **tables}, f_hz=FREQUENCY_HZ, validate_conversion=False
            )
            import_module("pandapower").runpp(net, tolerance_mva=1e-9, calculate_voltage_angles=True, numba=False)
    except Exception as error:  # whatever stops pandapower, there is nothing to compare with
        text = f"pandapower's load flow failed: {type(error).__name__}: {error} (--no-compare goes without)"
        raise InputError(f"{path}: {text}") from error
    per_unit = dict(zip((int(number) for number in net.bus.index), net.res_bus["vm_pu"], strict=True))
    return {
        (bus.id, phase): float(per_unit[number]) * bus.voltage_v / math.sqrt(3)
        for number, bus in conversion.bus.items()
        for phase in PHASES
        if math.isfinite(per_unit.get(number, math.nan))
    }


def _widened(table: Table, width: int) -> Table:
    """Return a table with columns of zeros up to a width: what a case may leave out."""
    return np.pad(table, ((0, 0), (0, max(0, width - table.shape[1]))))


def _case(path: Path | str) -> _Case:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return _Case(text, str(path))


class _Case:
    """The tables of a case, in MW and per unit."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        code = re.sub(r"\.\.\.[^\n]*\n", " ", re.sub(r"%[^\n]*", "", text))
        base = re.search(r"mpc\.baseMVA\s*=\s*([0-9.eE+-]+)", code)
        if base is None:
            raise InputError(f"{where}: mpc.baseMVA is missing, expected a MATPOWER case of version 2")
        self.base_mva = self._float(base[1], "baseMVA")
        if not (math.isfinite(self.base_mva) and self.base_mva > 0):
            raise InputError(f"{where}: mpc.baseMVA: {base[1]}, expected a positive number")
        self.bus, self.gen, self.branch = (self._table(code, name) for name in ("bus", "gen", "branch"))
        rest = re.sub(r"mpc\.\w+\s*=\s*[\[{].*?[\]}]\s*;?", "", code, flags=re.DOTALL)
        self._statements([part.strip() for part in re.split(r"[;\n]", rest) if part.strip()], code)

    def _float(self, word: str, table: str) -> float:
        try:
            return float(word)
        except ValueError:
            raise InputError(f"{self.where}: mpc.{table}: {word!r}, expected a number") from None

    def _table(self, code: str, name: str) -> Table:
        match = re.search(rf"mpc\.{name}\s*=\s*\[(.*?)\]", code, re.DOTALL)
        if match is None:
            raise InputError(f"{self.where}: mpc.{name} is missing")
        rows = [re.split(r"[\s,]+", row.strip()) for row in re.split(r"[;\n]", match[1]) if row.strip()]
        table = [[self._float(word, name) for word in row if word] for row in rows]
        widths = {len(row) for row in table}
        if len(widths) != 1 or min(widths) < COLUMNS[name]:
            raise InputError(f"{self.where}: mpc.{name}: rows of {sorted(widths)} columns, expected {COLUMNS[name]}")
        return np.array(table)

    def _statements(self, statements: list[str], code: str) -> None:
        for statement in statements:
            if _KILOWATTS.fullmatch(statement):
                self.bus[:, 2:4] /= 1e3
            elif _OHMS.fullmatch(statement) and re.search(VBASE, code) and re.search(SBASE, code):
                self.branch[:, 2:4] /= self.bus[0, 9] ** 2 / self.base_mva
            elif not _HARMLESS.match(statement):
                raise InputError(f"{self.where}: statement {statement!r} is not known to the MATPOWER reader")


class _Conversion:
    def __init__(self, case: _Case) -> None:
        self.case = case
        self.parts = Parts()
        self.bus: dict[int, Bus] = {}

    def grid(self, name: str) -> Grid:
        """Return the grid."""
        for row in self.case.bus.tolist():
            self._bus(row)
        switchable = bool((self.case.branch[:, 10] == 0).any())
        if switchable:
            self.parts.assume("some branches are out of service: every branch gets a switch")
        for number, row in enumerate(self.case.branch.tolist(), start=1):
            self._branch(number, row, switchable)
        for number, row in enumerate(self.case.gen.tolist(), start=1):
            self._generator(number, row)
        return self.parts.grid(name, "MATPOWER", FREQUENCY_HZ)

    def _at(self, table: str, number: int, value: float) -> Bus | None:
        bus = self.bus.get(int(value)) if math.isfinite(value) else None
        if bus is None:
            self.parts.find(table, str(number), "bus", f"{value:g} is not in mpc.bus")
        return bus

    def _bus(self, row: Row) -> None:
        if not (_finite(row[:10]) and row[9] > 0 and row[0] == int(row[0]) and int(row[0]) not in self.bus):
            self.parts.find("bus", f"{row[0]:g}", "baseKV", "expected finite numbers, a positive voltage, a new number")
            return
        number, volts = int(row[0]), row[9] * 1e3
        bus = Bus(self.parts.name("bus", number, ""), volts)
        self.bus[number] = bus
        self.parts.buses.append(bus)
        p, q, g, b = (value * 1e6 for value in row[2:6])
        if p or q:
            name = self.parts.name("load", f"load_{number}", "")
            self.parts.loads.append(Load(name, bus.id, power_w=thirds(p), power_var=thirds(q)))
        if g or b:
            name = self.parts.name("shunt", f"shunt_{number}", "")
            self.parts.shunts.append(Shunt(name, bus.id, g_s=(g / volts**2,) * 3, b_s=(b / volts**2,) * 3))

    def _branch(self, number: int, row: Row, switchable: bool) -> None:
        one, other = self._at("branch", number, row[0]), self._at("branch", number, row[1])
        if one is None or other is None:
            return
        if not _finite(row[:11]):
            self.parts.find("branch", str(number), "r", "not a finite number")
            return
        name = self.parts.name("branch", f"branch_{number}", "")
        if one.voltage_v == other.voltage_v and row[8] in (0, 1) and row[9] == 0:
            self._line(name, row, one, other)
        else:
            self._transformer(name, number, row, one, other)
        if switchable:
            self.parts.switches.append(Switch(f"switch_{number}", name, closed=bool(row[10])))

    def _line(self, name: str, row: Row, one: Bus, other: Bus) -> None:
        base_ohm = one.voltage_v**2 / (self.case.base_mva * 1e6)
        kind = self.parts.sequence_type(
            name,
            z1=complex(row[2], row[3]) * base_ohm,
            z0=None,
            c1=row[4] / base_ohm / (2 * math.pi * FREQUENCY_HZ) * 1e9,
            c0=None,
            rated_current_a=row[5] * 1e6 / (math.sqrt(3) * one.voltage_v),
        )
        self.parts.lines.append(Line(name, one.id, other.id, kind, 1.0))

    def _transformer(self, name: str, number: int, row: Row, one: Bus, other: Bus) -> None:
        r, x, charging, ratio, shift = row[2], row[3], row[4], row[8] or 1.0, row[9]
        if x < 0 or r < 0 or ratio <= 0 or shift % 30:
            self.parts.find("branch", str(number), "ratio", "a transformer of this kind cannot be represented")
            return
        if charging:
            self.parts.assume("charging of transformers left out")
        clock = round(shift / 30) % 12
        self.parts.assume(f"vector group of transformers assumed: {'YNyn' if clock % 2 == 0 else 'Dyn'}{clock}")
        self.parts.transformers.append(
            Transformer(
                id=name,
                from_bus=one.id,
                to_bus=other.id,
                rated_power_va=self.case.base_mva * 1e6,
                rated_from_v=one.voltage_v * ratio,
                rated_to_v=other.voltage_v,
                uk_percent=100 * math.hypot(r, x),
                ukr_percent=100 * r,
                vector_group=f"{'YNyn' if clock % 2 == 0 else 'Dyn'}{clock}",
            )
        )

    def _generator(self, number: int, row: Row) -> None:
        bus = self._at("gen", number, row[0])
        if bus is None or row[7] <= 0:
            return
        if not _finite(row[:8]):
            self.parts.find("gen", str(number), "Pg", "not a finite number")
            return
        if self.case.bus[self.case.bus[:, 0] == row[0], 1][0] == 3:
            if not any(source.bus == bus.id for source in self.parts.sources):
                self.parts.sources.append(Source(f"source_{bus.id}", bus.id, bus.voltage_v * row[5]))
            return
        self.parts.assume("voltage-controlled generators: constant active and reactive power")
        name = self.parts.name("load", f"gen_{number}", "")
        p, q = -row[1] * 1e6, -row[2] * 1e6
        self.parts.loads.append(Load(name, bus.id, power_w=thirds(p), power_var=thirds(q), kind="generation"))


def _finite(row: Row) -> bool:
    return all(math.isfinite(value) for value in row)
