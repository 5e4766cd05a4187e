"""Loads and areas below as one flat list of one-phase injections."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from flexmeter.grid.model import PHASES, Grid, Load
from flexmeter.powerflow.lanes import FloatArray, IntArray

AGGREGATE = "aggregate"
"""Prefix of the injection ids that stand for a whole area: `aggregate:<area id>`."""


class Injections(TypedDict):
    """The part of a network that describes its injections."""

    injections: tuple[tuple[str, str], ...]
    injection_bus: IntArray
    injection_plus: IntArray
    injection_minus: IntArray
    power_w: FloatArray
    power_var: FloatArray
    zip: FloatArray
    load_v: FloatArray
    v_min_pu: FloatArray
    v_max_pu: FloatArray
    aggregates: tuple[tuple[str, int], ...]


_Row = tuple[tuple[str, str], int, int, int, float, float, tuple[float, float, float], float, float, float]


def is_aggregate(injection_id: str) -> bool:
    """Whether an injection stands for a whole area below."""
    return injection_id.startswith(f"{AGGREGATE}:")


def list_injections(grid: Grid, area: str | None, position: dict[str, int], nominal: FloatArray) -> Injections:
    """Return the loads of a grid or area, then the areas below; `position` of each bus, `nominal` voltages [V]."""
    own = {bus.id for bus in grid.buses if area is None or bus.area == area}
    rows = [row for load in grid.loads if load.bus in own for row in _load_rows(load, position, nominal)]
    areas = [item for item in grid.areas if area is not None and item.parent == area and item.head_bus in position]
    for item in areas:
        bus = position[item.head_bus]
        rows += [
            ((f"{AGGREGATE}:{item.id}", PHASES[k]), bus, k, -1, 0.0, 0.0, (0.0, 0.0, 1.0), nominal[bus], 0.0, 1e9)
            for k in range(3)
        ]
    return Injections(
        injections=tuple(row[0] for row in rows),
        injection_bus=np.array([row[1] for row in rows], np.int64),
        injection_plus=np.array([row[2] for row in rows], np.int64),
        injection_minus=np.array([row[3] for row in rows], np.int64),
        power_w=np.array([row[4] for row in rows], float),
        power_var=np.array([row[5] for row in rows], float),
        zip=np.array([row[6] for row in rows], float).reshape(-1, 3),
        load_v=np.array([row[7] for row in rows], float),
        v_min_pu=np.array([row[8] for row in rows], float),
        v_max_pu=np.array([row[9] for row in rows], float),
        aggregates=tuple((item.id, position[item.head_bus]) for item in areas),
    )


def _load_rows(load: Load, position: dict[str, int], nominal: FloatArray) -> list[_Row]:
    bus = position[load.bus]
    phase_v = load.nominal_voltage_v / np.sqrt(3) if load.nominal_voltage_v else float(nominal[bus])
    result = []
    for k, (plus, minus) in enumerate(_terminals(load)):
        name = PHASES[plus] if minus < 0 else PHASES[plus] + PHASES[minus]
        voltage = phase_v if minus < 0 else phase_v * np.sqrt(3)
        active = load.power_w[k] if load.power_w else 0.0
        reactive = load.power_var[k] if load.power_var else 0.0
        result.append(
            ((load.id, name), bus, plus, minus, active, reactive, load.zip, voltage, load.v_min_pu, load.v_max_pu)
        )
    return result


def _terminals(load: Load) -> list[tuple[int, int]]:
    phases = [PHASES.index(phase) for phase in load.phases]
    if load.connection == "wye":
        return [(phase, -1) for phase in phases]
    if len(phases) == 2:
        return [(phases[0], phases[1])]
    return [(0, 1), (1, 2), (2, 0)]
