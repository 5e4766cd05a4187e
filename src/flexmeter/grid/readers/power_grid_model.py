"""power-grid-model JSON: input datasets to grids. Needs no power-grid-model."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from flexmeter.errors import InputError
from flexmeter.grid.impedance import as_matrix, sequence_to_phase
from flexmeter.grid.model import Bus, Grid, Line, Load, Matrix, Shunt, Source, Switch, Transformer
from flexmeter.grid.readers.parts import Parts, is_number, nested, thirds
from flexmeter.grid.readers.power_grid_model_files import Row, dataset

WINDINGS = {0: "Y", 1: "YN", 2: "D", 3: "Z", 4: "ZN"}
READ = {
    "node", "line", "asym_line", "link", "transformer", "transformer_tap_regulator", "source", "shunt", "sym_load",
    "asym_load", "sym_gen", "asym_gen",
}  # fmt: skip
REFUSED = {"three_winding_transformer", "generic_branch"}
ZIP = {0: (0.0, 0.0, 1.0), 1: (1.0, 0.0, 0.0), 2: (0.0, 1.0, 0.0)}
ZIGZAG = 0.1
"""Z0/Z1 of a zigzag winding, as power-grid-model has it."""
PHASES3 = ("a", "b", "c")


def read_power_grid_model(path: Path | str) -> Grid:
    """Read an input dataset; `InputError` names component, id, field and what was expected.

    Attributes beyond the format that are called `name` become ids (our writer adds them), otherwise the number does.
    """
    return _Conversion(dataset(path, "input")).grid(Path(path).stem)


def power_grid_model_voltages(path: Path | str) -> dict[tuple[str, str], float]:
    """Return |V| per (bus id, phase) [V] of power-grid-model's own load flow; empty if it is not installed.

    Raises
    ------
    InputError
        its load flow refuses the file or does not converge.
    """
    if find_spec("power_grid_model") is None:
        return {}
    program = import_module("power_grid_model")
    deserialize = import_module("power_grid_model.utils").json_deserialize
    conversion = _Conversion(dataset(path, "input"))
    conversion.grid(Path(path).stem)
    try:
        model = program.PowerGridModel(deserialize(Path(path).read_text(encoding="utf-8")))
        nodes = model.calculate_power_flow(symmetric=False, error_tolerance=1e-7, max_iterations=50)["node"]
    except Exception as error:  # its errors share no class with a broken file's
        text = " ".join(str(error).split())
        raise InputError(f"{path}: power-grid-model's load flow failed: {text} (--no-compare goes without)") from error
    voltages = {}
    for number, energized, row in zip(nodes["id"], nodes["energized"], nodes["u"], strict=True):
        if energized and int(number) in conversion.bus:
            for phase, value in zip(PHASES3, row, strict=True):
                voltages[conversion.bus[int(number)].id, phase] = float(value)
    return voltages


def power_grid_model_loads(path: Path | str) -> dict[str, str]:
    """Return the load id of every load and generator by its number: update batches may give no names."""
    conversion = _Conversion(dataset(path, "input"))
    conversion.grid(Path(path).stem)
    return conversion.load_ids


class _Conversion:
    """One input dataset on its way into the model."""

    def __init__(self, data: object) -> None:
        if not isinstance(data, dict):
            raise InputError("batch, expected one input dataset")
        self.data: dict[str, list[Row]] = data
        self.parts = Parts()
        self.bus: dict[int, Bus] = {}
        self.load_ids: dict[str, str] = {}

    def grid(self, name: str) -> Grid:
        """Return the grid."""
        readers: dict[str, Callable[[Row, str], None]] = {
            "node": self._node,
            "line": self._line,
            "asym_line": self._asym_line,
            "link": self._link,
            "transformer": self._transformer,
            "source": self._source,
            "shunt": self._shunt,
        }
        for component, read in readers.items():
            for row in self.data.get(component, []):
                read(row, component)
        for component in ("sym_load", "asym_load", "sym_gen", "asym_gen"):
            for row in self.data.get(component, []):
                self._load(row, component)
        for component in self.data.keys() & REFUSED:
            self.parts.find(component, "", "component", "cannot be represented")
        for component in sorted(self.data.keys() - READ - REFUSED):
            self.parts.assume(f"{component} left out")
        if self.data.get("transformer_tap_regulator"):
            self.parts.assume("tap regulators left out: taps stay where they are")
        return self.parts.grid(name, "power-grid-model")

    def _number(self, row: Row, component: str, field: str, default: float | None = None) -> float:
        value = row.get(field, default)
        if value is None and default is not None:
            return default
        if is_number(value):
            return float(value)  # type: ignore[arg-type]
        self.parts.find(component, str(row.get("id")), field, f"{value!r}, expected a number")
        return 1.0

    def _named(self, kind: str, row: Row, component: str) -> str:
        name = row.get("name", row.get("id"))
        return self.parts.name(kind, name, component)

    def _at(self, row: Row, component: str, field: str) -> Bus | None:
        node = row.get(field)
        if isinstance(node, int) and node in self.bus:
            return self.bus[node]
        self.parts.find(component, str(row.get("id")), field, f"{node!r} is not in the grid")
        return None

    def _node(self, row: Row, component: str) -> None:
        number = row.get("id")
        if not isinstance(number, int) or number in self.bus:
            self.parts.find(component, str(number), "id", "expected a number that is used once")
            return
        x, y = (float(v) if is_number(v := row.get(axis)) else None for axis in ("x_m", "y_m"))  # type: ignore[arg-type]
        bus = Bus(self._named("bus", row, component), self._number(row, component, "u_rated"), x_m=x, y_m=y)
        self.bus[number] = bus
        self.parts.buses.append(bus)

    def _line(self, row: Row, component: str) -> None:
        def value(field: str, default: float | None = None) -> float:
            return self._number(row, component, field, default)

        if value("tan1", 0.0) or value("tan0", 0.0):
            self.parts.assume("dielectric losses of lines (tan1, tan0) left out")
        z0 = complex(value("r0"), value("x0")) if "r0" in row and "x0" in row else None
        c1 = value("c1", 0.0) * 1e9
        kind = self.parts.sequence_type(
            f"line_{row.get('id')}",
            z1=complex(value("r1"), value("x1")),
            z0=z0,
            c1=c1,
            c0=value("c0", 0.0) * 1e9 if "c0" in row else None,
            rated_current_a=self._rated(row),
        )
        self._section(row, component, kind, bool(c1))

    def _rated(self, row: Row) -> float:
        current = row.get("i_n", 0.0)
        return float(current) if is_number(current) else 0.0  # type: ignore[arg-type]

    def _asym_line(self, row: Row, component: str) -> None:
        order = "abcn" if row.get("r_nn") is not None else "abc"

        def matrix(letter: str, conductors: str) -> Matrix:
            n = len(conductors)
            full = np.zeros((n, n))
            for i in range(n):
                for j in range(i + 1):
                    field = f"{letter}_{conductors[i]}{conductors[j]}"
                    full[i, j] = full[j, i] = self._number(row, component, field)
            return as_matrix(full)

        if "c_aa" in row:
            farads = matrix("c", "abc")
            c = nested([value * 1e9 for value in line] for line in farads)
        else:
            c1, c0 = (self._number(row, component, field, 0.0) * 1e9 for field in ("c1", "c0"))
            c = as_matrix(sequence_to_phase(complex(c1), complex(c0)).real) if c1 or c0 else ()
        kind = self.parts.matrix_type(
            f"line_{row.get('id')}",
            r=matrix("r", order),
            x=matrix("x", order),
            c=c,
            neutral="everywhere" if len(order) == 4 else "none",
            rated_current_a=self._rated(row),
        )
        self._section(row, component, kind, bool(c))

    def _section(self, row: Row, component: str, kind: str, charged: bool) -> None:
        """Add a line of length 1 km (the file gives totals); one open end keeps its charging current."""
        one, other = self._at(row, component, "from_node"), self._at(row, component, "to_node")
        if one is None or other is None:
            return
        ends = [self._number(row, component, field, 1.0) != 0 for field in ("from_status", "to_status")]
        name = self._named("branch", row, component)
        if all(ends):
            self.parts.lines.append(Line(name, one.id, other.id, kind, 1.0))
        elif any(ends) and charged:
            fed = one if ends[0] else other
            bus = Bus(self.parts.name("bus", f"{name}_open_end", ""), fed.voltage_v)
            self.parts.buses.append(bus)
            self.parts.lines.append(Line(name, fed.id, bus.id, kind, 1.0))
            tie = self.parts.name("branch", f"tie_{bus.id}", "tie")
            self.parts.tie(tie, bus.id, (other if ends[0] else one).id)
            self._open(tie)
        else:
            self.parts.lines.append(Line(name, one.id, other.id, kind, 1.0))
            self._open(name)

    def _open(self, branch: str) -> None:
        self.parts.switches.append(Switch(self.parts.name("switch", f"switch_{branch}", ""), branch, closed=False))

    def _link(self, row: Row, component: str) -> None:
        one, other = self._at(row, component, "from_node"), self._at(row, component, "to_node")
        if one is None or other is None:
            return
        name = self._named("branch", row, component)
        self.parts.tie(name, one.id, other.id)
        closed = all(self._number(row, component, field, 1.0) != 0 for field in ("from_status", "to_status"))
        self.parts.switches.append(Switch(self.parts.name("switch", f"switch_{name}", ""), name, closed))

    def _transformer(self, row: Row, component: str) -> None:
        one, other = self._at(row, component, "from_node"), self._at(row, component, "to_node")
        if one is None or other is None:
            return

        def value(field: str, default: float | None = None) -> float:
            return self._number(row, component, field, default)

        group = "".join(
            [WINDINGS.get(int(value("winding_from")), "?"), WINDINGS.get(int(value("winding_to")), "?").lower()]
        ) + str(int(value("clock", 0.0)) % 12)
        side: Literal["from", "to"] = "to" if value("tap_side", 0.0) else "from"
        rated = value("u2" if side == "to" else "u1")
        direction = -1.0 if value("tap_min", 0.0) > value("tap_max", 0.0) else 1.0
        sn = value("sn")
        if any(is_number(row.get(f"{axis}_grounding_{end}")) for axis in "rx" for end in ("from", "to")):
            self.parts.assume("grounding impedance of transformers left out")
        zigzag = 0.0
        if group[-1:].isdigit() and "zn" in group:
            zigzag = ZIGZAG
            self.parts.assume("zero-sequence impedance of zigzag transformers a tenth of the positive one")
        name = self._named("branch", row, component)
        self.parts.transformers.append(
            Transformer(
                id=name,
                from_bus=one.id,
                to_bus=other.id,
                rated_power_va=sn,
                rated_from_v=value("u1"),
                rated_to_v=value("u2"),
                uk_percent=100 * value("uk"),
                ukr_percent=100 * value("pk") / sn if sn else 0.0,
                vector_group=group,
                uk0_percent=100 * zigzag * value("uk"),
                ukr0_percent=100 * zigzag * value("pk") / sn if sn else 0.0,
                no_load_loss_w=value("p0", 0.0),
                no_load_current_percent=100 * max(value("i0", 0.0), value("p0", 0.0) / sn if sn else 0.0),
                tap_side=side,
                tap_position=round(value("tap_pos", value("tap_nom", 0.0))),
                tap_neutral=round(value("tap_nom", 0.0)),
                tap_step_percent=100 * direction * value("tap_size", 0.0) / rated if rated else 0.0,
            )
        )
        if not all(value(field, 1.0) for field in ("from_status", "to_status")):
            self._open(name)

    def _source(self, row: Row, component: str) -> None:
        bus = self._at(row, component, "node")
        if bus is None or not self._number(row, component, "status", 1.0):
            return
        power, ratio = self._number(row, component, "sk", 1e10), self._number(row, component, "rx_ratio", 0.1)
        z = bus.voltage_v**2 / power / math.hypot(1, ratio) if power else 0.0
        zero = self._number(row, component, "z01_ratio", 1.0)
        self.parts.sources.append(
            Source(
                id=self._named("source", row, component),
                bus=bus.id,
                voltage_v=bus.voltage_v * self._number(row, component, "u_ref", 1.0),
                angle_rad=self._number(row, component, "u_ref_angle", 0.0),
                r1_ohm=z * ratio,
                x1_ohm=z,
                r0_ohm=z * ratio * zero,
                x0_ohm=z * zero,
            )
        )

    def _shunt(self, row: Row, component: str) -> None:
        bus = self._at(row, component, "node")
        if bus is None or not self._number(row, component, "status", 1.0):
            return
        g, b = self._number(row, component, "g1", 0.0), self._number(row, component, "b1", 0.0)
        self.parts.assume("zero-sequence admittance of shunts taken equal to the positive one")
        self.parts.shunts.append(Shunt(self._named("shunt", row, component), bus.id, g_s=(g,) * 3, b_s=(b,) * 3))

    def _load(self, row: Row, component: str) -> None:
        bus = self._at(row, component, "node")
        if bus is None or not self._number(row, component, "status", 1.0):
            return
        sign = -1.0 if component.endswith("gen") else 1.0
        powers = []
        for field in ("p_specified", "q_specified"):
            values = row.get(field)
            if component.startswith("sym"):
                powers.append(thirds(sign * self._number(row, component, field, 0.0)))
            elif values is None:
                powers.append((0.0,) * 3)
            elif isinstance(values, list) and len(values) == 3 and all(is_number(v) for v in values):
                powers.append(tuple(sign * float(v) for v in values))
            else:
                self.parts.find(component, str(row.get("id")), field, f"{values!r}, expected three numbers")
                return
        kind = int(self._number(row, component, "type", 0.0))
        if kind not in ZIP:
            self.parts.find(component, str(row.get("id")), "type", f"{kind}, expected 0, 1 or 2")
            return
        phases = _phases(row.get("phases"))
        name = self.load_ids[str(row.get("id"))] = self._named("load", row, component)
        self.parts.loads.append(
            Load(
                id=name,
                bus=bus.id,
                phases=phases,
                power_w=tuple(powers[0]["abc".index(p)] for p in phases),
                power_var=tuple(powers[1]["abc".index(p)] for p in phases),
                zip=ZIP[kind],
                kind="generation" if component.endswith("gen") else "customer",
            )
        )


def _phases(value: object) -> str:
    """Return the phases our writer notes beside a load, all of them in files of others."""
    return value if isinstance(value, str) and value and set(value) <= set("abc") else "abc"
