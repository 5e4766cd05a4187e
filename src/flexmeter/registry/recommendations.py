"""Recommendations of the reconfiguration, what was decided on them, and who decided: an audit trail.

Paper section 5: a proposed switch status vector with its evidence. The service that made it says what has become of it;
a person's verdict is kept here until the service has acted on it, so that neither a restart of the service nor
one of the platform loses it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from flexmeter.errors import FlexmeterError, InputError
from flexmeter.registry.database import Database, Value
from flexmeter.registry.names import checked

Verdict = Literal["approve", "reject"]
Status = Literal["advised", "proposed", "approved", "rejected", "executed", "superseded", "expired"]
STATUSES: tuple[Status, ...] = get_args(Status)
_OPEN = ("advised", "proposed", "approved")
_AGREES: dict[Verdict, tuple[str, ...]] = {"approve": ("approved", "executed"), "reject": ("rejected",)}
_COLUMNS = "id, grid, number, service, status, verdict, document, created_ms, updated_ms"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit trail: what was said of a recommendation (a status or a verdict), by whom and why."""

    word: str
    author: str
    reason: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class KeptRecommendation:
    """A recommendation and what has become of it.

    Attributes
    ----------
    id : counts up over all grids; lists go by it.
    grid, number : its name; numbers count up per grid.
    service : the device name of the service that made it and executes it.
    status : what the service says; `verdict` what a person said, or nothing.
    document : the recommendation as the service put it, JSON.
    created_ms, updated_ms : [ms UTC]
    """

    id: int
    grid: str
    number: int
    service: str
    status: str
    verdict: str
    document: bytes
    created_ms: int
    updated_ms: int


class VerdictConflict(FlexmeterError):
    """The recommendation is no longer waiting, or somebody else decided otherwise."""


class Recommendations:
    """The recommendations of all tenants."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def put(
        self, tenant: str, grid: str, number: int, *, service: str, status: str, document: bytes, author: str
    ) -> KeptRecommendation:
        """Keep a recommendation, or what has become of it; the same once more changes nothing.

        A newer recommendation of the service for the grid supersedes those of its that were still open.
        """
        checked("grid", grid)
        checked("service", service)
        if status not in STATUSES:
            raise InputError(f"recommendation {number}: status {status!r}, expected one of {', '.join(STATUSES)}")
        now_ms = self._clock()
        with self._database.change() as connection:
            known = self.get(tenant, grid, number)
            if known is not None and (known.service, known.status, known.document) == (service, status, document):
                return known
            connection.execute(
                "insert into recommendations(tenant, grid, number, service, status, verdict, sent, document,"
                " created_ms, updated_ms) values (?, ?, ?, ?, ?, '', 0, ?, ?, ?) on conflict (tenant, grid, number)"
                " do update set service = excluded.service, status = excluded.status, document = excluded.document,"
                " updated_ms = excluded.updated_ms",
                [tenant, grid, number, service, status, document, now_ms, now_ms],
            )
            if known is None or known.status != status:
                _note(connection, (tenant, grid, number), Entry(status, author, "", now_ms))
            if known is None:
                gone = Entry("superseded", author, f"by recommendation {number}", now_ms)
                _supersede(connection, (tenant, grid, number), service, gone)
        return self._known(tenant, grid, number)

    def decide(
        self, tenant: str, grid: str, number: int, verdict: Verdict, *, author: str, reason: str = ""
    ) -> KeptRecommendation:
        """Note a verdict on a recommendation that waits; the same verdict once more changes nothing.

        InputError: not known; VerdictConflict: not waiting, or decided otherwise.
        """
        with self._database.change() as connection:
            known = self._known(tenant, grid, number)
            if known.verdict == verdict or known.status in _AGREES[verdict]:
                return known
            if known.status != "proposed" or known.verdict:
                state = f"is told to {known.verdict}" if known.verdict else f"is {known.status}"
                raise VerdictConflict(f"recommendation {number} of {grid} {state}, it does not wait for a verdict")
            connection.execute(
                "update recommendations set verdict = ?, sent = 0, updated_ms = ?"
                " where tenant = ? and grid = ? and number = ?",
                [verdict, self._clock(), tenant, grid, number],
            )
            _note(connection, (tenant, grid, number), Entry(verdict, author, reason, self._clock()))
        return self._known(tenant, grid, number)

    def get(self, tenant: str, grid: str, number: int) -> KeptRecommendation | None:
        """Return a recommendation, None if there is none."""
        found = self._database.ask(
            f"select {_COLUMNS} from recommendations where tenant = ? and grid = ? and number = ?",
            [tenant, grid, number],
        )
        return _kept(found[0]) if found else None

    def list(
        self,
        tenant: str,
        *,
        grid: str | None = None,
        status: str | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> tuple[KeptRecommendation, ...]:
        """Return recommendations, newest first, those with an id below `before_id` only."""
        found = self._database.ask(
            f"select {_COLUMNS} from recommendations where tenant = ? and id < ?"
            " and (? is null or grid = ?) and (? is null or status = ?) order by id desc limit ?",
            [tenant, 2**62 if before_id is None else before_id, grid, grid, status, status, limit],
        )
        return tuple(_kept(row) for row in found)

    def history(self, tenant: str, grid: str, number: int) -> tuple[Entry, ...]:
        """Return the audit trail of a recommendation, oldest first."""
        found = self._database.ask(
            "select word, author, reason, time_ms from recommendation_words"
            " where tenant = ? and grid = ? and number = ? order by id",
            [tenant, grid, number],
        )
        return tuple(
            Entry(str(word), str(author), str(reason), _integer(time_ms)) for word, author, reason, time_ms in found
        )

    def sent(self, tenant: str, grid: str, number: int) -> None:
        """Take note that the service was told the verdict."""
        with self._database.change() as connection:
            connection.execute(
                "update recommendations set sent = 1 where tenant = ? and grid = ? and number = ?",
                [tenant, grid, number],
            )

    def not_sent(self) -> tuple[tuple[str, KeptRecommendation], ...]:
        """Return verdicts, with their tenants, that the services have not been told and still wait for."""
        found = self._database.ask(
            f"select tenant, {_COLUMNS} from recommendations where verdict <> '' and sent = 0 and status = 'proposed'"
            " order by id"
        )
        return tuple((str(tenant), _kept(tuple(row))) for tenant, *row in found)

    def _known(self, tenant: str, grid: str, number: int) -> KeptRecommendation:
        known = self.get(tenant, grid, number)
        if known is None:
            raise InputError(f"recommendation {number} of {grid}: not known")
        return known


def _note(connection: sqlite3.Connection, key: tuple[str, str, int], entry: Entry) -> None:
    connection.execute(
        "insert into recommendation_words(tenant, grid, number, word, author, reason, time_ms) values (?,?,?,?,?,?,?)",
        [*key, entry.word, entry.author, entry.reason, entry.time_ms],
    )


def _supersede(connection: sqlite3.Connection, key: tuple[str, str, int], service: str, entry: Entry) -> None:
    """Close the recommendations before the one with this key that are still open."""
    marks = ", ".join("?" * len(_OPEN))
    older = connection.execute(
        "select number from recommendations where tenant = ? and grid = ? and number < ? and service = ?"
        f" and status in ({marks})",
        [*key, service, *_OPEN],
    ).fetchall()
    for (number,) in older:
        one = (*key[:2], number)
        connection.execute(
            "update recommendations set status = 'superseded', updated_ms = ?"
            " where tenant = ? and grid = ? and number = ?",
            [entry.time_ms, *one],
        )
        _note(connection, one, entry)


def _kept(row: tuple[Value, ...]) -> KeptRecommendation:
    number_id, grid, number, service, status, verdict, document, created_ms, updated_ms = row
    assert isinstance(document, bytes)
    return KeptRecommendation(
        _integer(number_id),
        str(grid),
        _integer(number),
        str(service),
        str(status),
        str(verdict),
        document,
        _integer(created_ms),
        _integer(updated_ms),
    )


def _integer(value: Value) -> int:
    assert isinstance(value, int)
    return value
