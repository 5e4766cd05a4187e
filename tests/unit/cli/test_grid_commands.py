"""`flexmeter grid`, `powerflow`, `estimate`: files in, tables and pictures out, one clear line for bad input."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from flexmeter.cli import app
from flexmeter.errors import FlexmeterError, InputError
from flexmeter.grid import Grid, write_grid
from flexmeter.powerflow import compile_network, powerflow
from flexmeter.scenario.european_lv import european_lv_grid, european_lv_powers
from flexmeter.scenario.reference_grid import reference_grid

CASES = Path(__file__).parents[2] / "cases" / "readers"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in arguments], catch_exceptions=False)


def told(*arguments: object) -> dict[str, object]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def feeder() -> Grid:
    return european_lv_grid()


@pytest.fixture
def grid_file(tmp_path: Path, feeder: Grid) -> Path:
    path = tmp_path / "eulv.json"
    write_grid(feeder, path)
    return path


@pytest.fixture
def loads(tmp_path: Path, feeder: Grid) -> Path:
    powers = european_lv_powers()
    path = tmp_path / "loads.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "load", "active_power_w", "reactive_power_var"])
        for minute in (100, 566):
            for k, load in enumerate(feeder.loads):
                row = powers.active_power_w[k, minute], powers.reactive_power_var[k, minute]
                writer.writerow([minute, load.id, *row])
    return path


def test_powerflow_of_a_table(grid_file: Path, loads: Path, feeder: Grid, tmp_path: Path) -> None:
    out, plot = tmp_path / "v.parquet", tmp_path / "profile.svg"
    summary = told("powerflow", grid_file, loads, "--out", out, "--plot", plot)
    powers = european_lv_powers()
    part = [100, 566]
    ours = powerflow(compile_network(feeder), powers.active_power_w[:, part], powers.reactive_power_var[:, part])
    table = parquet.read_table(out)
    assert table.num_rows == 2 * len(ours.model.network.nodes)
    written = np.asarray(table["voltage_v"]).reshape(2, -1).T
    assert np.abs(written - np.abs(ours.voltage_v)).max() < 1e-6
    assert summary["scenarios"] == 2
    assert summary["voltage_min"]["scenario"] == "566"
    assert summary["voltage_min"]["per_unit"] == pytest.approx(float(np.asarray(table["voltage_pu"]).min()))
    assert summary["losses_w"]["max"] == pytest.approx(ours.losses_w.max())
    assert plot.read_text().count("<path") > 100


def test_json_and_csv_results(tmp_path: Path) -> None:
    grid = reference_grid()
    path = tmp_path / "grid.json"
    write_grid(grid, path)
    told("powerflow", path, "--out", tmp_path / "v.json", "--switches", "1111101111111")
    rows = json.loads((tmp_path / "v.json").read_text())
    assert rows[0]["bus"] == "HV_001"
    assert rows[0]["voltage_pu"] == pytest.approx(1.0)
    told("powerflow", path, "--out", tmp_path / "v.csv")
    with (tmp_path / "v.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) == len(rows)


def test_estimate_with_missing_and_default_sigma(grid_file: Path, feeder: Grid, tmp_path: Path) -> None:
    network = compile_network(feeder)
    powers = european_lv_powers()
    state = powerflow(network, powers.active_power_w[:, 566:567], powers.reactive_power_var[:, 566:567])
    rng = np.random.default_rng(2)
    readings = tmp_path / "readings.csv"
    with readings.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["meter", "phase", "quantity", "value", "sigma"])
        for k, (load, phase) in enumerate(network.injections):
            v = abs(state.voltage_v[network.node_row[feeder.loads[k].bus, phase], 0])
            p, q = powers.active_power_w[k, 566], powers.reactive_power_var[k, 566]
            writer.writerow([load, phase, "voltage", v + 2.4 * rng.standard_normal(), ""])
            writer.writerow([load, "", "active_power", p * (1 + 0.01 * rng.standard_normal()) if k else "", ""])
            writer.writerow([load, phase, "reactive_power", q * (1 + 0.02 * rng.standard_normal()), 0.02 * abs(q) + 1])
    out, plot = tmp_path / "estimate.csv", tmp_path / "estimate.png"
    loads, meters = tmp_path / "loads.csv", tmp_path / "meters.parquet"
    summary = told("estimate", grid_file, readings, "--out", out, "--plot", plot, "--loads", loads, "--meters", meters)
    assert summary["readings"] == 164
    assert summary["currents_left_out"] == 0
    assert plot.stat().st_size > 20_000
    with out.open() as file:
        rows = {(row["bus"], row["phase"]): row for row in csv.DictReader(file)}
    z = [
        (float(row["voltage_v"]) - abs(state.voltage_v[network.node_row[key], 0])) / float(row["sigma_v"])
        for key, row in rows.items()
    ]
    assert np.abs(z).max() < 4
    with loads.open() as file:
        taken = list(csv.DictReader(file))
    assert [(row["load"], row["phase"]) for row in taken] == list(network.injections)
    off = [
        float(row["active_power_w"]) - power for row, power in zip(taken, powers.active_power_w[:, 566], strict=True)
    ]
    assert np.abs(np.array(off) / [float(row["sigma_active_power_w"]) for row in taken]).max() < 4
    read = parquet.read_table(meters)
    assert read.num_rows == 3 * len(network.injections)
    assert np.isnan(np.asarray(read["residual"])).sum() == 1  # the one that is missing
    with pytest.raises(InputError, match="--meters"):
        run("estimate", grid_file, readings, "--meters", tmp_path / "meters.txt")


def test_import_compares_and_records_assumptions(tmp_path: Path) -> None:
    out = tmp_path / "grid.json"
    told_ = told("grid", "import", CASES / "four_wire.dss", "--out", out)
    assert told_["format"] == "OpenDSS"
    assert told_["comparison"]["largest_pu"] < 1e-6
    assert any("phase to neutral" in text for text in told_["assumptions"])
    assert told("grid", "check", out)["findings"] == []
    text = run("grid", "import", out, "--to", "power-grid-model", "--out", tmp_path / "pgm.json").stdout
    assert "loads between phases are written as wye" in " ".join(text.split())
    assert told("grid", "show", tmp_path / "pgm.json", "--plot", tmp_path / "map.png")["buses"] == 5
    assert (tmp_path / "map.png").stat().st_size > 5000


def test_import_of_pandapower_and_back(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandapower
        from pandapower.networks import create_cigre_network_lv

        pandapower.to_json(create_cigre_network_lv(), str(tmp_path / "net.json"))
    first = told("grid", "import", tmp_path / "net.json", "--out", tmp_path / "grid.json")
    assert first["comparison"]["largest_pu"] < 1e-8
    told("grid", "import", tmp_path / "grid.json", "--to", "pandapower", "--out", tmp_path / "back.json")
    back = told("grid", "show", tmp_path / "back.json")
    assert back["buses"] == first["buses"]


def test_check_lists_every_finding(tmp_path: Path, grid_file: Path) -> None:
    document = json.loads(grid_file.read_text())
    document["loads"][0]["bus"] = "nowhere"
    document["lines"][3]["length_km"] = -1
    grid_file.write_text(json.dumps(document))
    result = run("grid", "check", grid_file)
    assert result.exit_code == 2
    assert "2 findings" in result.stdout
    assert "load load1 bus: 'nowhere' is not in the grid" in result.stdout
    result = run("grid", "check", grid_file, "--json")
    assert len(json.loads(result.stdout)["findings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("powerflow", "none.json"), InputError, "no such file"),
        (("powerflow", "GRID", "--out", "v.xlsx"), InputError, "expected one of .csv, .parquet, .json"),
        (("powerflow", "GRID", "--out", "no/where/v.csv"), InputError, "does not exist"),
        (("powerflow", "GRID", "--plot", "v.gif"), InputError, "expected one of .png, .svg, .pdf"),
        (("powerflow", "GRID", "--switches", "101"), InputError, "expected 0 digits"),
        (("powerflow", "GRID", "GRID"), InputError, "power-grid-model dataset"),
        (("estimate", "GRID", "LOADS"), InputError, "column 'meter' is missing"),
        (("grid", "import", "GRID", "--out", "no/where/g.json"), InputError, "does not exist"),
    ],
)
def test_bad_input_is_one_clear_line(
    grid_file: Path, loads: Path, arguments: tuple[str, ...], error: type[FlexmeterError], message: str
) -> None:
    words = [{"GRID": str(grid_file), "LOADS": str(loads)}.get(word, word) for word in arguments]
    with pytest.raises(error, match=message) as caught:
        run(*words)
    assert "\n" not in str(caught.value)


def test_readings_that_do_not_fit_are_all_named(grid_file: Path, feeder: Grid, tmp_path: Path) -> None:
    readings, line = tmp_path / "readings.csv", feeder.lines[0].id
    readings.write_text(
        f"meter,quantity,value,at\nnobody,voltage,230,\nload1,charm,5,\n34,voltage,230,\n{line},current,3,\n"
        f"{line},current,3,middle\nload1,current,3,branch_to\n"
    )
    with pytest.raises(InputError) as caught:
        run("estimate", grid_file, readings)
    for text in (
        "neither a load nor a bus",
        "'charm', expected voltage",
        "phase: missing",
        "at: missing at a branch",
        "at: 'middle', expected load, bus",
        "no branch of this id",
    ):
        assert text in str(caught.value)


def test_estimation_of_a_closed_ring_with_branch_meters_and_a_phasor(tmp_path: Path) -> None:
    grid = reference_grid()
    path, readings = tmp_path / "grid.json", tmp_path / "r.csv"
    write_grid(grid, path)
    network = compile_network(grid, (True,) * 13)
    state = powerflow(network)
    branch = next(switch.branch for switch in grid.switches if switch.branch in network.branch_row)
    bus = network.bus_ids[3]
    k = network.branch_ids.index(branch)
    with readings.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["meter", "phase", "quantity", "value", "at", "scenario"])
        for scenario in ("one", "two"):
            for phase, current in zip("abc", state.branch_current_a[k, :, 0], strict=True):
                writer.writerow([branch, phase, "current", abs(current), "branch_to", scenario])
            for load, phase in network.injections:
                row = network.injection_row[load, phase]
                writer.writerow([load, phase, "active_power", network.power_w[row], "", scenario])
                writer.writerow([load, phase, "reactive_power", network.power_var[row], "", scenario])
            for phase in "abc":
                v = state.voltage_v[network.node_row[bus, phase], 0]
                writer.writerow([bus, phase, "voltage", abs(v), "", scenario])
        angle = np.angle(state.voltage_v[network.node_row[bus, "a"], 0])
        writer.writerow([bus, "a", "voltage_angle", angle, "", "two"])
    summary = told("estimate", path, readings, "--switches", "1" * 13, "--out", tmp_path / "v.csv")
    assert summary["not_converged"] == []
    assert summary["unobservable"] == []
    with (tmp_path / "v.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scenario"] == "two"]
    for row in rows[:30]:
        v = state.voltage_v[network.node_row[row["bus"], row["phase"]], 0]
        assert float(row["voltage_v"]) == pytest.approx(abs(v), rel=1e-6)


def test_kilovolts_and_per_unit_are_refused_as_units(grid_file: Path, feeder: Grid, tmp_path: Path) -> None:
    load = feeder.loads[0]
    for value in (0.231, 1.01e6):
        path = tmp_path / "readings.csv"
        path.write_text(f"meter,quantity,phase,value,sigma\n{load.id},voltage,{load.phases},{value},1\n")
        with pytest.raises(InputError, match=f"{load.id} {load.phases} value: .* V, expected volts near 240"):
            run("estimate", grid_file, path)
