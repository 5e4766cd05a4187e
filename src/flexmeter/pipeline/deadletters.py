"""Dead letters: every refused message, durable before it is acknowledged, to look at and to replay."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from flexmeter.errors import StorageError

_SCHEMA = """
create table if not exists letters (
    id integer primary key autoincrement,
    time_ms integer not null,
    topic text not null,
    reason text not null,
    detail text not null,
    size integer not null,
    payload blob not null
)
"""


class DeadLetter(msgspec.Struct, frozen=True):
    """A refused message; `payload` is shorter than `size` if it was too large to keep whole."""

    time_ms: int
    topic: str
    reason: str
    detail: str
    size: int
    payload: bytes
    id: int = 0


class DeadLetters:
    """The refused messages of one tenant, in one SQLite file of bounded size; the oldest go first.

    Any process may open the file; a writing method is durable on return.
    """

    def __init__(self, path: Path, max_bytes: int = 256 * 2**20, keep_bytes: int = 2**20) -> None:
        self.path = path
        self.dropped = 0
        self._max_bytes = max_bytes
        self._keep_bytes = keep_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._database() as database:
            database.execute("pragma journal_mode=wal")
            database.execute(_SCHEMA)
            self._bytes = database.execute("select coalesce(sum(length(payload)), 0) from letters").fetchone()[0]

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep messages; beyond the size limit the oldest are dropped and counted."""
        with self._database() as database:
            database.executemany(
                "insert into letters (time_ms, topic, reason, detail, size, payload) values (?, ?, ?, ?, ?, ?)",
                [
                    (one.time_ms, one.topic, one.reason, one.detail, one.size, one.payload[: self._keep_bytes])
                    for one in letters
                ],
            )
            self._bytes += sum(min(len(one.payload), self._keep_bytes) for one in letters)
            while self._bytes > self._max_bytes:
                self._drop_oldest(database)

    def find(self, *, reason: str = "", device: str = "", after_id: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Return letters in order of id, of one reason or device if given."""
        with self._database() as database:
            rows = database.execute(
                "select time_ms, topic, reason, detail, size, payload, id from letters where id > ?"
                " and (? = '' or reason = ?) and (? = '' or topic like '%/' || ? || '/%') order by id limit ?",
                (after_id, reason, reason, device, device, limit),
            ).fetchall()
        return [DeadLetter(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many letters there are of each reason."""
        with self._database() as database:
            return dict(database.execute("select reason, count(*) from letters group by reason order by reason"))

    def remove(self, ids: Iterable[int]) -> None:
        """Forget letters, after a replay."""
        with self._database() as database:
            database.executemany("delete from letters where id = ?", [(one,) for one in ids])
            self._bytes = database.execute("select coalesce(sum(length(payload)), 0) from letters").fetchone()[0]

    def _drop_oldest(self, database: sqlite3.Connection) -> None:
        oldest = database.execute("select id, length(payload) from letters order by id limit 100").fetchall()
        database.executemany("delete from letters where id = ?", [(one,) for one, _ in oldest])
        self._bytes = self._bytes - sum(size for _, size in oldest) if oldest else 0
        self.dropped += len(oldest)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self.path, timeout=10)
            try:
                database.execute("pragma synchronous=full")
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise StorageError(f"dead letters {self.path}: {error}") from error
