"""`flexmeter warm`: compile the numerical kernels once, so that no user's command waits for it."""

from __future__ import annotations

import typer


def warm() -> None:
    """Compile and cache the numerical kernels (set-up does this; later commands find them compiled)."""
    from flexmeter.estimation import warm as warm_estimation
    from flexmeter.reconfiguration import warm as warm_reconfiguration

    warm_estimation()
    warm_reconfiguration()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(hidden=True)(warm)
