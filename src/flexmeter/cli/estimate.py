"""`flexmeter estimate GRID READINGS`: weighted-least-squares state estimation of one or many scenarios from files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flexmeter.cli.grid import JSON, SOURCE
from flexmeter.cli.powerflow import OUT, PLOT, SWITCHES, switch_vector
from flexmeter.errors import DidNotConverge, Finding, MeasurementError

if TYPE_CHECKING:
    from flexmeter.estimation import Estimate, Estimator, Meter
    from flexmeter.grid import Grid
    from flexmeter.grid.readers import ReadingTable
    from flexmeter.powerflow import Network

SIGMA = {"voltage": 0.01, "active_power": 0.01, "reactive_power": 0.02, "current": 0.01}
"""One standard deviation where a file gives none: share of nominal voltage, of the value (paper section 6.1)."""
FLOOR = {"active_power": 1.0, "reactive_power": 1.0, "current": 0.05}
UNIT_MISTAKE = 20.0
PHASOR_SIGMA = {"voltage_angle": 0.01, "current_angle": 0.01}
"""Of angles [rad]; parts of a voltage phasor count as voltages, of a current phasor as currents."""
QUANTITIES = (
    "voltage", "active_power", "reactive_power", "current", "voltage_angle", "voltage_real", "voltage_imaginary",
    "current_angle", "current_real", "current_imaginary",
)  # fmt: skip
PLACES = ("load", "bus", "branch_from", "branch_to", "head")


def estimate(
    grid: str = SOURCE,
    readings: Path = typer.Argument(
        help="Readings as .csv or .parquet: meter (load, bus or branch), quantity (voltage, active_power, "
        "reactive_power, current, parts of phasors as voltage_angle), value, optionally phase, sigma, scenario, at "
        "(load, bus, branch_from, branch_to, head)."
    ),
    out: Path | None = OUT,
    loads: Path | None = typer.Option(None, "--loads", help="P and Q of every load as .csv, .parquet or .json."),
    meters: Path | None = typer.Option(
        None, "--meters", help="Every meter as .csv, .parquet or .json: reading, what it should have read, residual."
    ),
    plot: Path | None = PLOT,
    switches: str | None = SWITCHES,
    threads: int = typer.Option(1, "--threads", min=1, help="Threads that share the scenarios."),
    as_json: bool = JSON,
) -> None:
    """Estimate the voltages of every scenario, with standard deviations.

    A reading that is missing is missing: the load enters as a forecast with a large standard deviation. Readings
    without sigma are taken as those of the paper's meters: 1 % of nominal voltage, 1 % of P, 2 % of Q. Closed loops are
    allowed. A scenario without an estimate has empty values and is named.

    Example: [bold]flexmeter estimate grid.json readings.csv --out estimate.parquet --plot profile.png[/bold]
    """
    from flexmeter.cli.files import check_out
    from flexmeter.cli.pictures import check_picture
    from flexmeter.estimation import Estimator
    from flexmeter.grid.readers import read_any_grid, read_reading_table
    from flexmeter.powerflow import compile_network

    check_out(out)
    check_out(loads, "--loads")
    check_out(meters, "--meters")
    check_picture(plot)
    model = read_any_grid(grid).grid
    network = compile_network(model, switch_vector(switches, model.switch_vector))
    table = read_reading_table(readings)
    estimator = Estimator(network, meters_of(model, table, str(readings)))
    check_units(network, table, str(readings))
    summary, last = _run(estimator, table, _sigma(network, table), (out, loads, meters), threads)
    if plot is not None:
        _draw(plot, model, last, table)
    _print(model.id, summary, as_json)


def meters_of(grid: Grid, table: ReadingTable, source: str) -> tuple[Meter, ...]:
    """Return every row's meter: where `at` says, else at a load or bus of that name; collects what does not fit."""
    from flexmeter.estimation import Meter
    from flexmeter.grid import branches

    loads = {load.id: load.phases for load in grid.loads}
    buses = {bus.id: bus.phases for bus in grid.buses}
    carried = {branch.id: branch.phases for branch in branches(grid)}
    known = {"load": loads, "bus": buses, "head": buses, "branch_from": carried, "branch_to": carried}
    meters, findings = [], []
    for quantity, name, phase, word in table.keys:
        at = word or ("load" if name in loads else "bus" if name in buses else "")
        phases = known.get(at, {}).get(name)
        own = phase or (phases if phases and len(phases) == 1 else "")
        if quantity not in QUANTITIES:
            findings.append(Finding("reading", (name,), "quantity", f"{quantity!r}, expected {', '.join(QUANTITIES)}"))
        elif at not in PLACES and (word or name not in carried):
            text = f"{word!r}, expected {', '.join(PLACES)}" if word else "is neither a load nor a bus of the grid"
            findings.append(Finding("reading", (name,), "at" if word else "meter", text))
        elif at not in PLACES:
            findings.append(Finding("reading", (name,), "at", "missing at a branch, expected branch_from or branch_to"))
        elif phases is None:
            findings.append(
                Finding("reading", (name,), "meter", f"there is no {at.split('_')[0]} of this id in the grid")
            )
        elif not own:
            findings.append(Finding("reading", (name,), "phase", f"missing, expected one of {phases}"))
        else:
            meters.append(Meter(quantity, at, name, own))  # type: ignore[arg-type]
    if findings:
        raise MeasurementError(findings, source)
    return tuple(meters)


def check_units(network: Network, table: ReadingTable, source: str) -> None:
    """Refuse voltages a factor of `UNIT_MISTAKE` off nominal: kV or per unit where V is meant, or the wrong bus."""
    import numpy as np

    nominal = _nominal_voltages(network)
    findings = []
    for row, (quantity, name, phase, _) in enumerate(table.keys):
        if quantity == "voltage" and name in nominal:
            expected = nominal[name] * (3**0.5 if len(phase) == 2 else 1.0)
            value = table.value[row]
            strange = (value < expected / UNIT_MISTAKE) | (value > expected * UNIT_MISTAKE)
            if strange.any():
                text = f"{value[int(np.argmax(strange))]:g} V, expected volts near {expected:.4g} V"
                findings.append(Finding("reading", (f"voltage {name} {phase}".strip(),), "value", text))
    if findings:
        raise MeasurementError(findings, source)


def _nominal_voltages(network: Network) -> dict[str, float]:
    """Return the nominal phase-to-earth voltage of every bus and load [V]; a load wins over a bus of its name."""
    buses = dict(zip(network.bus_ids, network.nominal_v.tolist(), strict=True))
    loads = zip(network.injections, network.injection_bus, strict=True)
    return buses | {name: float(network.nominal_v[bus]) for (name, _), bus in loads}


def _sigma(network: Network, table: ReadingTable) -> object:
    """Return the standard deviations, those of the paper's meters where the file gives none."""
    import numpy as np

    nominal = _nominal_voltages(network)
    sigma = table.sigma.copy()
    for row, (quantity, name, phase, _) in enumerate(table.keys):
        kind = quantity.removesuffix("_real").removesuffix("_imaginary")
        if kind in PHASOR_SIGMA:
            usual = np.full(sigma.shape[1], PHASOR_SIGMA[kind])
        elif kind == "voltage":
            between = 3**0.5 if len(phase) == 2 else 1.0
            usual = np.full(sigma.shape[1], SIGMA[kind] * nominal[name] * between)
        else:
            usual = np.maximum(SIGMA[kind] * np.abs(table.value[row]), FLOOR[kind])
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
    left_out: int = 0
    not_converged: list[str] = field(default_factory=list)
    unobservable: list[str] = field(default_factory=list)
    losses_w: list[float] = field(default_factory=list)
    sigma_max_pu: float = 0.0
    sigma_mean_pu: float = 0.0
    iterations: int = 0


def _run(
    estimator: Estimator, table: ReadingTable, sigma: object, out: tuple[Path | None, Path | None, Path | None],
    threads: int,
) -> tuple[Summary, Estimate]:  # fmt: skip
    """Estimate block by block; `out` are the files of voltages, loads and meters."""
    from contextlib import ExitStack

    import numpy as np

    from flexmeter.cli.files import blocks, node_columns, result_file, table_columns
    from flexmeter.estimation import injection_table, meter_table

    network, values = estimator.network, np.asarray(sigma, float)
    nominal = network.nominal_v[network.node_bus][:, None]
    summary = Summary(len(table.scenarios), int(np.isfinite(table.value).sum()))
    shares: list[float] = []
    with ExitStack() as stack:
        nodes, loads, meters = (stack.enter_context(result_file(path)) for path in out)
        for part in blocks(len(table.scenarios), "estimation"):
            result = estimator.estimate(table.value[:, part], values[:, part], threads=threads)
            _count(summary, result, table.scenarios[part], shares)
            known = np.where(result.converged, 1.0, np.nan)
            magnitude = np.abs(result.voltage_v) * known
            columns = {
                "voltage_v": magnitude,
                "sigma_v": result.sigma_voltage_v * known,
                "voltage_pu": magnitude / nominal,
                "angle_deg": np.degrees(np.angle(result.voltage_v)) * known,
            }
            nodes.write(node_columns(table.scenarios[part], network.nodes, columns))
            if out[1] is not None:
                loads.write(table_columns(injection_table(result, table.scenarios[part]), result.converged))
            if out[2] is not None:
                found = meter_table(
                    result, estimator.meters, table.value[:, part], values[:, part], table.scenarios[part]
                )
                meters.write(table_columns(found, result.converged))
    if len(summary.not_converged) == summary.scenarios:
        where = f"scenario {', '.join(summary.not_converged[:4])}"
        raise DidNotConverge("estimation", summary.iterations, float("nan"), where)
    summary.sigma_mean_pu = float(np.mean(shares))
    return summary, result


def _count(summary: Summary, result: Estimate, scenarios: tuple[str, ...], shares: list[float]) -> None:
    """Add a block's figures; scenarios without an estimate count in none but their own."""
    import numpy as np
    from scipy.stats import chi2

    done = result.converged
    summary.not_converged += [name for name, good in zip(scenarios, done, strict=True) if not good]
    if not done.any():
        return
    freedom = result.degrees_of_freedom[done]
    summary.objective += result.objective[done].tolist()
    summary.degrees_of_freedom += freedom.tolist()
    summary.losses_w += result.losses_w[done].tolist()
    summary.suspicious += int((result.objective[done] > chi2.ppf(0.99, np.maximum(freedom, 1))).sum())
    summary.left_out += int(result.left_out[:, done].sum())
    summary.iterations = max(summary.iterations, int(result.iterations.max()))
    share = result.sigma_voltage_v[:, done] / result.network.nominal_v[result.network.node_bus][:, None]
    shares.append(float(np.nanmean(share)))
    summary.sigma_max_pu = max(summary.sigma_max_pu, float(np.nanmax(share)))
    blind = np.flatnonzero(~result.observable[:, done].all(axis=1))
    names = [" ".join(result.network.nodes[node]) for node in blind]
    summary.unobservable += [name for name in names if name not in summary.unobservable]


def _draw(path: Path, grid: Grid, result: Estimate, table: ReadingTable) -> None:
    """Draw the last scenario that has an estimate, and what was read of voltages to neutral."""
    import numpy as np

    from flexmeter.cli.pictures import voltage_profile

    network = result.network
    last = int(np.flatnonzero(result.converged)[-1]) - len(result.converged)
    at = {name: network.bus_ids[bus] for (name, _), bus in zip(network.injections, network.injection_bus, strict=True)}
    read = [
        (network.node_row[at.get(name, name), own], table.value[row, last])
        for row, (quantity, name, phase, _) in enumerate(table.keys)
        if quantity == "voltage" and not np.isnan(table.value[row, last])
        for own in [phase or _only_phase(network, at.get(name, name))]
        if (at.get(name, name), own) in network.node_row
    ]
    readings = (np.array([row for row, _ in read], np.int64), np.array([value for _, value in read], float))
    voltage, sigma = np.abs(result.voltage_v[:, last]), result.sigma_voltage_v[:, last]
    title = f"{grid.id}: estimate of scenario {table.scenarios[last]}"
    voltage_profile(path, grid, network, voltage, sigma, title, readings)


def _only_phase(network: Network, bus: str) -> str:
    own = [phase for name, phase in network.nodes if name == bus]
    return own[0] if len(own) == 1 else ""


def _print(name: str, summary: Summary, as_json: bool) -> None:
    from flexmeter.cli.files import print_pairs, watts

    count = len(summary.objective)
    objective, freedom = sum(summary.objective) / count, sum(summary.degrees_of_freedom) / count
    losses = sum(summary.losses_w) / count
    if as_json:
        document = {
            "grid": name,
            "scenarios": summary.scenarios,
            "readings": summary.readings,
            "objective": objective,
            "degrees_of_freedom": freedom,
            "suspicious_scenarios": summary.suspicious,
            "currents_left_out": summary.left_out,
            "not_converged": summary.not_converged,
            "unobservable": summary.unobservable,
            "sigma_voltage_pu": {"mean": summary.sigma_mean_pu, "max": summary.sigma_max_pu},
            "losses_w": {"mean": losses, "max": max(summary.losses_w)},
            "iterations": summary.iterations,
        }
        print(json.dumps(document))
        return
    print_pairs(
        f"Estimate of {name}",
        [
            ("scenarios", f"{summary.scenarios}, {summary.readings} readings"),
            *([("not converged", _some(summary.not_converged))] if summary.not_converged else []),
            *([("not observable", _some(summary.unobservable))] if summary.unobservable else []),
            *(
                [("left out", f"{summary.left_out} currents whose direction no other reading tells")]
                if summary.left_out
                else []
            ),
            ("objective J", f"mean {objective:.4g}"),
            ("degrees of freedom", f"mean {freedom:.4g}"),
            ("chi-square", f"{summary.suspicious} of {count} scenarios above the 99 % limit"),
            ("sigma of voltages", f"mean {summary.sigma_mean_pu:.2g} pu, largest {summary.sigma_max_pu:.2g} pu"),
            ("losses", f"mean {watts(losses)}"),
            ("iterations", f"at most {summary.iterations}"),
        ],
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(estimate)
