"""`flexmeter estimate GRID READINGS`: weighted-least-squares state estimation of one or many scenarios from files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flexmeter.cli.grid import JSON, SOURCE
from flexmeter.cli.powerflow import OUT, PLOT, SWITCHES, switch_vector
from flexmeter.errors import DidNotConverge, Finding, MeasurementError, NotRadial

if TYPE_CHECKING:
    from flexmeter.estimation import Estimate, Estimator, Meter
    from flexmeter.grid import Grid
    from flexmeter.grid.readers import ReadingTable
    from flexmeter.powerflow import Network

SIGMA = {"voltage": 0.01, "active_power": 0.01, "reactive_power": 0.02}
"""One standard deviation where a file gives none: share of nominal voltage, of the value (paper section 6.1)."""
FLOOR_W = 1.0


def estimate(
    grid: str = SOURCE,
    readings: Path = typer.Argument(
        help="Readings as .csv or .parquet: meter (load or bus), quantity (voltage, active_power, reactive_power), "
        "value, optionally phase, sigma, scenario."
    ),
    out: Path | None = OUT,
    plot: Path | None = PLOT,
    switches: str | None = SWITCHES,
    threads: int = typer.Option(1, "--threads", min=1, help="Threads that share the scenarios."),
    as_json: bool = JSON,
) -> None:
    """Estimate the voltages of every scenario, with standard deviations.

    A reading that is missing is missing: the load enters as a forecast with a large standard deviation. Readings
    without sigma are taken as those of the paper's meters: 1 % of nominal voltage, 1 % of P, 2 % of Q.

    Example: [bold]flexmeter estimate grid.json readings.csv --out estimate.parquet --plot profile.png[/bold]
    """
    from flexmeter.cli.files import check_out
    from flexmeter.cli.pictures import check_picture
    from flexmeter.estimation import Estimator
    from flexmeter.grid.readers import read_any_grid, read_reading_table
    from flexmeter.powerflow import compile_network

    check_out(out)
    check_picture(plot)
    model = read_any_grid(grid).grid
    network = compile_network(model, switch_vector(switches, model.switch_vector))
    if network.loops:
        names = ", ".join(loop.branch for loop in network.loops[:6])
        raise NotRadial(f"grid {model.id}: closed loop through {names}; open one branch of it with --switches")
    table = read_reading_table(readings)
    estimator = Estimator(network, meters_of(model, table, str(readings)))
    summary, last = _run(estimator, table, _sigma(network, table), out, threads)
    if plot is not None:
        _draw(plot, model, last, table.scenarios[-1])
    _print(model.id, summary, as_json)


def meters_of(grid: Grid, table: ReadingTable, source: str) -> tuple[Meter, ...]:
    """Return the meter of every row: at a load if its name is one, else at a bus; collects what does not fit."""
    from flexmeter.estimation import Meter

    loads = {load.id: load.phases for load in grid.loads}
    buses = {bus.id: bus.phases for bus in grid.buses}
    meters, findings = [], []
    for quantity, name, phase in table.keys:
        known = loads.get(name, buses.get(name))
        own = phase or (known if known and len(known) == 1 else "")
        if quantity not in SIGMA:
            findings.append(Finding("reading", (name,), "quantity", f"{quantity!r}, expected {', '.join(SIGMA)}"))
        elif known is None:
            findings.append(Finding("reading", (name,), "meter", "is neither a load nor a bus of the grid"))
        elif not own:
            findings.append(Finding("reading", (name,), "phase", f"missing, expected one of {known}"))
        else:
            meters.append(Meter(quantity, "load" if name in loads else "bus", name, own))  # type: ignore[arg-type]
    if findings:
        raise MeasurementError(findings, source)
    return tuple(meters)


def _sigma(network: Network, table: ReadingTable) -> object:
    """Return the standard deviations, those of the paper's meters where the file gives none."""
    import numpy as np

    nominal = dict(zip(network.bus_ids, network.nominal_v, strict=True))
    at = {name: network.bus_ids[bus] for (name, _), bus in zip(network.injections, network.injection_bus, strict=True)}
    sigma = table.sigma.copy()
    for row, (quantity, name, _) in enumerate(table.keys):
        if quantity == "voltage":
            usual = np.full(sigma.shape[1], SIGMA[quantity] * nominal[at.get(name, name)])
        else:
            usual = np.maximum(SIGMA[quantity] * np.abs(table.value[row]), FLOOR_W)
        sigma[row] = np.where(np.isnan(sigma[row]), usual, sigma[row])
    return sigma


@dataclass
class Summary:
    """What the run over all scenarios found."""

    scenarios: int
    readings: int
    objective: list[float] = field(default_factory=list)
    degrees_of_freedom: list[int] = field(default_factory=list)
    suspicious: int = 0
    sigma_max_pu: float = 0.0
    sigma_mean_pu: float = 0.0
    iterations: int = 0


def _run(
    estimator: Estimator, table: ReadingTable, sigma: object, out: Path | None, threads: int
) -> tuple[Summary, Estimate]:
    import numpy as np
    from scipy.stats import chi2

    from flexmeter.cli.files import blocks, node_columns, result_file

    network, values = estimator.network, np.asarray(sigma, float)
    nominal = network.nominal_v[network.node_bus][:, None]
    summary = Summary(len(table.scenarios), int(np.isfinite(table.value).sum()))
    shares = []
    with result_file(out) as sink:
        for part in blocks(len(table.scenarios), "estimation"):
            result = estimator.estimate(table.value[:, part], values[:, part], threads=threads)
            _raise_if_diverged(result, table.scenarios[part])
            summary.objective += result.objective.tolist()
            summary.degrees_of_freedom += result.degrees_of_freedom.tolist()
            limit = chi2.ppf(0.99, np.maximum(result.degrees_of_freedom, 1))
            summary.suspicious += int((result.objective > limit).sum())
            summary.iterations = max(summary.iterations, int(result.iterations.max()))
            share = result.sigma_voltage_v / nominal
            shares.append(float(np.nanmean(share)))
            summary.sigma_max_pu = max(summary.sigma_max_pu, float(np.nanmax(share)))
            magnitude = np.abs(result.voltage_v)
            columns = {
                "voltage_v": magnitude,
                "sigma_v": result.sigma_voltage_v,
                "voltage_pu": magnitude / nominal,
                "angle_deg": np.degrees(np.angle(result.voltage_v)),
            }
            sink.write(node_columns(table.scenarios[part], network.nodes, columns))
    summary.sigma_mean_pu = float(np.mean(shares))
    return summary, result


def _raise_if_diverged(result: Estimate, scenarios: tuple[str, ...]) -> None:
    if result.converged.all():
        return
    lost = [name for name, good in zip(scenarios, result.converged, strict=True) if not good]
    raise DidNotConverge("estimation", int(result.iterations.max()), float("nan"), f"scenario {', '.join(lost[:4])}")


def _draw(path: Path, grid: Grid, result: Estimate, scenario: str) -> None:
    import numpy as np

    from flexmeter.cli.pictures import voltage_profile

    voltage, sigma = np.abs(result.voltage_v[:, -1]), result.sigma_voltage_v[:, -1]
    voltage_profile(path, grid, result.network, voltage, sigma, f"{grid.id}: estimate of scenario {scenario}")


def _print(name: str, summary: Summary, as_json: bool) -> None:
    from flexmeter.cli.files import print_pairs

    objective, freedom = sum(summary.objective), sum(summary.degrees_of_freedom)
    if as_json:
        document = {
            "grid": name,
            "scenarios": summary.scenarios,
            "readings": summary.readings,
            "objective": objective / summary.scenarios,
            "degrees_of_freedom": freedom / summary.scenarios,
            "suspicious_scenarios": summary.suspicious,
            "sigma_voltage_pu": {"mean": summary.sigma_mean_pu, "max": summary.sigma_max_pu},
            "iterations": summary.iterations,
        }
        print(json.dumps(document))
        return
    print_pairs(
        f"Estimate of {name}",
        [
            ("scenarios", f"{summary.scenarios}, {summary.readings} readings"),
            ("objective J", f"mean {objective / summary.scenarios:.4g}"),
            ("degrees of freedom", f"mean {freedom / summary.scenarios:.4g}"),
            ("chi-square", f"{summary.suspicious} of {summary.scenarios} scenarios above the 99 % limit"),
            ("sigma of voltages", f"mean {summary.sigma_mean_pu:.2g} pu, largest {summary.sigma_max_pu:.2g} pu"),
            ("iterations", f"at most {summary.iterations}"),
        ],
    )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(estimate)
