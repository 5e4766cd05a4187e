"""The Network Topology Web Service's memory: the switch status vector of every grid, versioned.

Paper sections 4.3 and 5: the reconfiguration writes the vector, the estimators read it. Every
version is kept, and whether its alert has gone out, so that an alert lost to a crash is repeated.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from flexmeter.errors import FlexmeterError, InputError
from flexmeter.registry.database import Database, Value
from flexmeter.registry.names import checked

_COLUMNS = "grid, version, switches, closed, time_ms, author, reason"


@dataclass(frozen=True, slots=True)
class Topology:
    """One version of a grid's switch status vector.

    Attributes
    ----------
    grid, version : the first version is 1.
    switches : names of the switches, in the order of the grid's switches.
    closed : status of each, True = closed.
    time_ms : [ms UTC] from when on it is in force, in the time of the grid (a simulated day has its own).
    author, reason : who put it and why.
    """

    grid: str
    version: int
    switches: tuple[str, ...]
    closed: tuple[bool, ...]
    time_ms: int
    author: str
    reason: str


class VersionMismatch(FlexmeterError):
    """Somebody else changed the topology first."""

    def __init__(self, grid: str, expected: int, current: int) -> None:
        self.current = current
        super().__init__(f"topology of {grid}: expected version {expected}, in force is {current}")


class Topologies:
    """The topologies of all tenants."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def current(self, tenant: str, grid: str) -> Topology | None:
        """Return the vector in force, None for an unknown grid."""
        found = self._database.ask(
            f"select {_COLUMNS} from topologies where tenant = ? and grid = ? order by version desc limit 1",
            [tenant, grid],
        )
        return _topology(found[0]) if found else None

    def grids(self, tenant: str) -> tuple[str, ...]:
        """Return the grids that have a topology."""
        found = self._database.ask("select distinct grid from topologies where tenant = ? order by grid", [tenant])
        return tuple(str(grid) for (grid,) in found)

    def start(self, tenant: str, grid: str, switches: Sequence[str], closed: Sequence[bool], author: str) -> Topology:
        """Give a grid its vector when it has none, or when its switches changed.

        A grid that has a vector for the same switches keeps it.
        """
        checked("grid", grid)
        _same_length(switches, closed)
        with self._database.change() as connection:
            current = self.current(tenant, grid)
            if current is not None and current.switches == tuple(switches):
                return current
            version = 1 if current is None else current.version + 1
            now_ms = self._clock()
            names, status = tuple(switches), tuple(closed)
            first = Topology(grid, version, names, status, now_ms, author, "grid loaded")
            _insert(connection, tenant, first)
        return first

    def put(
        self,
        tenant: str,
        grid: str,
        closed: Sequence[bool],
        *,
        expected_version: int,
        author: str,
        reason: str = "",
        time_ms: int | None = None,
    ) -> Topology:
        """Put a vector in force from `time_ms` on (default: now) and return it as the next version.

        The vector in force put again stays the version it is. InputError: unknown grid or wrong
        length; VersionMismatch: the version in force is not the one expected.
        """
        with self._database.change() as connection:
            current = self.current(tenant, grid)
            if current is None:
                raise InputError(f"grid {grid!r}: has no topology")
            _same_length(current.switches, closed)
            if current.version != expected_version:
                raise VersionMismatch(grid, expected_version, current.version)
            if current.closed == tuple(closed):
                return current
            version, names, status = current.version + 1, current.switches, tuple(closed)
            since_ms = self._clock() if time_ms is None else time_ms
            changed = Topology(grid, version, names, status, since_ms, author, reason)
            _insert(connection, tenant, changed)
        return changed

    def history(
        self, tenant: str, grid: str, *, before_version: int | None = None, limit: int = 100
    ) -> tuple[Topology, ...]:
        """Return versions, newest first, those before `before_version` only."""
        found = self._database.ask(
            f"select {_COLUMNS} from topologies where tenant = ? and grid = ? and version < ? "
            "order by version desc limit ?",
            [tenant, grid, 2**62 if before_version is None else before_version, limit],
        )
        return tuple(_topology(row) for row in found)

    def alerted(self, tenant: str, topology: Topology) -> None:
        """Take note that the alert of a version, and so of those before it, has gone out."""
        with self._database.change() as connection:
            connection.execute(
                "update topologies set alerted = 1 where tenant = ? and grid = ? and version <= ?",
                [tenant, topology.grid, topology.version],
            )

    def not_alerted(self) -> tuple[tuple[str, Topology], ...]:
        """Return tenant and newest version of the grids whose newest alert has not gone out."""
        found = self._database.ask(
            f"select tenant, {_COLUMNS} from topologies t where alerted = 0 and version = "
            "(select max(version) from topologies n where n.tenant = t.tenant and n.grid = t.grid)"
        )
        return tuple((str(tenant), _topology(tuple(row))) for tenant, *row in found)


def _insert(connection: sqlite3.Connection, tenant: str, topology: Topology) -> None:
    connection.execute(
        f"insert into topologies (tenant, {_COLUMNS}, alerted) values (?,?,?,?,?,?,?,?,0)",
        [
            *(tenant, topology.grid, topology.version),
            msgspec.json.encode(topology.switches).decode(),
            "".join("1" if closed else "0" for closed in topology.closed),
            *(topology.time_ms, topology.author, topology.reason),
        ],
    )


def _same_length(switches: Sequence[str], closed: Sequence[bool]) -> None:
    if len(switches) != len(closed):
        raise InputError(f"switches: {len(closed)} given, expected {len(switches)}")


def _topology(row: tuple[Value, ...]) -> Topology:
    grid, version, switches, closed, time_ms, author, reason = row
    return Topology(
        grid=str(grid),
        version=int(version or 0),
        switches=msgspec.json.decode(str(switches), type=tuple[str, ...]),
        closed=tuple(flag == "1" for flag in str(closed)),
        time_ms=int(time_ms or 0),
        author=str(author),
        reason=str(reason),
    )
