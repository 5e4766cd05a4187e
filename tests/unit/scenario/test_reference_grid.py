from collections import Counter

import numpy as np
import pytest

from flexmeter.grid import Grid, findings, radial_tree, spanning_tree
from flexmeter.grid.impedance import SEQUENCE, line_impedance_per_km
from flexmeter.scenario.data import components, reference_day
from flexmeter.scenario.reference_grid import apportion, four_core_cable, reference_grid


@pytest.fixture(scope="module")
def grid() -> Grid:
    return reference_grid()


def test_is_sound_and_radial(grid: Grid) -> None:
    assert findings(grid, radial=True) == []


def test_ring_is_that_of_the_paper(grid: Grid) -> None:
    ring = grid.lines[:13]
    assert [line.id for line in ring] == [f"line_{k}" for k in range(1, 14)]
    assert [switch.branch for switch in grid.switches] == [line.id for line in ring]
    assert grid.switch_vector == tuple(k != 7 for k in range(1, 14))  # paper table 2, first row
    assert (ring[6].from_bus, ring[6].to_bus) == ("MV_007", "MV_008")
    assert (ring[12].from_bus, ring[12].to_bus) == ("MV_013", "HV_001")
    assert spanning_tree(grid, (True,) * 13).loops != ()
    assert grid.sources[0].bus == "HV_001"


def test_customers_substations_and_concentrators(grid: Grid) -> None:
    customers = [load for load in grid.loads if load.kind == "customer"]
    assert len(customers) == 3465
    per_substation = Counter(load.bus[:6].replace("LV", "MV") for load in customers)
    assert per_substation == reference_day().customers
    assert all(len(load.phases) == 1 for load in customers)
    levels = Counter(area.level for area in grid.areas)
    assert levels == {"mv": 1, "lv": 9, "concentrator": 200}
    others = {load.bus: load.kind for load in grid.loads if load.kind != "customer"}
    assert others == {"MV_005": "industrial", "MV_007": "industrial", "MV_008": "generation"}


def test_every_customer_hangs_on_its_concentrators_bus(grid: Grid) -> None:
    area = {bus.id: bus.area for bus in grid.buses}
    head = {item.id: item.head_bus for item in grid.areas}
    to = {line.to_bus: line for line in grid.lines}
    for load in grid.loads:
        if load.kind == "customer":
            assert to[load.bus].from_bus == head[area[load.bus]]
            assert to[load.bus].phases == load.phases


def test_low_voltage_grids_differ(grid: Grid) -> None:
    feeders = Counter(area.id.rsplit("_", 1)[0] for area in grid.areas if area.level == "concentrator")
    assert len(set(feeders.values())) > 2  # different numbers of buses per feeder
    phases = Counter((load.bus.rsplit("_", 1)[0], load.phases) for load in grid.loads if load.kind == "customer")
    assert any(phases[bus, "a"] != phases[bus, "b"] for bus, _ in phases)
    assert all(bus.x_m is not None and bus.y_m is not None for bus in grid.buses)


def test_switching_any_line_keeps_a_tree(grid: Grid) -> None:
    for opened in range(13):
        radial_tree(grid, tuple(k != opened for k in range(13)))


def test_seed_decides() -> None:
    assert reference_grid(1) == reference_grid(1)
    assert reference_grid(2).lines != reference_grid(1).lines


def test_four_core_cable_has_its_data_sheet_values() -> None:
    sequence = np.linalg.inv(SEQUENCE) @ line_impedance_per_km(four_core_cable(components())) @ SEQUENCE
    assert sequence[1, 1] == pytest.approx(0.206 + 0.08j)
    assert sequence[0, 0].real == pytest.approx(4 * 0.206)  # return through an equal fourth core


def test_apportion_adds_up() -> None:
    assert apportion(10, np.array([1.0, 1.0, 1.0])).tolist() == [4, 3, 3]
    assert apportion(7, np.array([0.0, 5.0, 2.0])).tolist() == [0, 5, 2]
