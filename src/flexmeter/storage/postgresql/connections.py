"""Connections to one PostgreSQL database: one that writes, and a few that ask."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from flexmeter.errors import StorageError

Connection = psycopg.Connection[tuple[object, ...]]


class Connections:
    """Opens connections when needed; one that broke is left behind and replaced at the next need."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue(maxsize=4)
        self._writer: Connection | None = None
        self._writing = threading.RLock()
        self._closed = False

    @contextmanager
    def asking(self) -> Iterator[Connection]:
        """Lend a connection that sees one state of the database for the whole block."""
        with self._errors("read"):
            connection = self._taken()
            try:
                with connection.transaction():
                    connection.execute("set transaction isolation level repeatable read read only")
                    yield connection
            finally:
                self._given_back(connection)

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """Commit what is done within, or nothing of it."""
        with self._errors("write"), self._writing:
            if self._writer is None or self._writer.closed:
                self._writer = self._opened()
            with self._writer.transaction():
                yield self._writer

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        with self._writing:
            if self._writer is not None:
                self._writer.close()
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _taken(self) -> Connection:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return self._opened()
        return self._opened() if connection.closed else connection

    def _given_back(self, connection: Connection) -> None:
        if connection.closed:
            return
        try:
            if self._closed:
                raise queue.Full
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def _opened(self) -> Connection:
        if self._closed:
            raise StorageError("PostgreSQL: the store is closed")
        return psycopg.connect(self._conninfo, autocommit=True)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            text = str(error).strip().splitlines()
            raise StorageError(f"PostgreSQL: cannot {doing}: {text[0] if text else type(error).__name__}") from error
