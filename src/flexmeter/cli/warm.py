"""`flexmeter warm`: compile the numerical kernels once, so that no user's command waits for it."""

from __future__ import annotations

import gc
from importlib import import_module

import typer

PARTS = ("estimation:warm_batch", "estimation:warm_single", "reconfiguration:warm", "estimation:warm_powerflow")
"""The longest first: three of them run at a time, so that two processors are busy to the end."""


def warm() -> None:
    """Compile and cache the numerical kernels (set-up does this; later commands find them compiled)."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(3, mp_context=get_context("spawn"), initializer=gc.disable) as pool:
        for part in [pool.submit(_warm, part) for part in PARTS]:
            part.result()


def _warm(part: str) -> None:
    module, function = part.split(":")
    getattr(import_module(f"flexmeter.{module}"), function)()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(hidden=True)(warm)
