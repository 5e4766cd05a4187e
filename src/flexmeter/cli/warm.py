"""`flexmeter warm`: compile the numerical kernels once, so that no user's command waits for it."""

from __future__ import annotations

import typer


def warm() -> None:
    """Compile and cache the numerical kernels (set-up does this; later commands find them compiled)."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for half in [pool.submit(_warm_estimation), pool.submit(_warm_reconfiguration)]:
            half.result()


def _warm_estimation() -> None:
    from flexmeter.estimation import warm

    warm()


def _warm_reconfiguration() -> None:
    from flexmeter.reconfiguration import warm

    warm()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(hidden=True)(warm)
