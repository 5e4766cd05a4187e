from collections import Counter

import numpy as np
import opendssdirect
import pytest

from flexmeter.grid import findings
from flexmeter.powerflow import compile_network, powerflow
from flexmeter.scenario.european_lv import european_lv_case, european_lv_grid, european_lv_powers
from flexmeter.scenario.households import european_shapes_w


def opendss_day() -> tuple[list[str], np.ndarray]:
    """Return node names and |V| [V] of every minute from the OpenDSS engine itself."""
    from importlib import resources

    from flexmeter.scenario import data

    folder = resources.files(data) / "ieee_european_lv"
    text = opendssdirect.Text.Command
    text("clear")
    text("set DefaultBaseFrequency=50")
    text("new circuit.LVTest")
    text("edit Vsource.Source BasekV=11 pu=1.05 ISC3=3000 ISC1=5")
    text(f"redirect ({folder / 'LineCode.txt'})")
    for number, watts in enumerate(european_shapes_w(), start=1):
        values = " ".join(f"{w / 1e3:.3f}" for w in watts)
        text(f"new loadshape.shape_{number} npts=1440 minterval=1 useactual=no mult=({values})")
    for name in ("Lines.txt", "Transformers.txt", "Loads.txt"):
        text(f"redirect ({folder / name})")
    text("set voltagebases=[11 .416]")
    text("calcvoltagebases")
    text("set tolerance=1e-9")
    text("set mode=yearly number=1 stepsize=1m")
    names = [name.lower() for name in opendssdirect.Circuit.AllNodeNames()]
    magnitudes = np.empty((len(names), 1440))
    for minute in range(1440):
        text("solve")
        magnitudes[:, minute] = opendssdirect.Circuit.AllBusVMag()
    return names, magnitudes


def test_every_voltage_equals_opendss_all_day() -> None:
    case = european_lv_case()
    powers = european_lv_powers(case)
    network = compile_network(case.grid)
    ours = powerflow(network, powers.active_power_w, powers.reactive_power_var)
    names, magnitudes = opendss_day()
    row = {name: k for k, name in enumerate(names)}
    theirs = magnitudes[[row[f"{bus}.{'abc'.index(phase) + 1}"] for bus, phase in network.nodes]]
    assert ours.converged.all()
    assert theirs.shape == (907 * 3, 1440)
    # goal of the project: 0.02 %; reached: 4e-8, the two programs' stopping rules
    assert np.abs(np.abs(ours.voltage_v) / theirs - 1).max() < 1e-6


def test_areas_cover_all_customers() -> None:
    grid = european_lv_grid()
    assert findings(grid, radial=True) == []
    area = {bus.id: bus.area for bus in grid.buses}
    per_area = Counter(area[load.bus] for load in grid.loads)
    assert sum(per_area.values()) == 55
    assert all(name.startswith("C") and count <= 8 for name, count in per_area.items())
    assert Counter(item.level for item in grid.areas)["mv"] == 1
    heads = {item.id: item.head_bus for item in grid.areas}
    assert all(area[heads[name]] == "LV" for name in per_area)


def test_powers_follow_the_shapes() -> None:
    powers = european_lv_powers()
    assert powers.active_power_w.shape == (55, 1440)
    assert powers.active_power_w[0, 0] == pytest.approx(36.0)  # first value of the first shape: 0.036 kW
    assert (powers.reactive_power_var / powers.active_power_w) == pytest.approx(0.3287 * np.ones((55, 1440)), rel=1e-3)
