"""A small reader of OpenDSS scripts: what the IEEE European LV Test Feeder and grids like it use.

Commands `New`, `Edit`, `BatchEdit`, `Redirect`, `Compile`, `Buscoords`, comments and continuation lines; classes
Circuit/Vsource, LineCode, Line, Transformer (two windings, three phases), Load, LoadShape. Values are names, not
positions. Anything else that would change the electrical model is refused with file and line, never skipped.
`flexmeter.grid.readers.opendss` reads the rest by asking the OpenDSS engine itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flexmeter.errors import InputError
from flexmeter.grid.impedance import line_type_from_sequence
from flexmeter.grid.model import PHASES, Bus, Grid, Line, LineType, Load, Source, Transformer
from flexmeter.grid.topology import Branch

IGNORED_CLASSES = frozenset({"monitor", "energymeter"})
IGNORED_COMMANDS = frozenset(
    {"clear", "clearall", "set", "solve", "calcvoltagebases", "calcv", "plot", "show", "export", "closedi"}
)
UNIT_KM = {"km": 1.0, "m": 1e-3, "ft": 0.3048e-3, "kft": 0.3048, "mi": 1.609344, "in": 25.4e-6, "cm": 1e-5}
PROPERTIES = {
    "linecode": {"nphases", "r1", "x1", "r0", "x0", "c1", "c0", "units", "basefreq", "normamps", "emergamps"},
    "line": {"bus1", "bus2", "phases", "linecode", "length", "units", "switch", "enabled"},
    "transformer": {"phases", "windings", "buses", "conns", "kvs", "kvas", "xhl", "%loadloss", "%rs", "sub", "enabled"},
    "load": {"phases", "bus1", "kv", "kw", "pf", "kvar", "yearly", "daily", "conn", "model", "vminpu", "vmaxpu"},
    "vsource": {"bus1", "basekv", "pu", "angle", "isc3", "isc1", "mvasc3", "mvasc1", "x1r1", "x0r0", "phases"},
    "loadshape": {"npts", "minterval", "interval", "mult", "useactual"},
}
_TOKEN = re.compile(r"""([^\s=,]+)\s*=\s*(\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|"[^"]*"|'[^']*'|[^\s,]*)|([^\s,]+)""")


@dataclass
class Element:
    """One OpenDSS object: class, name, its properties and where it was created."""

    kind: str
    name: str
    where: str
    values: dict[str, str] = field(default_factory=dict)

    def number(self, name: str, default: float) -> float:
        """Return a property as number."""
        text = self.values.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{self.where}: {self.kind}.{self.name} {name}: {text!r}, expected a number")
        return value

    def words(self, name: str, count: int) -> list[str]:
        """Return a property that is a list of `count` words."""
        words = re.split(r"[\s,|]+", self.values.get(name, "").strip("[](){}\"' "))
        if len(words) != count or not all(words):
            raise InputError(f"{self.where}: {self.kind}.{self.name} {name}: expected {count} values, found {words}")
        return words


@dataclass(frozen=True)
class DssCase:
    """What a script describes: the grid, and the load shape (lower-case name) of every load that has one."""

    grid: Grid
    shapes: dict[str, str]


def read_dss(path: Path | str) -> DssCase:
    """Read an OpenDSS script; `InputError` names file, line and what was expected."""
    script = _Script()
    script.run(Path(path))
    return _Builder(script).case(Path(path))


class _Script:
    """The objects that a script and those it redirects to leave behind."""

    def __init__(self) -> None:
        self.elements: dict[tuple[str, str], Element] = {}
        self.coordinates: dict[str, tuple[float, float]] = {}
        self.frequency_hz = 60.0
        self.circuit = ""

    def run(self, path: Path, depth: int = 0) -> None:
        if depth > 20:
            raise InputError(f"{path}: redirected more than 20 levels deep, expected no circle")
        for where, text in _lines(path):
            self._command(path, where, text, depth)

    def _command(self, path: Path, where: str, text: str, depth: int) -> None:
        command, _, rest = text.partition(" ")
        command, rest = command.lower(), rest.strip()
        if command in ("new", "edit", "batchedit"):
            self._object(command, rest, where)
        elif command in ("redirect", "compile"):
            self.run(path.parent / rest.strip("\"'[](){} ").replace("\\", "/"), depth + 1)
        elif command in ("buscoords", "latloncoords"):
            self._read_coordinates(path.parent / rest.strip("\"'[](){} "))
        elif command == "set":
            for match in _TOKEN.finditer(rest):
                if match[1] and match[1].lower() == "defaultbasefrequency":
                    self.frequency_hz = Element("set", "", where, {"frequency": match[2]}).number("frequency", 60)
        elif command not in IGNORED_COMMANDS:
            raise InputError(f"{where}: command {command!r} is not known to the small OpenDSS reader")

    def _object(self, command: str, rest: str, where: str) -> None:
        head, _, tail = rest.partition(" ")
        head = head.lower().removeprefix("object=")
        kind, _, name = head.partition(".")
        if kind in IGNORED_CLASSES:
            return
        if kind == "circuit":
            self.circuit, kind, name = name or "circuit", "vsource", "source"
        if kind not in PROPERTIES:
            raise InputError(f"{where}: class {kind!r} is not known to the small OpenDSS reader")
        values = _properties(kind, tail, where)
        if command == "new":
            self.elements[kind, name] = Element(kind, name, where)
        for element in self._selected(command, kind, name, where):
            if kind == "load":
                _keep_power_factor(element, values)
            element.values.update(values)

    def _selected(self, command: str, kind: str, name: str, where: str) -> list[Element]:
        if command == "batchedit":
            try:
                pattern = re.compile(name)
            except re.error as error:
                raise InputError(f"{where}: {name!r} is no regular expression: {error}") from error
            return [item for item in self.elements.values() if item.kind == kind and pattern.match(item.name)]
        if (kind, name) not in self.elements:
            raise InputError(f"{where}: {kind}.{name} does not exist")
        return [self.elements[kind, name]]

    def _read_coordinates(self, path: Path) -> None:
        for where, text in _lines(path):
            words = re.split(r"[\s,]+", text)
            try:
                self.coordinates[words[0].lower()] = float(words[1]), float(words[2])
            except (IndexError, ValueError):
                raise InputError(f"{where}: {text!r}, expected bus, x, y") from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (file:line, command) without comments, continuation lines joined."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    pending: tuple[str, str] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.split(r"!|//", raw, maxsplit=1)[0].strip()
        more = re.match(r"(?:~|more\b)\s*", line, re.IGNORECASE)
        if more and pending:
            pending = pending[0], f"{pending[1]} {line[more.end() :]}"
            continue
        if pending:
            yield pending
        pending = (f"{path.name}:{number}", line) if line else None
    if pending:
        yield pending


def _properties(kind: str, text: str, where: str) -> dict[str, str]:
    values = {}
    for match in _TOKEN.finditer(text):
        if match[1] is None:
            raise InputError(f"{where}: {match[3]!r}, expected name=value")
        name = match[1].lower()
        if name not in PROPERTIES[kind]:
            raise InputError(f"{where}: {kind} property {name!r} is not known to the small OpenDSS reader")
        values[name] = match[2].strip("\"'")
    return values


def _keep_power_factor(load: Element, values: dict[str, str]) -> None:
    """As in OpenDSS, a later kW or pf makes an earlier kvar a power factor or void."""
    if "kvar" in load.values and "kvar" not in values and {"kw", "pf"} & set(values):
        kw, kvar = load.number("kw", 10.0), load.number("kvar", 0.0)
        load.values["pf"] = str(math.copysign(kw / math.hypot(kw, kvar), kvar) if kw else 1.0)
        del load.values["kvar"]


class _Builder:
    """Turns OpenDSS objects into grid components."""

    def __init__(self, script: _Script) -> None:
        self.script = script
        self.assumptions: list[str] = []
        self.voltage: dict[str, float] = {}

    def of(self, kind: str) -> list[Element]:
        return [
            item
            for item in self.script.elements.values()
            if item.kind == kind and item.values.get("enabled", "y")[:1].lower() not in ("n", "f")
        ]

    def case(self, path: Path) -> DssCase:
        if not self.of("vsource"):
            raise InputError(f"{path}: no circuit (New Circuit.name), expected one")
        types = tuple(_line_type(item) for item in self.of("linecode"))
        lines = tuple(self._line(item, {t.id for t in types}) for item in self.of("line"))
        transformers = tuple(_transformer(item) for item in self.of("transformer"))
        sources = tuple(_source(item) for item in self.of("vsource"))
        self._spread_voltages(lines, transformers, sources)
        phases = _bus_phases(self.voltage, lines, transformers, sources)
        grid = Grid(
            id=re.sub(r"[^A-Za-z0-9_-]", "_", self.script.circuit),
            buses=tuple(self._bus(name, voltage, phases[name]) for name, voltage in self.voltage.items()),
            line_types=types,
            lines=lines,
            transformers=transformers,
            sources=sources,
            loads=tuple(_load(item) for item in self.of("load")),
            frequency_hz=self.script.frequency_hz,
            assumptions=(
                "OpenDSS script read as text: neutral implicit, anti-float shunts of transformers left out",
                "loads outside vminpu..vmaxpu are constant impedances, as in OpenDSS",
            ),
        )
        named = {item.name: item.values.get("yearly", item.values.get("daily")) for item in self.of("load")}
        return DssCase(grid, {name: shape.lower() for name, shape in named.items() if shape})

    def _bus(self, name: str, voltage: float, phases: str) -> Bus:
        x, y = self.script.coordinates.get(name, (None, None))
        return Bus(id=name, voltage_v=voltage, phases=phases, x_m=x, y_m=y)

    def _line(self, item: Element, types: set[str]) -> Line:
        one, phases = bus_phases(item, item.values.get("bus1", ""), int(item.number("phases", 3)))
        other, _ = bus_phases(item, item.values.get("bus2", ""), int(item.number("phases", 3)))
        code = item.values.get("linecode", "").lower()
        if code not in types:
            raise InputError(f"{item.where}: line.{item.name} linecode: {code!r} does not exist")
        units = item.values.get("units", self.script.elements["linecode", code].values.get("units", "km"))
        length = item.number("length", 1.0) * _unit_km(item, units)
        return Line(id=item.name, from_bus=one, to_bus=other, type=code, length_km=length, phases=phases)

    def _spread_voltages(
        self, lines: tuple[Line, ...], transformers: tuple[Transformer, ...], sources: tuple[Source, ...]
    ) -> None:
        """Give every bus the rated voltage of the transformer or source it is tied to by lines."""
        neighbours: dict[str, list[str]] = {}
        for line in lines:
            neighbours.setdefault(line.from_bus, []).append(line.to_bus)
            neighbours.setdefault(line.to_bus, []).append(line.from_bus)
        base = {item.name: item.number("basekv", 115.0) * 1e3 for item in self.of("vsource")}
        seeds = [(item.bus, base[item.id]) for item in sources]
        seeds += [(item.from_bus, item.rated_from_v) for item in transformers]
        seeds += [(item.to_bus, item.rated_to_v) for item in transformers]
        for start, voltage in seeds:
            stack = [start]
            while stack:
                bus = stack.pop()
                if bus not in self.voltage:
                    self.voltage[bus] = voltage
                    stack += neighbours.get(bus, [])
        lost = sorted(set(neighbours) - set(self.voltage))
        if lost:
            raise InputError(f"bus {lost[0]}: no source or transformer is tied to it, voltage unknown")


def _bus_phases(
    buses: Iterable[str],
    lines: tuple[Line, ...],
    transformers: tuple[Transformer, ...],
    sources: tuple[Source, ...],
) -> dict[str, str]:
    """Return the phases that branches and sources bring to each bus."""
    have: dict[str, set[str]] = {bus: set() for bus in buses}
    chosen: list[Branch] = [*lines, *transformers]
    for branch in chosen:
        for bus in (branch.from_bus, branch.to_bus):
            have[bus] |= set(branch.phases)
    for source in sources:
        have[source.bus] |= set(PHASES)
    return {bus: "".join(sorted(phases)) for bus, phases in have.items()}


def bus_phases(item: Element, text: str, count: int) -> tuple[str, str]:
    """Return (bus, phases) of OpenDSS bus notation such as `34.1`; without nodes the first `count` phases."""
    name, *nodes = text.lower().split(".")
    nodes = [node for node in nodes if node != "0"] or [str(k) for k in range(1, count + 1)]
    if not name or not 1 <= count <= 3 or len(nodes) != count or not set(nodes) <= {"1", "2", "3"}:
        raise InputError(f"{item.where}: {item.kind}.{item.name} bus {text!r}: expected bus.1.2.3 for {count} phases")
    return name, "".join(sorted(PHASES[int(node) - 1] for node in nodes))


def _unit_km(item: Element, units: str) -> float:
    if units.lower() == "none":
        return 1.0
    if units.lower() not in UNIT_KM:
        raise InputError(
            f"{item.where}: {item.kind}.{item.name} units: {units!r}, expected one of {', '.join(UNIT_KM)}"
        )
    return UNIT_KM[units.lower()]


def _line_type(item: Element) -> LineType:
    per_km = 1 / _unit_km(item, item.values.get("units", "none"))
    return line_type_from_sequence(
        item.name,
        r1_ohm_per_km=item.number("r1", 0.058) * per_km,
        x1_ohm_per_km=item.number("x1", 0.1206) * per_km,
        r0_ohm_per_km=item.number("r0", 0.1784) * per_km,
        x0_ohm_per_km=item.number("x0", 0.4047) * per_km,
        c1_nf_per_km=item.number("c1", 3.4) * per_km,
        c0_nf_per_km=item.number("c0", 1.6) * per_km,
        rated_current_a=item.number("normamps", 0.0),
    )


def _transformer(item: Element) -> Transformer:
    one, other = item.words("buses", 2)
    first, second = (word.lower() for word in item.words("conns", 2))
    group = {("delta", "wye"): "Dyn1", ("wye", "wye"): "YNyn0", ("delta", "delta"): "Dd0"}.get((first, second))
    if group is None:
        raise InputError(f"{item.where}: transformer.{item.name} conns: [{first} {second}] is not known here")
    kvs = [Element(item.kind, item.name, item.where, {"kvs": word}).number("kvs", 0) for word in item.words("kvs", 2)]
    kva = Element(item.kind, item.name, item.where, {"kvas": item.words("kvas", 2)[0]}).number("kvas", 0)
    resistance = item.number("%loadloss", 0.4)
    if "%rs" in item.values:
        resistance = sum(float(word) for word in item.words("%rs", 2))
    return Transformer(
        id=item.name,
        from_bus=bus_phases(item, one, 3)[0],
        to_bus=bus_phases(item, other, 3)[0],
        rated_power_va=kva * 1e3,
        rated_from_v=kvs[0] * 1e3,
        rated_to_v=kvs[1] * 1e3,
        uk_percent=math.hypot(item.number("xhl", 7.0), resistance),
        ukr_percent=resistance,
        vector_group=group,
    )


def _source(item: Element) -> Source:
    """Return the source with the impedance of its short-circuit currents, as OpenDSS derives it.

    |Z1| = U / (sqrt3 Isc3) with X1/R1 = 4; Z0 from |2 Z1 + Z0| = sqrt3 U / Isc1 with X0/R0 = 3 (defaults).
    """
    kv = item.number("basekv", 115.0)
    volts = kv * 1e3
    ratio1, ratio0 = item.number("x1r1", 4.0), item.number("x0r0", 3.0)
    isc3 = item.number("isc3", item.number("mvasc3", 2000.0) / (math.sqrt(3) * kv) * 1e3)
    isc1 = item.number("isc1", item.number("mvasc1", 2100.0) / (math.sqrt(3) * kv) * 1e3)
    r1 = volts / (math.sqrt(3) * isc3) / math.hypot(1, ratio1)
    x1 = r1 * ratio1
    a, b = 1 + ratio0**2, 4 * (r1 + x1 * ratio0)
    c = 4 * (r1**2 + x1**2) - (math.sqrt(3) * volts / isc1) ** 2
    r0 = (-b + math.sqrt(max(b**2 - 4 * a * c, 0.0))) / (2 * a)
    return Source(
        id=item.name,
        bus=bus_phases(item, item.values.get("bus1", "sourcebus"), 3)[0],
        voltage_v=volts * item.number("pu", 1.0),
        angle_rad=math.radians(item.number("angle", 0.0)),
        r1_ohm=r1,
        x1_ohm=x1,
        r0_ohm=r0,
        x0_ohm=r0 * ratio0,
    )


def _load(item: Element) -> Load:
    count = int(item.number("phases", 3))
    bus, phases = bus_phases(item, item.values.get("bus1", ""), count)
    if item.values.get("conn", "wye").lower() not in ("wye", "y", "ln") or item.number("model", 1) not in (1, 2):
        raise InputError(f"{item.where}: load.{item.name}: expected conn=wye and model 1 or 2")
    kw, pf = item.number("kw", 10.0), item.number("pf", 0.88)
    if not 0 < abs(pf) <= 1:
        raise InputError(f"{item.where}: load.{item.name} pf: {pf}, expected -1..1, not 0")
    kvar = item.number("kvar", math.copysign(kw * math.tan(math.acos(abs(pf))), pf))
    # a one-phase load's kV is phase to neutral, otherwise line to line; the model wants line to line
    line_to_line = item.number("kv", 12.47) * 1e3 * (math.sqrt(3) if count == 1 else 1)
    return Load(
        id=item.name,
        bus=bus,
        phases=phases,
        power_w=(kw * 1e3 / count,) * count,
        power_var=(kvar * 1e3 / count,) * count,
        zip=(0.0, 0.0, 1.0) if item.number("model", 1) == 1 else (1.0, 0.0, 0.0),
        v_min_pu=item.number("vminpu", 0.95),
        v_max_pu=item.number("vmaxpu", 1.05),
        nominal_voltage_v=line_to_line,
    )
