"""`flexmeter reconfigure`: the best radial state of a network file."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flexmeter.errors import InputError

if TYPE_CHECKING:
    from flexmeter.reconfiguration import Bound, Constraints, FeederNetwork, SearchResult, Sequence
    from flexmeter.reconfiguration.network import BoolArray

JsonValue = bool | float | int | str | list["JsonValue"] | dict[str, "JsonValue"] | None


class Method(StrEnum):
    """How to look for a tree."""

    SEARCH = "search"
    GREEDY = "greedy"


def reconfigure(
    grid: Path = typer.Argument(help="Network: MATPOWER .m, pandapower JSON or own JSON; or example:NAME."),
    loads: Path | None = typer.Argument(None, help="CSV with bus, p_kw, q_kvar instead of the file's powers."),
    method: Method = typer.Option(Method.SEARCH, help="Search, or the paper's greedy tree alone."),
    objective: str = typer.Option("losses", help="losses, deviation, infeed, balance; several in order, by comma."),
    v_min: float = typer.Option(0.0, help="Lowest voltage allowed, per unit."),
    v_max: float = typer.Option(math.inf, help="Highest voltage allowed, per unit."),
    ratings: bool = typer.Option(True, help="Keep to the rated currents of the file."),
    max_operations: int | None = typer.Option(None, min=0, help="Switching operations allowed from the present state."),
    seed: int = typer.Option(1, min=0, help="Seed of the local search."),
    rounds: int | None = typer.Option(None, min=0, help="Rounds of the local search; by default by network size."),
    proof: float = typer.Option(0.0, min=0.0, help="Seconds to spend on a lower bound of the losses."),
    picture: Path | None = typer.Option(None, help="Write a picture before and after (.png, .svg, .pdf)."),
    json_output: bool = typer.Option(False, "--json", help="Print the result as JSON and nothing else."),
) -> None:
    """Find the radial state with the least losses, and the switching sequence that leads to it.

    Example: flexmeter reconfigure example:kraftringen533_high --v-min 0.95 --proof 10 --picture before-after.png
    """
    from flexmeter.reconfiguration import Constraints, plan_sequence

    network = _read(grid, loads)
    limits = Constraints(v_min_pu=v_min, v_max_pu=v_max, ratings=ratings, max_operations=max_operations)
    result = _solve(network, method, objective, limits, seed, rounds)
    sequence = plan_sequence(network, result.closed, limits) if _is_radial(network) else None
    bound = _prove(network, result, proof, quiet=json_output) if proof else None
    if picture is not None:
        _draw(network, result, picture)
    report = _report(network, result, limits, sequence, bound)
    if json_output:
        typer.echo(json.dumps(report, indent=1))
    else:
        _print(network, report, sequence)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reconfigure)


def _read(grid: Path, loads: Path | None) -> FeederNetwork:
    from flexmeter.reconfiguration.readers import example, read_loads, read_network

    name = str(grid)
    network = example(name.removeprefix("example:")) if name.startswith("example:") else read_network(grid)
    return network if loads is None else read_loads(network, loads)


def _is_radial(network: FeederNetwork) -> bool:
    from flexmeter.errors import NotRadial
    from flexmeter.reconfiguration import check_radial

    try:
        check_radial(network)
    except NotRadial:
        return False
    return True


def _solve(
    network: FeederNetwork, method: Method, objective: str, limits: Constraints, seed: int, rounds: int | None
) -> SearchResult:
    from flexmeter.reconfiguration import Budget, greedy_tree, lexicographic
    from flexmeter.reconfiguration.goals import OBJECTIVES
    from flexmeter.reconfiguration.search import evaluate_state

    if method is Method.GREEDY:
        return evaluate_state(network, greedy_tree(network), limits)
    known = {str(name): name for name in OBJECTIVES}
    unknown = [name for name in objective.split(",") if name not in known]
    if unknown:
        raise InputError(f"--objective {unknown[0]!r}: expected {', '.join(OBJECTIVES)}, several separated by commas")
    order = [known[name] for name in objective.split(",")]
    return lexicographic(network, order, limits, Budget(rounds, seed))


def _prove(network: FeederNetwork, result: SearchResult, seconds: float, *, quiet: bool) -> Bound:
    from time import monotonic

    from flexmeter.reconfiguration import prove

    bound = None
    for bound in prove(network, result.closed, result.losses_w, clock=monotonic, seconds=seconds):
        if not quiet and bound.method == "splitting":
            typer.echo(f"bound {bound.lower_w / 1e3:.3f} kW, gap {bound.gap_percent:.3f} %", err=True)
    assert bound is not None
    return bound


def _draw(network: FeederNetwork, result: SearchResult, picture: Path) -> None:
    from flexmeter.reconfiguration.picture import draw_before_after

    if picture.suffix not in {".png", ".svg", ".pdf"}:
        raise InputError(f"--picture {picture}: expected a name that ends in .png, .svg or .pdf")
    draw_before_after(network, result.closed, picture)


def _report(
    network: FeederNetwork,
    result: SearchResult,
    limits: Constraints,
    sequence: Sequence | None,
    bound: Bound | None,
) -> dict[str, JsonValue]:
    from flexmeter.reconfiguration import gain_percent, meshed_losses

    now, then = _state(network, network.closed, limits), _state(network, result.closed, limits)
    meshed = float(meshed_losses(network, network.p_w, network.q_var)[0])
    report: dict[str, JsonValue] = {
        "network": network.name,
        "buses": network.bus_count,
        "ties": network.tie_count,
        "now": now,
        "then": then,
        "gain_percent": gain_percent(_losses(now), _losses(then)),
        "meshed_losses_kw": meshed / 1e3 if math.isfinite(meshed) else None,
        "open": list(result.open_branches),
        "within_limits": result.terms.feasible,
        "states_evaluated": result.evaluated,
    }
    if sequence is not None:
        report["sequence"] = [[step.action, step.branch] for step in sequence.steps]
        report["sequence_accepted"] = sequence.accepted
    if bound is not None:
        lower = bound.lower_w / 1e3
        report["bound_kw"] = lower if math.isfinite(lower) else None
        report["gap_percent"] = bound.gap_percent if math.isfinite(lower) else None
        report["bound_note"] = bound.note
    return report


def _state(network: FeederNetwork, closed: BoolArray, limits: Constraints) -> dict[str, JsonValue]:
    """Return the figures of one state; without a load flow solution they are empty."""
    import numpy as np

    from flexmeter.errors import DidNotConverge
    from flexmeter.reconfiguration import meshed_flow
    from flexmeter.reconfiguration.sequence import violation_of

    opened: list[JsonValue] = list(network.names_of(~closed))
    try:
        flow = meshed_flow(network, closed)
    except DidNotConverge:
        nothing: dict[str, JsonValue] = dict.fromkeys(("losses_kw", "v_min_pu", "v_max_pu", "loading_percent"))
        return {**nothing, "open": opened}
    v = np.abs(flow.voltage_pu)
    loading = violation_of(network, flow, limits)[1]
    return {
        "losses_kw": flow.losses_w / 1e3,
        "v_min_pu": float(np.nanmin(v)),
        "v_max_pu": float(np.nanmax(v)),
        "loading_percent": loading * 100 if np.isfinite(network.rated_current_a).any() else None,
        "open": opened,
    }


def _losses(state: dict[str, JsonValue]) -> float:
    losses = state["losses_kw"]
    return float(losses) if isinstance(losses, int | float) else math.inf


def _print(network: FeederNetwork, report: dict[str, JsonValue], sequence: Sequence | None) -> None:
    from rich.table import Table

    from flexmeter.console import console

    terminal = console()
    now, then = report["now"], report["then"]
    assert isinstance(now, dict)
    assert isinstance(then, dict)
    table = Table(title=f"{network.name}: {network.bus_count} buses, {network.tie_count} ties")
    for column in ("", "now", "then"):
        table.add_column(column, justify="left" if not column else "right")
    for key, name in (
        ("losses_kw", "losses [kW]"),
        ("v_min_pu", "lowest voltage [pu]"),
        ("v_max_pu", "highest voltage [pu]"),
        ("loading_percent", "largest loading [%]"),
    ):
        table.add_row(name, *("-" if state[key] is None else f"{state[key]:,.4f}" for state in (now, then)))
    table.add_row("open branches", *(_joined(state["open"]) for state in (now, then)))
    terminal.print(table)
    meshed = report["meshed_losses_kw"]
    terminal.print(
        f"gain {report['gain_percent']:.2f} %" + ("" if meshed is None else f", all closed {meshed:,.3f} kW")
    )
    if "bound_note" in report:
        known = report["bound_kw"] is not None
        terminal.print(
            f"proven: at least {report['bound_kw']:.3f} kW, gap {report['gap_percent']:.4f} %" if known else ""
        )
        terminal.print(str(report["bound_note"]))
    if not report["within_limits"]:
        terminal.print("no state within the limits was found; this one breaks them least")
    if sequence is not None and sequence.steps:
        order = ", ".join(f"{step.action} {step.branch}" for step in sequence.steps)
        terminal.print(f"sequence ({'accepted' if sequence.accepted else sequence.reason}): {order}")


def _joined(names: JsonValue) -> str:
    """Return a list of names as a line of text, an end of a long one left out."""
    shown = [str(name) for name in names] if isinstance(names, list) else []
    return ", ".join(shown[:12]) + (f" (+{len(shown) - 12} more)" if len(shown) > 12 else "")
