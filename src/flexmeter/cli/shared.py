"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import typer

CONFIG = typer.Option(Path("flexmeter.toml"), "--config", "-c", help="The platform's configuration file.")
JSON = typer.Option(False, "--json", help="Print JSON and nothing else.")
TENANT = typer.Option("", "--tenant", help="The tenant; the first of the configuration if left out.")
