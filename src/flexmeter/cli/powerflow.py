"""`flexmeter powerflow GRID [LOADS]`: three-phase load flow of one or many scenarios from files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from flexmeter.grid.readers import LoadTable
    from flexmeter.powerflow import Network, PowerFlowResult

from flexmeter.cli.grid import JSON, SOURCE
from flexmeter.errors import InputError

OUT = typer.Option(None, "--out", "-o", help="Write every voltage into this .csv, .parquet or .json.")
PLOT = typer.Option(None, "--plot", help="Draw the voltages over the distance into this .png, .svg or .pdf.")
SWITCHES = typer.Option(None, "--switches", help="Switch status vector in file order, e.g. 1111110111111.")


def powerflow(
    grid: str = SOURCE,
    loads: Path | None = typer.Argument(
        None,
        help="Loads as .csv or .parquet (load, active_power_w, reactive_power_var, optionally phase, scenario), or a "
        "power-grid-model update batch; the grid's own powers if left out.",
    ),
    out: Path | None = OUT,
    plot: Path | None = PLOT,
    switches: str | None = SWITCHES,
    threads: int = typer.Option(1, "--threads", min=1, help="Threads that share the scenarios."),
    as_json: bool = JSON,
) -> None:
    """Compute the voltages and losses of every scenario.

    Example: [bold]flexmeter powerflow grid.json loads.csv --out voltages.parquet --plot profile.png[/bold]
    """
    import numpy as np

    from flexmeter.cli.files import check_out
    from flexmeter.cli.pictures import check_picture, voltage_profile
    from flexmeter.grid.readers import LoadTable, read_any_grid, read_load_table
    from flexmeter.powerflow import compile_network

    check_out(out)
    check_picture(plot)
    imported = read_any_grid(grid)
    model = imported.grid
    network = compile_network(model, switch_vector(switches, model.switch_vector))
    default = network.power_w, network.power_var
    if loads is None:
        table = LoadTable(("0",), default[0][:, None], default[1][:, None])
    else:
        table = read_load_table(loads, network.injections, default, imported.load_ids)
    summary = _solve(network, table, out, threads)
    if plot is not None:
        worst = table.scenarios.index(summary.lowest.scenario)
        voltage = np.abs(_run(network, table, slice(worst, worst + 1), 1).voltage_v[:, 0])
        title = f"{model.id}: scenario {summary.lowest.scenario}, the one with the lowest voltage"
        voltage_profile(plot, model, network, voltage, None, title)
    _print(model.id, summary, as_json)


def switch_vector(text: str | None, default: tuple[bool, ...]) -> tuple[bool, ...]:
    """Return the switch status vector that a word of 0 and 1 says."""
    if text is None:
        return default
    if len(text) != len(default) or set(text) - {"0", "1"}:
        raise InputError(f"--switches {text}: expected {len(default)} digits 0 or 1, one per switch of the grid")
    return tuple(digit == "1" for digit in text)


@dataclass
class Extreme:
    """The lowest or highest voltage found."""

    per_unit: float
    bus: str = ""
    phase: str = ""
    scenario: str = ""


@dataclass
class Summary:
    """What a run over all scenarios found."""

    scenarios: int
    lowest: Extreme
    highest: Extreme
    losses_w: list[float]
    source_w: list[float]
    iterations: int = 0


def _run(network: Network, table: LoadTable, part: slice, threads: int) -> PowerFlowResult:
    from flexmeter.powerflow import powerflow as solve

    result = solve(network, table.active_power_w[:, part], table.reactive_power_var[:, part], threads=threads)
    result.raise_if_diverged()
    return result


def _solve(network: Network, table: LoadTable, out: Path | None, threads: int) -> Summary:
    import numpy as np

    from flexmeter.cli.files import blocks, node_columns, result_file

    summary = Summary(len(table.scenarios), Extreme(np.inf), Extreme(-np.inf), [], [])
    nominal = network.nominal_v[network.node_bus][:, None]
    with result_file(out) as sink:
        for part in blocks(len(table.scenarios), "load flow"):
            result = _run(network, table, part, threads)
            names = table.scenarios[part]
            magnitude = np.abs(result.voltage_v)
            per_unit = magnitude / nominal
            for extreme, where in ((summary.lowest, per_unit.argmin()), (summary.highest, per_unit.argmax())):
                node, scenario = np.unravel_index(where, per_unit.shape)
                value = float(per_unit[node, scenario])
                if (value < extreme.per_unit) == (extreme is summary.lowest) and value != extreme.per_unit:
                    extreme.per_unit, extreme.scenario = value, names[scenario]
                    extreme.bus, extreme.phase = network.nodes[node]
            summary.losses_w += result.losses_w.tolist()
            summary.source_w += result.source_va.sum(axis=0).real.tolist()
            summary.iterations = max(summary.iterations, int(result.iterations.max()))
            values = {
                "voltage_v": magnitude,
                "voltage_pu": per_unit,
                "angle_deg": np.degrees(np.angle(result.voltage_v)),
            }
            sink.write(node_columns(names, network.nodes, values))
    return summary


def _print(name: str, summary: Summary, as_json: bool) -> None:
    from flexmeter.cli.files import print_pairs, watts

    losses, source = sum(summary.losses_w) / summary.scenarios, sum(summary.source_w) / summary.scenarios
    if as_json:
        document = {
            "grid": name,
            "scenarios": summary.scenarios,
            "voltage_min": vars(summary.lowest),
            "voltage_max": vars(summary.highest),
            "losses_w": {"mean": losses, "max": max(summary.losses_w)},
            "source_w": {"mean": source, "max": max(summary.source_w)},
            "iterations": summary.iterations,
        }
        print(json.dumps(document))
        return
    extremes = [
        (f"{label} voltage", f"{e.per_unit:.4f} pu (bus {e.bus} phase {e.phase}, scenario {e.scenario})")
        for label, e in (("lowest", summary.lowest), ("highest", summary.highest))
    ]
    print_pairs(
        f"Load flow of {name}",
        [
            ("scenarios", str(summary.scenarios)),
            *extremes,
            ("losses", f"mean {watts(losses)}, largest {watts(max(summary.losses_w))}"),
            ("infeed", f"mean {watts(source)}, largest {watts(max(summary.source_w))}"),
            ("iterations", f"at most {summary.iterations}"),
        ],
    )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(powerflow)
