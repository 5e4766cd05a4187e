"""The second real input: the IEEE European LV Test Feeder with its one-minute shapes (data/ieee_european_lv)."""

from __future__ import annotations

from importlib import resources

import msgspec
import numpy as np

from flexmeter.grid import Area, Grid
from flexmeter.grid.readers.dss_text import DssCase, read_dss
from flexmeter.grid.topology import radial_tree
from flexmeter.scenario import data
from flexmeter.scenario.households import european_shapes_w
from flexmeter.scenario.truth import DayPowers

CONCENTRATOR_CUSTOMERS = 8


def european_lv_case() -> DssCase:
    """Return the feeder as read from its OpenDSS files: 907 buses, 55 single-phase customers, and their shapes."""
    with resources.as_file(resources.files(data) / "ieee_european_lv") as folder:
        return read_dss(folder / "Master.dss")


def european_lv_grid() -> Grid:
    """Return the feeder divided into areas: `MV` (source and transformer), `LV` (busbar 1) and concentrators.

    A concentrator serves a subtree of at most eight customers and bears the name of its head bus, `C<bus>`. The
    division is ours; the feeder's files know no concentrators. Every load is a constant power, as in the reference
    day, so that the estimators' measurement of P and Q means the same at any voltage.
    """
    grid = european_lv_case().grid
    loads = tuple(msgspec.structs.replace(load, v_min_pu=0.0, v_max_pu=1e9) for load in grid.loads)
    grid = msgspec.structs.replace(grid, id="eulv", loads=loads)
    areas, area_of = _areas(grid)
    buses = tuple(msgspec.structs.replace(bus, area=area_of[bus.id]) for bus in grid.buses)
    assumptions = (*grid.assumptions, "concentrators: subtrees of at most eight customers", "loads: constant power")
    return msgspec.structs.replace(grid, buses=buses, areas=areas, assumptions=assumptions)


def european_lv_powers(case: DssCase | None = None) -> DayPowers:
    """Return the customers' powers over the day, (55, 1440): kW times shape, power factor 0.95 [W], [var]."""
    case = european_lv_case() if case is None else case
    shapes = european_shapes_w() / 1e3
    loads = case.grid.loads
    share = np.array([shapes[int(case.shapes[load.id].removeprefix("shape_")) - 1] for load in loads])
    active = np.array([load.power_w[0] for load in loads])
    reactive = np.array([load.power_var[0] for load in loads])
    return DayPowers(active[:, None] * share, reactive[:, None] * share)


def _areas(grid: Grid) -> tuple[tuple[Area, ...], dict[str, str]]:
    """Return the areas and the area of every bus."""
    transformer = grid.transformers[0]
    busbar = transformer.to_bus
    children, customers, order = _subtrees(grid, busbar)
    heads, stack = [], [busbar]
    while stack:
        bus = stack.pop()
        if customers[bus] and (customers[bus] <= CONCENTRATOR_CUSTOMERS and bus != busbar):
            heads.append(bus)
        else:
            stack += reversed(children[bus])
    areas = [
        Area(id="MV", level="mv", head_bus=transformer.from_bus),
        Area(id="LV", level="lv", head_bus=busbar, parent="MV"),
        *(Area(id=f"C{bus}", level="concentrator", head_bus=bus, parent="LV") for bus in heads),
    ]
    area_of = {transformer.from_bus: "MV", busbar: "MV"}
    inside = {busbar: "LV"}
    for bus in order:  # parents first: a bus lies in the area its parent opens or lies in
        opened = inside[bus]
        area_of.setdefault(bus, opened)
        below = f"C{bus}" if bus in set(heads) else opened
        inside |= dict.fromkeys(children[bus], below)
    return tuple(areas), area_of


def _subtrees(grid: Grid, root: str) -> tuple[dict[str, list[str]], dict[str, int], list[str]]:
    """Return children, number of customers below, and parents-first order of the buses from `root` on."""
    tree = radial_tree(grid)
    names = [bus.id for bus in grid.buses]
    children: dict[str, list[str]] = {name: [] for name in names}
    customers = dict.fromkeys(names, 0)
    for load in grid.loads:
        customers[load.bus] += 1
    for place, parent in zip(reversed(tree.order), reversed(tree.parent), strict=True):
        if parent >= 0:
            customers[names[parent]] += customers[names[place]]
    for place, parent in zip(tree.order, tree.parent, strict=True):
        if parent >= 0:
            children[names[parent]].append(names[place])
    order = [names[k] for k in tree.order]
    return children, customers, order[order.index(root) :]
