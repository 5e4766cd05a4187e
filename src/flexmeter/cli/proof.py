"""`flexmeter bench` and `chaos`: tools that prove what the guarantees say, on the user's own machine."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
