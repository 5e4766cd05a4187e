"""Grid documents of a tenant, versioned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from flexmeter.registry.database import Database
from flexmeter.registry.names import checked
from flexmeter.registry.tenants import Tenants


@dataclass(frozen=True, slots=True)
class GridVersion:
    """A grid document as it was put: JSON bytes, names of its switches, version, time and author."""

    grid: str
    version: int
    document: bytes
    switches: tuple[str, ...]
    created_ms: int
    author: str


class Grids:
    """The grid documents of all tenants."""

    def __init__(self, database: Database, tenants: Tenants, clock: Callable[[], int]) -> None:
        self._database = database
        self._tenants = tenants
        self._clock = clock

    def put(self, tenant: str, grid: str, document: bytes, switches: Sequence[str], author: str) -> GridVersion:
        """Keep a document; the newest one put again stays the version it is."""
        self._tenants.require(tenant)
        checked("grid", grid)
        with self._database.change() as connection:
            current = self.get(tenant, grid)
            if current is not None and current.document == document:
                return current
            version = 1 if current is None else current.version + 1
            now_ms = self._clock()
            connection.execute(
                "insert into grids values (?, ?, ?, ?, ?, ?, ?)",
                [
                    *(tenant, grid, version, document),
                    msgspec.json.encode(switches).decode(),
                    *(now_ms, author),
                ],
            )
        return GridVersion(grid, version, document, tuple(switches), now_ms, author)

    def get(self, tenant: str, grid: str) -> GridVersion | None:
        """Return the newest document of a grid."""
        found = self._database.ask(
            "select version, document, switches, created_ms, author from grids "
            "where tenant = ? and grid = ? order by version desc limit 1",
            [tenant, grid],
        )
        if not found:
            return None
        version, document, switches, created_ms, author = found[0]
        assert isinstance(version, int)
        assert isinstance(document, bytes)
        assert isinstance(created_ms, int)
        names = msgspec.json.decode(str(switches), type=tuple[str, ...])
        return GridVersion(grid, version, document, names, created_ms, str(author))

    def names(self, tenant: str) -> tuple[str, ...]:
        """Return the names of a tenant's grids."""
        found = self._database.ask("select distinct grid from grids where tenant = ? order by grid", [tenant])
        return tuple(str(grid) for (grid,) in found)
