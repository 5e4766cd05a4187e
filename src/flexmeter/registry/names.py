"""Names of tenants, devices, areas and grids: they stand in topics and paths."""

from __future__ import annotations

import re

from flexmeter.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def checked(what: str, name: str) -> str:
    """Return the name, or raise InputError if it cannot stand in a topic."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{what} {name!r}: expected 1 to 64 letters, digits, _ or -")
    return name
