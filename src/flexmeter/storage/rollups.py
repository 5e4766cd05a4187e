"""Roll-ups of one kind of rows: which hours are rolled up, which are out of date again.

Rows are rolled up to hours and days once their hour is over. Minutes and quarters, which would take
more space than the rows, are computed from the rows when asked and stored only when retention is
about to delete the rows. A late or corrected
row marks its hour stale, durably and in the same transaction; until the next upkeep a stale hour
is answered from the rows. So an answer never differs from what the rows say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows
from flexmeter.storage.base import Engine, Kind
from flexmeter.storage.columns import Buckets
from flexmeter.storage.query import DAY_MS, HOUR_MS, Resolution, Span

FINE = (Resolution.MINUTE, Resolution.QUARTER)
"""Roll-ups that are stored only for the time before the rows that are kept."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Days that rows and roll-ups are kept; None keeps them for ever."""

    rows_days: int | None = None
    minute_days: int | None = None
    quarter_days: int | None = None
    hour_days: int | None = None
    day_days: int | None = None

    def of(self, step: Resolution) -> int | None:
        """Return the days of one roll-up."""
        return {
            Resolution.MINUTE: self.minute_days,
            Resolution.QUARTER: self.quarter_days,
            Resolution.HOUR: self.hour_days,
            Resolution.DAY: self.day_days,
        }[step]


class RollUps:
    """Knows up to when an engine's stored buckets can be trusted, and brings them up to date."""

    def __init__(self, engine: Engine, kind: Kind, writing: threading.Lock) -> None:
        self._engine = engine
        self._kind = kind
        self._writing = writing
        self._lock = threading.Lock()
        stale = engine.stale(kind)
        self._stale = {hour_ms for hour_ms, _ in stale}
        self._marked = set(self._stale)
        self._since: set[int] = set()
        self._mark = 1 + max((mark for _, mark in stale), default=0)
        self._until_ms = engine.note(f"{kind}_rolled_until")
        self._closing_ms = self._until_ms
        self._rows_from_ms = engine.note(f"{kind}_rows_from")

    @property
    def rows_from_ms(self) -> int | None:
        """From when on rows are kept [ms UTC]; None while none were deleted."""
        return self._rows_from_ms

    def stale_hours(self, rows: Rows) -> tuple[tuple[int, ...], int]:
        """Return the hours to be marked in the transaction of these rows, and the mark.

        The caller holds the writing lock until the transaction is committed.
        """
        with self._lock:
            if self._closing_ms is None or len(rows) == 0:
                return (), self._mark
            early = rows.time_ms < self._closing_ms
            if self._rows_from_ms is not None:
                early &= rows.time_ms >= self._rows_from_ms
            hours = np.unique(rows.time_ms[early] // HOUR_MS * HOUR_MS).tolist()
            self._stale.update(hours)
            self._since.update(hours)
            return tuple(hour for hour in hours if hour not in self._marked), self._mark

    def marked(self, hours: tuple[int, ...]) -> None:
        """Take note that marks are durable."""
        with self._lock:
            self._marked.update(hours)

    def bring_up(self, first_ms: int, until_ms: int) -> None:
        """Roll up what is new before `until_ms` (a whole hour) and what is stale."""
        start_ms, until_ms, hours, upto_mark = self._begin(first_ms, until_ms)
        pieces = [Span(hour_ms, hour_ms + HOUR_MS) for hour_ms in hours if hour_ms < start_ms]
        pieces += _days(Span(start_ms, until_ms))
        for piece in pieces:
            self._engine.roll_up(self._kind, Resolution.HOUR, piece)
        for day_ms in sorted({piece.start_ms // DAY_MS * DAY_MS for piece in pieces}):
            if day_ms + DAY_MS <= until_ms:
                self._engine.roll_up(self._kind, Resolution.DAY, Span(day_ms, day_ms + DAY_MS))
        self._engine.set_note(f"{self._kind}_rolled_until", until_ms)
        self._engine.freshen(self._kind, upto_mark)
        with self._lock:
            self._until_ms = until_ms
            self._stale = set(self._since)

    def _begin(self, first_ms: int, until_ms: int) -> tuple[int, int, list[int], int]:
        """Close the hours before `until_ms` while no write is under way.

        What is written to them later gets a later mark and is stale again afterwards.
        """
        with self._writing, self._lock:
            start_ms = first_ms // DAY_MS * DAY_MS if self._until_ms is None else self._until_ms
            until_ms = max(until_ms, start_ms)
            hours = [
                hour_ms
                for hour_ms, _ in self._engine.stale(self._kind)
                if self._rows_from_ms is None or hour_ms >= self._rows_from_ms
            ]
            self._closing_ms = until_ms
            self._marked.clear()
            self._since.clear()
            self._mark += 1
            return start_ms, until_ms, hours, self._mark - 1

    def retain(self, retention: Retention, now_ms: int, archive: Callable[[Span], object]) -> None:
        """Delete what retention does not keep; rows go only after they are rolled up and archived."""
        if retention.rows_days is not None and self._until_ms is not None:
            before_ms = min(_days_ago(now_ms, retention.rows_days), self._until_ms)
            self._drop_rows(before_ms // DAY_MS * DAY_MS, retention, archive)
        for step in Resolution:
            days = retention.of(step)
            if days is not None:
                self._engine.drop_before(self._kind, step, _days_ago(now_ms, days))

    def buckets(self, series: NDArray[np.int32] | None, span: Span, step: Resolution) -> Buckets:
        """Return the buckets of a span of whole steps, stored ones where they can be trusted."""
        parts = []
        for piece, stored in self.pieces(span, step):
            if stored:
                parts.append(self._engine.rolled(self._kind, step, series, piece))
            else:
                parts.append(self._engine.aggregate(self._kind, series, piece, int(step)))
        return Buckets.concatenate(parts)

    def pieces(self, span: Span, step: Resolution) -> list[tuple[Span, bool]]:
        """Split a span of whole steps into what comes from stored buckets and what from rows."""
        width = max(int(step), HOUR_MS)
        with self._lock:
            fine = step in FINE
            stored_until = self._rows_from_ms if fine else self._until_ms
            edges = set() if fine else {hour_ms // width * width for hour_ms in self._stale}
        if stored_until is None:
            return [(span, False)] if span.end_ms > span.start_ms else []
        stored_until = min(stored_until // width * width, span.end_ms)
        pieces: list[tuple[Span, bool]] = []
        at_ms = span.start_ms
        for edge_ms in sorted(edges):
            low, high = max(edge_ms, at_ms), min(edge_ms + width, stored_until)
            if low >= high:
                continue
            pieces += [(Span(at_ms, low), True), (Span(low, high), False)]
            at_ms = high
        pieces.append((Span(at_ms, max(at_ms, stored_until)), True))
        pieces.append((Span(max(at_ms, stored_until), span.end_ms), False))
        return [(piece, stored) for piece, stored in pieces if piece.end_ms > piece.start_ms]

    def _drop_rows(self, before_ms: int, retention: Retention, archive: Callable[[Span], object]) -> None:
        oldest_ms = self._engine.oldest_ms(self._kind)
        if oldest_ms is None or oldest_ms >= before_ms:
            return
        first_ms = max(oldest_ms // DAY_MS * DAY_MS, self._rows_from_ms or 0)
        for step in FINE:
            days = retention.of(step)
            if days is None or days > (retention.rows_days or 0):
                for day in _days(Span(first_ms, max(first_ms, before_ms))):
                    self._engine.roll_up(self._kind, step, day)
        for day in _days(Span(oldest_ms // DAY_MS * DAY_MS, before_ms)):
            archive(day)
        with self._lock:
            self._rows_from_ms = before_ms
        self._engine.set_note(f"{self._kind}_rows_from", before_ms)
        self._engine.drop_before(self._kind, None, before_ms)


def _days(span: Span) -> list[Span]:
    """Split at midnights, so that one roll-up is one day at most."""
    edges = [span.start_ms, *range((span.start_ms // DAY_MS + 1) * DAY_MS, span.end_ms, DAY_MS)]
    ends = [*edges[1:], span.end_ms]
    return [Span(a, b) for a, b in zip(edges, ends, strict=True) if b > a]


def _days_ago(now_ms: int, days: int) -> int:
    return (now_ms - days * DAY_MS) // DAY_MS * DAY_MS
