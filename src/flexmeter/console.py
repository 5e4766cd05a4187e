"""The terminal, for text that is data: square brackets are units and names of buses, never markup."""

from __future__ import annotations

from rich.console import Console


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that prints what it is given."""
    return Console(stderr=stderr, quiet=quiet, markup=False, highlight=False)
