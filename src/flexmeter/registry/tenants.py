"""Tenants: groups of users that share devices, data and a database of their own."""

from __future__ import annotations

from collections.abc import Callable

from flexmeter.errors import InputError
from flexmeter.registry.database import Database
from flexmeter.registry.names import checked


class Tenants:
    """The tenants of a registry."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def add(self, name: str) -> None:
        """Add a tenant; one that is there already stays as it is."""
        checked("tenant", name)
        with self._database.change() as connection:
            connection.execute("insert or ignore into tenants values (?, ?)", [name, self._clock()])

    def names(self) -> tuple[str, ...]:
        """Return all tenants."""
        return tuple(str(name) for (name,) in self._database.ask("select name from tenants order by name"))

    def require(self, name: str) -> None:
        """Raise InputError if there is no such tenant."""
        if not self._database.ask("select 1 from tenants where name = ?", [name]):
            known = ", ".join(self.names()) or "none"
            raise InputError(f"tenant {name!r}: not known, there are: {known}")
