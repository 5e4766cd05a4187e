"""The reference ring against power-grid-model: radial and closed, unbalanced loads, at three instants of the day."""

import json

import numpy as np
import pytest
from msgspec.structs import replace

from flexmeter.grid import Grid, Load
from flexmeter.grid.writers.power_grid_model import write_power_grid_model
from flexmeter.powerflow import compile_network, powerflow
from flexmeter.scenario.reference_grid import reference_grid
from flexmeter.scenario.truth import Truth, reference_powers

pgm = pytest.importorskip("power_grid_model")
GRID = reference_grid()
TRUTH = Truth(GRID, reference_powers(GRID))


def ring(minute: int, vector: tuple[bool, ...]) -> Grid:
    """Return the MV level alone, each substation as the unbalanced load it is at that minute."""
    state = TRUTH.state(range(minute, minute + 1))
    buses = tuple(bus for bus in GRID.buses if bus.voltage_v == 15e3)
    lines = tuple(line for line in GRID.lines if line.id.startswith("line_") and line.id[5:].isdigit())
    loads = []
    for area in (area for area in GRID.areas if area.level == "lv"):
        power = state.branch_power_va(area.head_bus)[:, 0]
        bus = area.head_bus.replace("LV", "MV")
        loads.append(Load(bus, bus, power_w=tuple(power.real), power_var=tuple(power.imag)))
    for plant in (load for load in GRID.loads if load.kind != "customer"):
        rows = [state.network.injection_row[plant.id, phase] for phase in "abc"]
        active, reactive = state.active_power_w[rows, 0], state.reactive_power_var[rows, 0]
        loads.append(replace(plant, power_w=tuple(active), power_var=tuple(reactive)))
    bare = tuple(replace(bus, area="") for bus in buses)
    mv = replace(GRID, buses=bare, lines=lines, transformers=(), loads=tuple(loads), areas=())
    return mv.with_switches(vector)


@pytest.mark.parametrize("minute", [180, 600, 1180])
@pytest.mark.parametrize("vector", [GRID.switch_vector, (True,) * 13], ids=["radial", "closed"])
def test_every_voltage_equals_power_grid_model(minute, vector, tmp_path) -> None:
    grid = ring(minute, vector)
    network = compile_network(grid)

    path = tmp_path / "ring.json"
    write_power_grid_model(grid, path)
    from power_grid_model.utils import json_deserialize

    peer = pgm.PowerGridModel(json_deserialize(path.read_text()))
    theirs = peer.calculate_power_flow(symmetric=False, error_tolerance=1e-10)["node"]["u"]
    assert json.loads(path.read_text())["type"] == "input"
    order = [[network.node_row[bus.id, phase] for phase in "abc"] for bus in grid.buses]
    ours = np.abs(powerflow(network).voltage_v[:, 0])[order]
    # power-grid-model's source has a finite short-circuit power: 3e-6 at this load
    np.testing.assert_allclose(ours, theirs[: len(grid.buses)], rtol=5e-6)
