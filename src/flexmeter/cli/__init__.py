"""The command line: one module per family of commands, each with a `register(app)`.

Commands import what they need when they run, so that `--help` is quick. stdout carries the result (with `--json`
nothing but JSON), stderr progress and errors; errors are raised as `FlexmeterError` and shown by `__main__`.
"""

from __future__ import annotations

import typer

from flexmeter import __version__
from flexmeter.cli import day, estimate, grid, platform, powerflow, process, reconfigure, warm

app = typer.Typer(
    name="flexmeter",
    help="Smart-metering infrastructure for distribution grids: ingest, state estimation, reconfiguration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"flexmeter {__version__}")
        raise typer.Exit


@app.callback()
def flexmeter(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Read the examples in each command's --help."""


for family in (day, grid, powerflow, estimate, reconfigure, platform, process, warm):
    family.register(app)
