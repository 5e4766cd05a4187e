"""The outbox of a concentrator: batches on disk until the broker has acknowledged them (SQLite, WAL, full sync).

It is bounded by bytes and by age. What has to go is counted, by run and sequence number, and reported as a gap.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from flexmeter.errors import StorageError
from flexmeter.messages.notices import Gap

_SCHEMA = """
create table if not exists batches (
    id integer primary key autoincrement,
    time_ms integer not null,
    boot integer not null,
    seq integer not null,
    payload blob not null
);
create table if not exists gaps (
    boot integer not null, first_seq integer not null, last_seq integer not null,
    messages integer not null, reason text not null, time_ms integer not null,
    primary key (boot, reason)
);
create table if not exists runs (boot integer primary key);
"""


_LAST = 2**62


class Stored(msgspec.Struct, frozen=True):
    """A batch in the outbox; `time_ms` is when it was put there."""

    id: int
    time_ms: int
    boot: int
    seq: int
    payload: bytes


class Outbox:
    """Batches of one device; every writing method is durable on return. Only one process may use a file.

    Parameters
    ----------
    path : the SQLite file.
    source : the device, named in gaps.
    max_bytes, max_age_s : beyond either the oldest batches are dropped and counted.
    """

    def __init__(self, path: Path, source: str, max_bytes: int = 512 * 2**20, max_age_s: float = 30 * 86_400) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._database.execute("pragma journal_mode=wal")
            self._database.execute("pragma synchronous=full")
            self._database.executescript(_SCHEMA)
            self.count, self.bytes = self._database.execute(
                "select count(*), coalesce(sum(length(payload)), 0) from batches"
            ).fetchone()
            self.last_id = self._last_id()
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"outbox {path}: {error}") from error

    def new_boot(self, now_s: int) -> int:
        """Return the number of a new run: the time, or one more than the last run if the clock went back."""
        with self._change():
            last = self._database.execute("select max(boot) from runs").fetchone()[0]
            boot = now_s if last is None else max(now_s, last + 1)
            self._database.execute("delete from runs")
            self._database.execute("insert into runs values (?)", (boot,))
        return int(boot)

    def put(self, time_ms: int, boot: int, batches: Sequence[tuple[int, bytes]]) -> list[Stored]:
        """Keep (seq, payload) batches; return them with their ids."""
        stored = []
        with self._change():
            for seq, payload in batches:
                cursor = self._database.execute(
                    "insert into batches (time_ms, boot, seq, payload) values (?, ?, ?, ?)",
                    (time_ms, boot, seq, payload),
                )
                stored.append(Stored(int(cursor.lastrowid or 0), time_ms, boot, seq, payload))
            self.count += len(stored)
            self.last_id = stored[-1].id if stored else self.last_id
            self.bytes += sum(len(payload) for _, payload in batches)
            self._drop_what_exceeds(time_ms)
        return stored

    def between(self, after_id: int, before_id: int | None, limit: int) -> list[Stored]:
        """Return batches with ids between two (None = no upper end), oldest first."""
        rows = self._database.execute(
            "select id, time_ms, boot, seq, payload from batches where id > ? and id < ? order by id limit ?",
            (after_id, _LAST if before_id is None else before_id, limit),
        )
        return [Stored(*row) for row in rows]

    def delete(self, batches: Iterable[Stored]) -> None:
        """Forget batches that the broker has acknowledged; one that was dropped in the meantime is no gap after all."""
        with self._change():
            for one in batches:
                if self._database.execute("delete from batches where id = ?", (one.id,)).rowcount:
                    self.count -= 1
                    self.bytes -= len(one.payload)

    def gaps(self) -> list[Gap]:
        """Return what was dropped and not yet reported, one record per run and reason."""
        rows = self._database.execute("select boot, first_seq, last_seq, messages, reason, time_ms from gaps")
        return [
            Gap(
                source=self._source,
                boot=boot,
                first_seq=first,
                last_seq=last,
                messages=messages,
                reason=reason,
                time_ms=time_ms,
            )
            for boot, first, last, messages, reason, time_ms in rows
        ]

    def forget(self, gaps: Iterable[Gap]) -> None:
        """Forget gaps that were reported; what has been dropped since stays."""
        with self._change():
            for gap in gaps:
                self._database.execute(
                    "update gaps set messages = messages - ?, first_seq = ? where boot = ? and reason = ?",
                    (gap.messages, gap.last_seq + 1, gap.boot, gap.reason),
                )
            self._database.execute("delete from gaps where messages <= 0")

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def _last_id(self) -> int:
        """Return the greatest id ever given: how many batches there have been."""
        row = self._database.execute("select seq from sqlite_sequence where name = 'batches'").fetchone()
        return int(row[0]) if row else 0

    def _drop_what_exceeds(self, now_ms: int) -> None:
        too_old = now_ms - int(self._max_age_s * 1000)
        while self.count:
            row = self._database.execute(
                "select id, time_ms, boot, seq, length(payload) from batches order by id limit 1"
            ).fetchone()
            id, time_ms, boot, seq, size = row
            if self.bytes <= self._max_bytes and time_ms >= too_old:
                return
            reason: Literal["bytes", "age"] = "age" if time_ms < too_old else "bytes"
            self._database.execute("delete from batches where id = ?", (id,))
            self._database.execute(
                "insert into gaps values (?, ?, ?, 1, ?, ?) on conflict (boot, reason) do update set"
                " last_seq = max(last_seq, excluded.last_seq), messages = messages + 1, time_ms = excluded.time_ms",
                (boot, seq, seq, reason, now_ms),
            )
            self.count -= 1
            self.bytes -= size

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        try:
            self._database.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._database.execute("rollback")
                raise
            self._database.execute("commit")
        except sqlite3.Error as error:
            raise StorageError(f"outbox {self._path}: {error}") from error
