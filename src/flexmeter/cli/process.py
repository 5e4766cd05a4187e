"""`flexmeter process`: one process of a running demo, started by its supervisor."""

from __future__ import annotations

from pathlib import Path

import typer


def process(
    kind: str = typer.Argument(help="topology, field, or a grid service."),
    settings: Path = typer.Option(..., "--settings", help="TOML file of this process."),
) -> None:
    """Run one process of the demo."""
    from flexmeter.app.process import run_until_stopped
    from flexmeter.scenario.processes import start

    run_until_stopped(start(kind, settings))


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(hidden=True)(process)
