"""`flexmeter doctor`: is everything there, does it run, is every message accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from flexmeter.cli.shared import CONFIG, JSON


def doctor(config: Path = CONFIG, as_json: bool = JSON) -> None:
    """Check configuration, disk, certificates, broker, platform and the account of all messages.

    Exit status 1 if anything is wrong.

    Example: flexmeter doctor --config house/flexmeter.toml
    """
    import msgspec

    from flexmeter.app.checkup import check_up

    checks = check_up(config)
    if as_json:
        print(json.dumps(msgspec.to_builtins(checks)))
    else:
        for check in checks:
            print(f"{'ok   ' if check.ok else 'WRONG'} {check.name:24} {check.detail}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)
