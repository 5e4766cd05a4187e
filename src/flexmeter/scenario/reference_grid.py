"""The grid of the reference day: a 15 kV ring of 13 buses and nine generated low-voltage grids (paper section 6.1).

The paper gives the ring's topology, the voltages and the kind of every bus; lengths and customers come from a
calibration to its published figures, equipment from standards (`data/`). What is assumed is listed in
`Grid.assumptions`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid import Area, Bus, Grid, Line, LineType, Load, Source, Switch, Transformer, line_type_from_sequence
from flexmeter.grid.impedance import as_matrix
from flexmeter.scenario.data import Components, ReferenceDay, components, reference_day

CONCENTRATORS = 200
FEEDER_BUSES = 5
MV_ZERO_SEQUENCE_FACTOR = 1.0
LOW_VOLTAGE_V = 400.0
ASSUMPTIONS = (
    "line lengths, industrial and PV power: a calibration to the five figures the paper publishes for its test day",
    "MV zero-sequence impedance: that of the positive sequence; without effect, as no zero-sequence current can flow",
    "MV line charging neglected, as in the calibration",
    "MV source: stiff, 15 kV, balanced at the busbar (tap changer of the HV/MV transformer)",
    "MV loads: wye, three equal phases",
    "LV neutral earthed at the substation only; four equal cores per cable, no return through earth",
    "LV charging neglected",
    "customers, feeders and lengths of the LV grids: drawn at random from the seed, 200 concentrators",
    "coordinates: schematic, not to scale",
)


@dataclass
class _Parts:
    """Components collected while the grid grows."""

    buses: list[Bus] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    transformers: list[Transformer] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    areas: list[Area] = field(default_factory=list)


def reference_grid(seed: int = 1) -> Grid:
    """Return the reference grid: 13 MV buses, 9 substations, 200 concentrators, 3,465 single-phase customers.

    Buses are `HV_001`, `MV_002` to `MV_013`; `LV_004` is the low-voltage busbar of substation `MV_004`,
    `LV_004_F2_03` the third bus of its second feeder and `LV_004_F2_03_b1` the first customer on phase b there.
    A customer's load has the name of its bus. Areas bear the name of their head bus, the MV area is `MV`.
    """
    day, equipment = reference_day(), components()
    parts = _Parts()
    _ring(parts, day)
    concentrators = apportion(CONCENTRATORS, np.array([float(n) for n in day.customers.values()]))
    for (bus, customers), feeder_buses in zip(day.customers.items(), concentrators, strict=True):
        rng = np.random.default_rng([seed, _node(bus)])
        _substation(parts, equipment, bus, customers)
        _low_voltage(parts, rng, bus, customers, int(feeder_buses))
    return Grid(
        id="reference",
        buses=tuple(parts.buses),
        line_types=(_medium_voltage_type(day), four_core_cable(equipment), service_cable(equipment)),
        lines=tuple(parts.lines),
        transformers=tuple(parts.transformers),
        switches=tuple(
            Switch(id=f"switch_{item.line}", branch=f"line_{item.line}", closed=not item.normally_open)
            for item in day.lines
        ),
        sources=(Source(id="hv", bus="HV_001", voltage_v=day.voltage_v, symmetry="balanced"),),
        loads=tuple(parts.loads),
        areas=tuple(parts.areas),
        assumptions=ASSUMPTIONS,
    )


def apportion(total: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return integers in proportion to `weights` that add up to `total` (largest remainder)."""
    exact = total * weights / weights.sum()
    parts = np.floor(exact).astype(np.int64)
    for k in np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]:
        parts[k] += 1
    return np.asarray(parts)


def four_core_cable(equipment: Components) -> LineType:
    """Return the mains cable with its 4x4 matrix [ohm/km], neutral earthed at the substation.

    Cores at the corners of a square with side d, in the order a, b, c, n: mutual reactance
    x_ij = (omega mu0 / 2 pi) ln(1 m / d_ij), self reactance with the geometric mean radius that gives the data
    sheet's positive-sequence reactance for phases a, b, c. The 1 m cancels when the neutral is eliminated.
    """
    cable = equipment.mains_cable
    k = 2e-4 * 2 * math.pi * 50
    side = math.sqrt(2) * np.eye(4)[[2, 3, 0, 1]]
    distance = np.where(side > 0, side, 1.0)  # in units of d
    mutual = -k * np.log(distance)
    mean_distance = 2 ** (1 / 6)  # of a, b, c: (1 * 1 * sqrt(2)) ** (1 / 3)
    np.fill_diagonal(mutual, cable.x_ohm_per_km - k * math.log(mean_distance))
    return LineType(
        id=cable.id,
        r_ohm_per_km=as_matrix(cable.r_ohm_per_km * np.eye(4)),
        x_ohm_per_km=as_matrix(mutual),
        neutral="source",
        rated_current_a=cable.rated_current_a,
    )


def service_cable(equipment: Components) -> LineType:
    """Return a customer's two-core cable: the loop impedance of phase and neutral on the diagonal [ohm/km]."""
    cable = equipment.service_cable
    return LineType(
        id=cable.id,
        r_ohm_per_km=as_matrix(2 * cable.r_ohm_per_km * np.eye(3)),
        x_ohm_per_km=as_matrix(2 * cable.x_ohm_per_km * np.eye(3)),
        rated_current_a=cable.rated_current_a,
    )


def _medium_voltage_type(day: ReferenceDay) -> LineType:
    cable = day.line_type
    return line_type_from_sequence(
        cable.id,
        r1_ohm_per_km=cable.r_ohm_per_km,
        x1_ohm_per_km=cable.x_ohm_per_km,
        r0_ohm_per_km=MV_ZERO_SEQUENCE_FACTOR * cable.r_ohm_per_km,
        x0_ohm_per_km=MV_ZERO_SEQUENCE_FACTOR * cable.x_ohm_per_km,
        rated_current_a=cable.rated_current_a,
    )


def _node(bus: str) -> int:
    return int(bus[-3:])


def _ring_angle(node: int) -> float:
    """Return the place of an MV bus on the map's ring [rad], the substation at the top, clockwise."""
    return math.pi / 2 - 2 * math.pi * (node - 1) / 13


def _ring(parts: _Parts, day: ReferenceDay) -> None:
    names = ["HV_001", *(f"MV_{node:03d}" for node in range(2, 14))]
    for node, name in enumerate(names, start=1):
        x, y = 6000 * math.cos(_ring_angle(node)), 6000 * math.sin(_ring_angle(node))
        parts.buses.append(Bus(id=name, voltage_v=day.voltage_v, area="MV", x_m=round(x), y_m=round(y)))
    for item in day.lines:
        one, other = names[item.line - 1], names[item.line % 13]
        parts.lines.append(
            Line(id=f"line_{item.line}", from_bus=one, to_bus=other, type=day.line_type.id, length_km=item.length_km)
        )
    parts.areas.append(Area(id="MV", level="mv", head_bus="HV_001"))
    parts.loads += [Load(id=bus, bus=bus, kind="industrial") for bus in day.industrial]
    parts.loads += [Load(id=bus, bus=bus, kind="generation") for bus in day.pv]


def _substation(parts: _Parts, equipment: Components, bus: str, customers: int) -> None:
    data, busbar = equipment.transformers, f"LV_{bus[-3:]}"
    need = customers * data.design_va_per_customer
    unit = next((item for item in data.units if item.rated_power_va >= need), data.units[-1])
    count = math.ceil(need / unit.rated_power_va)  # equal units in parallel are one with the sum of their ratings
    parts.transformers.append(
        Transformer(
            id=f"transformer_{bus[-3:]}",
            from_bus=bus,
            to_bus=busbar,
            rated_power_va=count * unit.rated_power_va,
            rated_from_v=15000.0,
            rated_to_v=LOW_VOLTAGE_V,
            uk_percent=data.uk_percent,
            ukr_percent=100 * unit.load_loss_w / unit.rated_power_va,
            no_load_loss_w=count * unit.no_load_loss_w,
            no_load_current_percent=data.no_load_current_percent,
            tap_position=data.tap_position,
            tap_step_percent=data.tap_step_percent,
        )
    )
    x, y = _place(_ring_angle(_node(bus)), 0.0, 700)
    parts.buses.append(Bus(id=busbar, voltage_v=LOW_VOLTAGE_V, area="MV", x_m=x, y_m=y))
    parts.areas.append(Area(id=busbar, level="lv", head_bus=busbar, parent="MV"))


def _place(outward: float, turn: float, distance: float) -> tuple[float, float]:
    """Return map coordinates [m] at a distance from the substation's place on the ring, `turn` off the outward ray."""
    x = 6000 * math.cos(outward) + distance * math.cos(outward + turn)
    y = 6000 * math.sin(outward) + distance * math.sin(outward + turn)
    return round(x, 1), round(y, 1)


def _low_voltage(parts: _Parts, rng: np.random.Generator, bus: str, customers: int, feeder_buses: int) -> None:
    """Grow the radial feeders of one substation and hang the customers on their buses."""
    busbar, outward = f"LV_{bus[-3:]}", _ring_angle(_node(bus))
    feeders = max(2, round(feeder_buses / FEEDER_BUSES))
    sizes = apportion(feeder_buses - 2 * feeders, rng.uniform(0.4, 1.6, feeders)) + 2
    counts = iter(apportion(customers, rng.uniform(0.5, 1.5, feeder_buses)))
    for feeder, size in enumerate(sizes, start=1):
        turn = (feeder - (feeders + 1) / 2) / feeders * 1.7
        names = [busbar]
        for step in range(1, int(size) + 1):
            # a lateral now and then: this bus hangs on the one before the last
            upstream = names[-2] if step > 2 and rng.random() < 0.2 else names[-1]
            name = f"{busbar}_F{feeder}_{step:02d}"
            length = float(rng.uniform(0.025, 0.07))
            x, y = _place(outward, turn, 700 + 450 * step)
            parts.buses.append(Bus(id=name, voltage_v=LOW_VOLTAGE_V, area=busbar, x_m=x, y_m=y))
            parts.lines.append(
                Line(id=f"line_{name}", from_bus=upstream, to_bus=name, type="NAYY_4x150", length_km=round(length, 4))
            )
            parts.areas.append(Area(id=name, level="concentrator", head_bus=name, parent=busbar))
            _customers(parts, rng, name, int(next(counts)))
            names.append(name)


def _customers(parts: _Parts, rng: np.random.Generator, bus: str, count: int) -> None:
    """Hang single-phase customers in a star on a feeder bus, each by its own service line (paper figure 4)."""
    at = parts.buses[-1]
    per_phase = apportion(count, rng.uniform(0.6, 1.4, 3))
    around = 2 * math.pi * rng.random()
    seat = 0
    for phase, number in zip("abc", per_phase, strict=True):
        for k in range(1, int(number) + 1):
            name = f"{bus}_{phase}{k}"
            angle = around + 2 * math.pi * seat / max(count, 1)
            seat += 1
            x = round((at.x_m or 0.0) + 110 * math.cos(angle), 1)
            y = round((at.y_m or 0.0) + 110 * math.sin(angle), 1)
            parts.buses.append(Bus(id=name, voltage_v=LOW_VOLTAGE_V, phases=phase, area=bus, x_m=x, y_m=y))
            parts.lines.append(
                Line(
                    id=f"service_{name}",
                    from_bus=bus,
                    to_bus=name,
                    type="two_core_16",
                    length_km=round(float(rng.uniform(0.008, 0.03)), 4),
                    phases=phase,
                )
            )
            parts.loads.append(Load(id=name, bus=name, phases=phase))
