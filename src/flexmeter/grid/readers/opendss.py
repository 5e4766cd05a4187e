"""Any OpenDSS circuit, by asking the OpenDSS engine (package opendssdirect.py) for what it has built.

The engine resolves geometries, codes, units and defaults; this reader takes the matrices. Four-wire lines keep their
4x4 matrices. What the model has no counterpart for is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import InputError
from flexmeter.grid.impedance import as_matrix
from flexmeter.grid.model import Bus, Grid, Line, Load, Neutral, Shunt, Source, Switch, Transformer
from flexmeter.grid.readers.optional import optional_module
from flexmeter.grid.readers.parts import Parts, thirds

UNIT_KM = {0: 1.0, 1: 1.609344, 2: 0.3048, 3: 1.0, 4: 1e-3, 5: 0.3048e-3, 6: 25.4e-6, 7: 1e-5}
CONTROLS = {"regcontrol", "capcontrol", "swtcontrol", "invcontrol", "relay", "recloser", "fuse"}
WITHOUT_EFFECT = {"monitor", "energymeter", "sensor", *CONTROLS}
SOLVED = {"generator", "pvsystem", "storage"}
ZIP = {1: (0.0, 0.0, 1.0), 2: (1.0, 0.0, 0.0), 5: (0.0, 1.0, 0.0)}
NEUTRAL_NODE = 4
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OpenDssCase:
    """A circuit as grid, and the voltages of OpenDSS's own solution per (bus id, phase) [V]."""

    grid: Grid
    voltages: dict[tuple[str, str], float]


def read_opendss(path: Path | str) -> OpenDssCase:
    """Compile and solve a script in the engine and convert the circuit; `InputError` names what cannot be read.

    Taps are those after the engine's solution, generators and PV systems the powers of that solution. A neutral
    (node 4) that no reactor earths counts as earthed at the source only: voltages are then phase to neutral.
    """
    dss = optional_module("opendssdirect", "reading OpenDSS scripts")
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"{path}: cannot be read: no such file")
    dss.Basic.AllowChangeDir(False)
    try:
        dss.Text.Command("clear")
        dss.Text.Command(f'compile "{path}"')
        dss.Text.Command("set tolerance=1e-8")
        dss.Solution.Solve()
        dss.Text.Command("set controlmode=off")
        dss.Solution.Solve()
        if not dss.Solution.Converged():
            raise InputError(f"{path}: OpenDSS's own solution does not converge")
        return _Conversion(dss).case(path.stem)
    except dss.DSSException as error:
        raise InputError(f"{path}: OpenDSS: {' '.join(str(error).split())}") from error


class _Conversion:
    def __init__(self, dss: ModuleType) -> None:
        self.dss = dss
        self.parts = Parts()
        self.neutral: Neutral = "source"

    def case(self, name: str) -> OpenDssCase:
        """Return the grid and the engine's voltages."""
        self._check_classes()
        self.neutral = self._earthing()
        for bus in self.dss.Circuit.AllBusNames():
            self._bus(bus)
        for _ in self._each(self.dss.Vsources):
            self._source()
        for _ in self._each(self.dss.Lines):
            self._line()
        for _ in self._each(self.dss.Transformers):
            self._transformer()
        for _ in self._each(self.dss.Loads):
            self._load()
        for _ in self._each(self.dss.Capacitors):
            self._capacitor()
        for element in self.dss.Circuit.AllElementNames():
            if element.partition(".")[0].lower() in SOLVED:
                self._solved(element)
        grid = self.parts.grid(name, "OpenDSS", float(self.dss.Solution.Frequency()))
        return OpenDssCase(grid, self._voltages(grid))

    def _each(self, kind: object) -> Iterator[None]:
        """Step through the enabled elements of a class."""
        place = kind.First()  # type: ignore[attr-defined]
        while place > 0:
            if self.dss.CktElement.Enabled():
                yield None
            place = kind.Next()  # type: ignore[attr-defined]

    def _check_classes(self) -> None:
        known = {"vsource", "line", "transformer", "load", "capacitor", "reactor", *WITHOUT_EFFECT, *SOLVED}
        for element in self.dss.Circuit.AllElementNames():
            kind, _, name = element.partition(".")
            if kind.lower() not in known:
                self.parts.find(kind.lower(), name, "class", "cannot be represented")
            elif kind.lower() in CONTROLS:
                self.parts.assume(f"{kind.lower()} left out: states are those after OpenDSS's solution")

    def _earthing(self) -> Neutral:
        """Return how neutrals (node 4) are earthed: by reactors at every bus that has one, or not."""
        earthed, having = set(), set()
        for bus in self.dss.Circuit.AllBusNames():
            self.dss.Circuit.SetActiveBus(bus)
            if NEUTRAL_NODE in self.dss.Bus.Nodes():
                having.add(bus)
        for _ in self._each(self.dss.Reactors):
            name, nodes = _bus_nodes(self.dss.CktElement.BusNames()[0])
            if nodes != [NEUTRAL_NODE] or int(self.dss.Reactors.Phases()) != 1:
                self.parts.find("reactor", self.dss.Reactors.Name(), "bus1", "only reactors that earth a neutral")
            earthed.add(name)
        if having and earthed >= having:
            self.parts.assume("neutral earthed at every bus (Kron reduction)")
            return "everywhere"
        if having and len(earthed & having) > 1:
            self.parts.find("reactor", "", "bus1", "neutral earthed at some buses, expected one or all")
        elif having:
            self.parts.assume("neutral earthed at the source only: voltages are phase to neutral")
        return "source"

    def _bus(self, name: str) -> None:
        self.dss.Circuit.SetActiveBus(name)
        phases = "".join("abc"[node - 1] for node in sorted(self.dss.Bus.Nodes()) if node <= 3)
        volts = float(self.dss.Bus.kVBase()) * 1e3 * math.sqrt(3)
        if not phases or volts <= 0:
            self.parts.find("bus", name, "kVBase", "no phases or no voltage base (Set voltagebases, CalcVoltageBases)")
            return
        self.parts.names.setdefault("bus", set()).add(name)
        x, y = (float(self.dss.Bus.X()), float(self.dss.Bus.Y())) if self.dss.Bus.Coorddefined() else (None, None)
        self.parts.buses.append(Bus(name, volts, phases, x_m=x, y_m=y))

    def _property(self, name: str) -> float:
        return float(self.dss.Properties.Value(name))

    def _source(self) -> None:
        bus, _ = _bus_nodes(self.dss.CktElement.BusNames()[0])
        if int(self.dss.Vsources.Phases()) != 3:
            self.parts.find("vsource", self.dss.Vsources.Name(), "phases", "expected 3")
        self.parts.sources.append(
            Source(
                id=self.dss.Vsources.Name(),
                bus=bus,
                voltage_v=float(self.dss.Vsources.BasekV()) * 1e3 * float(self.dss.Vsources.PU()),
                angle_rad=math.radians(float(self.dss.Vsources.AngleDeg())),
                r1_ohm=self._property("R1"),
                x1_ohm=self._property("X1"),
                r0_ohm=self._property("R0"),
                x0_ohm=self._property("X0"),
            )
        )

    def _line(self) -> None:
        lines, element = self.dss.Lines, self.dss.CktElement
        name, count = lines.Name(), int(lines.Phases())
        (one, first), (other, second) = (
            _bus_nodes(text, element.NodeOrder()[k * count : (k + 1) * count])
            for k, text in enumerate(element.BusNames())
        )
        earthed = 0 in first and 0 in second
        first, second = ([node or NEUTRAL_NODE for node in nodes] for nodes in (first, second))
        if first != second or len(set(first)) != count or not set(first) <= {1, 2, 3, NEUTRAL_NODE}:
            self.parts.find("line", name, "bus2", f"nodes {second}, expected those of bus1 {first}, each once")
            return
        per_km = 1 / UNIT_KM[int(lines.Units())]
        r, x, c = (
            self._matrix(values, first) * per_km for values in (lines.RMatrix(), lines.XMatrix(), lines.CMatrix())
        )
        four_wire = NEUTRAL_NODE in first
        size = 4 if four_wire else 3
        kind = self.parts.matrix_type(
            lines.LineCode() or lines.Geometry() or "line",
            r=as_matrix(r[:size, :size]),
            x=as_matrix(x[:size, :size]),
            c=as_matrix(c[:3, :3]) if c[:3, :3].any() else (),
            neutral=("everywhere" if earthed else self.neutral) if four_wire else "none",
            rated_current_a=float(lines.NormAmps()),
        )
        phases = "".join("abc"[node - 1] for node in sorted(first) if node <= 3)
        unique = self.parts.name("branch", name, "line")
        length = float(lines.Length()) * UNIT_KM[int(lines.Units())]
        self.parts.lines.append(Line(unique, one, other, kind, length, phases))
        poles = [element.IsOpen(1, pole) or element.IsOpen(2, pole) for pole in range(1, count + 1)]
        is_open = any(poles)
        if is_open and not all(poles):
            self.parts.find("line", name, "open", "some of its phases, expected all or none")
        if is_open or lines.IsSwitch():
            self.parts.switches.append(Switch(f"switch_{unique}", unique, closed=not is_open))

    def _matrix(self, values: object, nodes: list[int]) -> Floats:
        """Return a conductor matrix in the order a, b, c, n; rows of conductors that do not exist are zero."""
        compact = np.asarray(values, float).reshape(len(nodes), len(nodes))
        full = np.zeros((4, 4))
        places = [node - 1 for node in nodes]
        full[np.ix_(places, places)] = compact
        return full

    def _transformer(self) -> None:
        transformer, element = self.dss.Transformers, self.dss.CktElement
        name, count = transformer.Name(), int(element.NumPhases())
        if int(transformer.NumWindings()) != 2:
            self.parts.find("transformer", name, "windings", f"{transformer.NumWindings()}, expected 2")
            return
        size = len(element.NodeOrder()) // 2
        nodes = [[int(node) for node in element.NodeOrder()[k : k + size]] for k in (0, size)]
        phases = "".join("abc"[node - 1] for node in sorted(nodes[0][:count]) if node in (1, 2, 3))
        windings = []
        for winding in (1, 2):
            transformer.Wdg(winding)
            # ratings are those of a bank of three: line to line, three times the power of a one-phase unit
            volts = float(transformer.kV()) * 1e3 * float(transformer.Tap()) * (math.sqrt(3) if count == 1 else 1)
            power = float(transformer.kVA()) * 1e3 * 3 / count
            windings.append((volts, bool(transformer.IsDelta()), power, transformer.R()))
        (high, delta1, power, r1), (low, delta2, _, r2) = windings
        text = self._strange_nodes(nodes, count, (delta1, delta2))
        if text:
            self.parts.find("transformer", name, "buses", text)
            return
        buses = [_bus_nodes(text)[0] for text in element.BusNames()]
        resistance, no_load = float(r1) + float(r2), self._property("%NoLoadLoss")
        if no_load or self._property("%IMag"):
            self.parts.assume("no-load branch of transformers at the from-side (OpenDSS: last winding)")
        self.parts.transformers.append(
            Transformer(
                id=self.parts.name("branch", name, "transformer"),
                from_bus=buses[0],
                to_bus=buses[1],
                rated_power_va=power,
                rated_from_v=high,
                rated_to_v=low,
                uk_percent=math.hypot(float(transformer.Xhl()), resistance),
                ukr_percent=resistance,
                vector_group=self._vector_group(delta1, delta2),
                no_load_loss_w=no_load / 100 * power,
                no_load_current_percent=math.hypot(self._property("%IMag"), no_load),
                phases=phases,
            )
        )

    def _strange_nodes(self, nodes: list[list[int]], count: int, deltas: tuple[bool, bool]) -> str:
        """Return what the model cannot say about a transformer's terminals, nothing if it can."""
        first, second = (side[:count] for side in nodes)
        if first != second or len(set(first)) != count or not set(first) <= {1, 2, 3}:
            return f"nodes {first} and {second}, expected the same phases in the same order, each once"
        if count < 3 and any(deltas):
            return f"delta winding of {count} phase(s), expected three phases or wye"
        if count == 3 and first not in ([1, 2, 3], [2, 3, 1], [3, 1, 2]) and any(deltas):
            return f"nodes {first}: phases of a delta in reverse order"
        neutrals = [side[count] for side, delta in zip(nodes, deltas, strict=True) if not delta]
        if any(node not in (0, NEUTRAL_NODE) for node in neutrals):
            return f"neutral at node {neutrals}, expected an earthed one (0, or the feeder's neutral {NEUTRAL_NODE})"
        return ""

    def _vector_group(self, delta1: bool, delta2: bool) -> str:
        windings = ("D" if delta1 else "YN") + ("d" if delta2 else "yn")
        if delta1 == delta2:
            return f"{windings}0"
        lead = str(self.dss.Properties.Value("LeadLag")).lower() in ("lead", "euro")
        return f"{windings}{11 if lead else 1}"

    def _load(self) -> None:
        loads, element = self.dss.Loads, self.dss.CktElement
        name, model, count = loads.Name(), int(loads.Model()), int(loads.Phases())
        bus, nodes = _bus_nodes(element.BusNames()[0], element.NodeOrder()[:3] if count == 3 else element.NodeOrder())
        phases = "".join("abc"[node - 1] for node in sorted(set(nodes)) if node in (1, 2, 3))
        delta = bool(loads.IsDelta()) or (count == 1 and len(phases) == 2)
        shares = ZIP.get(model)
        if model == 8:
            z, i, p, *q = (float(value) for value in list(loads.ZipV())[:6])
            shares = (z, i, p) if (z, i, p) == tuple(q) else None
        if shares is None:
            self.parts.assume(f"load model {model} taken as constant power")
            shares = ZIP[1]
        pairs = 1 if delta and count == 1 else len(phases)
        if not phases or (delta and count == 2):
            self.parts.find("load", name, "bus1", f"nodes {nodes}: cannot be represented")
            return
        one_phase_wye = count == 1 and not delta
        self.parts.loads.append(
            Load(
                id=self.parts.name("load", name, "load"),
                bus=bus,
                phases=phases,
                connection="delta" if delta else "wye",
                power_w=thirds(float(loads.kW()) * 1e3, pairs),
                power_var=thirds(float(loads.kvar()) * 1e3, pairs),
                zip=shares,
                v_min_pu=float(loads.Vminpu()),
                v_max_pu=float(loads.Vmaxpu()),
                nominal_voltage_v=float(loads.kV()) * 1e3 * (math.sqrt(3) if one_phase_wye else 1),
            )
        )

    def _capacitor(self) -> None:
        capacitors, element = self.dss.Capacitors, self.dss.CktElement
        name, count = capacitors.Name(), int(element.NumPhases())
        bus, nodes = _bus_nodes(element.BusNames()[0], element.NodeOrder()[:count])
        if capacitors.IsDelta() and count != 3:
            self.parts.find("capacitor", name, "conn", "delta of one or two phases cannot be represented")
            return
        if capacitors.IsDelta():
            self.parts.assume("delta capacitors taken as the equal wye to earth")
        steps = list(capacitors.States())
        share = sum(steps) / len(steps) if steps else 1.0
        phases = "".join("abc"[node - 1] for node in sorted(nodes) if node <= 3)
        b = share * float(capacitors.kvar()) * 1e3 / (float(capacitors.kV()) * 1e3) ** 2
        self.parts.shunts.append(
            Shunt(self.parts.name("shunt", name, "capacitor"), bus, phases, b_s=(b,) * len(phases))
        )

    def _solved(self, element: str) -> None:
        """A generator, PV system or storage: the powers of OpenDSS's solution."""
        self.dss.Circuit.SetActiveElement(element)
        circuit = self.dss.CktElement
        if not circuit.Enabled():
            return
        bus, nodes = _bus_nodes(circuit.BusNames()[0], circuit.NodeOrder())
        powers = np.asarray(circuit.Powers(), float).reshape(-1, 2) * 1e3
        at = {node: powers[k] for k, node in enumerate(nodes) if node in (1, 2, 3)}
        phases = "".join("abc"[node - 1] for node in sorted(at))
        self.parts.assume(f"{element.partition('.')[0].lower()} taken as constant power of OpenDSS's solution")
        self.parts.loads.append(
            Load(
                id=self.parts.name("load", element.replace(".", "_"), "generator"),
                bus=bus,
                phases=phases,
                power_w=tuple(float(at[node][0]) for node in sorted(at)),
                power_var=tuple(float(at[node][1]) for node in sorted(at)),
                kind="generation",
            )
        )

    def _voltages(self, grid: Grid) -> dict[tuple[str, str], float]:
        """Return |V| phase to earth, or to neutral where the bus has a neutral that floats."""
        voltages = {}
        for bus in grid.buses:
            self.dss.Circuit.SetActiveBus(bus.id)
            pairs = np.asarray(self.dss.Bus.Voltages(), float).reshape(-1, 2)
            at = {node: complex(*pair) for node, pair in zip(self.dss.Bus.Nodes(), pairs, strict=True)}
            neutral = at.get(NEUTRAL_NODE, 0j) if self.neutral == "source" else 0j
            for phase in bus.phases:
                voltages[bus.id, phase] = abs(at["abc".index(phase) + 1] - neutral)
        return voltages


def _bus_nodes(text: str, order: list[int] | None = None) -> tuple[str, list[int]]:
    """Return (bus, nodes) of a terminal; the nodes from the engine's node order if given."""
    name, *nodes = re.split(r"\.", text.lower())
    return name, [int(node) for node in (nodes if order is None else order)]
