"""The SQLite file of the registry: tables, and transactions from any thread.

Several processes may have it open at once: the platform, and a command that adds a device or token.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flexmeter.errors import StorageError

_TABLES = """
create table if not exists tenants(name text primary key, created_ms integer not null) strict;
create table if not exists tokens(
    id text primary key, tenant text not null references tenants(name), label text not null,
    scopes text not null, secret_sha256 blob not null, created_ms integer not null,
    expires_ms integer, revoked_ms integer) strict;
create table if not exists devices(
    tenant text not null references tenants(name), name text not null, area text not null,
    created_ms integer not null, primary key (tenant, name)) strict;
create table if not exists grids(
    tenant text not null references tenants(name), grid text not null, version integer not null,
    document blob not null, switches text not null, created_ms integer not null, author text not null,
    primary key (tenant, grid, version)) strict;
create table if not exists topologies(
    tenant text not null, grid text not null, version integer not null, switches text not null,
    closed text not null, time_ms integer not null, author text not null, reason text not null,
    alerted integer not null, primary key (tenant, grid, version),
    foreign key (tenant) references tenants(name)) strict;
create table if not exists recommendations(
    id integer primary key, tenant text not null references tenants(name), grid text not null,
    number integer not null, service text not null, status text not null, verdict text not null,
    sent integer not null, document blob not null, created_ms integer not null, updated_ms integer not null,
    unique (tenant, grid, number)) strict;
create table if not exists recommendation_words(
    id integer primary key, tenant text not null, grid text not null, number integer not null, word text not null,
    author text not null, reason text not null, time_ms integer not null,
    foreign key (tenant, grid, number) references recommendations(tenant, grid, number)) strict;
"""

Value = str | int | bytes | None


class Database:
    """One connection behind a lock; every transaction is on disk when it ends."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open or create the file; it is readable by its owner only."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute("pragma foreign_keys = on")
            connection.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"cannot open registry {path.name}: {error}") from error
        return cls(connection, path.name)

    def ask(self, query: str, parameters: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        """Return all rows of a question."""
        with self._lock, self._errors():
            return self._connection.execute(query, parameters).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done within, or nothing of it; other writers wait."""
        with self._lock, self._errors():
            self._connection.execute("begin immediate")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")

    def backup(self, target: Path) -> None:
        """Write a consistent copy to a new file."""
        with self._lock, self._errors():
            copy = sqlite3.connect(target)
            try:
                self._connection.backup(copy)
            finally:
                copy.close()

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"registry {self._name}: {error}") from error
