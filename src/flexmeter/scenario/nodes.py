"""Which nodes of a grid the day is judged at: three-phase buses of the MV level and of the LV feeders."""

from __future__ import annotations

from dataclasses import dataclass

from flexmeter.grid import Grid

Node = tuple[str, str]


@dataclass(frozen=True)
class Levels:
    """Nodes (bus, phase) by level, and the areas.

    Attributes
    ----------
    mv : nodes of the buses at the source's voltage
    lv : nodes of the three-phase buses of the LV areas (busbars and feeder buses, not the customers' ends)
    mv_area, lv_areas : area ids; `concentrators` by LV area
    """

    mv: tuple[Node, ...]
    lv: tuple[Node, ...]
    mv_area: str
    lv_areas: tuple[str, ...]
    concentrators: dict[str, tuple[str, ...]]


def levels(grid: Grid) -> Levels:
    """Return the levels of a grid with areas."""
    top = next(bus.voltage_v for bus in grid.buses if bus.id == grid.sources[0].bus)
    lv_areas = tuple(area.id for area in grid.areas if area.level == "lv")
    concentrators = {
        lv: tuple(area.id for area in grid.areas if area.level == "concentrator" and area.parent == lv)
        for lv in lv_areas
    }
    inside = set(lv_areas)
    heads = {area.head_bus for area in grid.areas if area.level == "lv"}
    lv_buses = [bus for bus in grid.buses if bus.phases == "abc" and (bus.area in inside or bus.id in heads)]
    return Levels(
        mv=tuple((bus.id, phase) for bus in grid.buses if bus.voltage_v == top for phase in bus.phases),
        lv=tuple((bus.id, phase) for bus in lv_buses for phase in bus.phases),
        mv_area=next(area.id for area in grid.areas if area.level == "mv"),
        lv_areas=lv_areas,
        concentrators=concentrators,
    )
