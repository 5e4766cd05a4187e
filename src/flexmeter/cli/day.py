"""`flexmeter demo` and `flexmeter day`: the reference day, with and without a broker."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

import typer

from flexmeter.errors import InputError


class GridName(StrEnum):
    """Grids that ship with a day of their own."""

    REFERENCE = "reference"
    EULV = "eulv"


class Meters(StrEnum):
    """How the simulated meters err."""

    NOISE = "noise"
    REALISTIC = "realistic"


class Profiles(StrEnum):
    """Where the household profiles come from."""

    GENERATOR = "generator"
    EUROPEAN = "european"


class Handover(StrEnum):
    """What an estimator hands to the level above: the joint covariance, or its diagonal as in the paper."""

    JOINT = "joint"
    DIAGONAL = "diagonal"


MINUTES = typer.Option(1440, "--minutes", min=1, max=1440, help="How many minutes of the day.")
GRID = typer.Option(GridName.REFERENCE, "--grid", help="The paper's grid, or the IEEE European LV Test Feeder.")
OUT = typer.Option(Path("demo"), "--out", help="Folder for summary.json, report.html and the figures.")
SEED = typer.Option(1, "--seed", min=0, help="Seed of grid, households and meters.")
METERS = typer.Option(Meters.NOISE, "--meters", help="White noise as in the paper, or a fixed gain error plus noise.")
PROFILES = typer.Option(Profiles.GENERATOR, "--profiles", help="Household profiles: own generator or European shapes.")
HANDOVER = typer.Option(Handover.JOINT, "--handover", help="Joint 9x9 covariance between the levels, or its diagonal.")
PARTIAL = typer.Option(False, "--partial", help="Leave three LV grids unmonitored (paper, end of section 6.3).")
JSON = typer.Option(False, "--json", help="Print the summary as JSON and nothing else.")


def day(
    minutes: int = MINUTES,
    grid: GridName = GRID,
    out: Path = typer.Option(Path("day"), "--out", help="Folder for summary.json, report.html and the figures."),
    seed: int = SEED,
    meters: Meters = METERS,
    profiles: Profiles = PROFILES,
    handover: Handover = HANDOVER,
    partial: bool = PARTIAL,
    as_json: bool = JSON,
) -> None:
    """Play the day with the library alone: no broker, no storage, same estimates and decisions as `demo`.

    Example: [bold]flexmeter day --seed 7 --out seed7[/bold]
    """
    from flexmeter.scenario.day import run_day
    from flexmeter.scenario.options import DayOptions

    chosen = DayOptions(grid.value, minutes, seed, meters.value, profiles.value, handover.value, partial)
    _finish(run_day(chosen, quiet=as_json), out, as_json)


def demo(
    minutes: int = MINUTES,
    grid: GridName = GRID,
    out: Path = OUT,
    speed: str = typer.Option("max", "--speed", help="As fast as the machine allows (max), or a factor of real time."),
    seed: int = SEED,
    meters: Meters = METERS,
    profiles: Profiles = PROFILES,
    handover: Handover = HANDOVER,
    as_json: bool = JSON,
) -> None:
    """Play the day through the whole chain: meters, broker with TLS, storage, three estimators, reconfiguration.

    Example: [bold]flexmeter demo --minutes 60[/bold]
    """
    from flexmeter.scenario.demo import run_demo
    from flexmeter.scenario.options import DayOptions

    chosen = DayOptions(grid.value, minutes, seed, meters.value, profiles.value, handover.value)
    _finish(run_demo(chosen, out, speed=_speed(speed), quiet=as_json), out, as_json)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise InputError(f"--speed {text}: expected max or a positive number")
    return factor


def _finish(run: object, out: Path, as_json: bool) -> None:
    """Write the results of a run and print them."""
    from flexmeter.scenario.results import Run, write_results

    assert isinstance(run, Run)
    summary, rows = write_results(run, out)
    if as_json:
        print(json.dumps(summary))
        return
    from flexmeter.scenario.display import print_comparison

    print_comparison(rows)
    print(f"\nReport, figures and summary.json: {out}/")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(demo)
    app.command()(day)
