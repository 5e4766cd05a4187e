"""ClickHouse's engine in this process (chdb), in place of a server."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from flexmeter.errors import StorageError
from flexmeter.storage.base import Engine
from flexmeter.storage.clickhouse import ClickhouseEngine


class ChdbClient:
    """Runs statements in a session; one at a time, since chdb allows no more."""

    def __init__(self, session, folder: Path) -> None:
        self._session = session
        self._folder = folder
        self._lock = threading.Lock()

    def run(self, statement: str) -> None:
        self._query(statement, "CSV")

    def ask(self, query: str) -> pa.Table:
        content = self._query(query, "ArrowStream")
        return pa.ipc.open_stream(content).read_all()

    def insert(self, table: str, rows: pa.Table) -> None:
        with self._lock:
            file = self._folder / "insert.arrow"
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows)
            names = ", ".join(rows.column_names)
            self._locked(f"insert into {table} ({names}) select {names} from file('{file}', 'Arrow')", "CSV")

    def close(self) -> None:
        """Leave the session to the house."""

    def _query(self, statement: str, form: str) -> bytes:
        with self._lock:
            return self._locked(statement, form)

    def _locked(self, statement: str, form: str) -> bytes:
        try:
            result = self._session.query(statement, form)
        except RuntimeError as error:
            raise StorageError(f"ClickHouse: {str(error).splitlines()[0]}") from error
        return result.bytes()


class ChdbHouse:
    can_backup = False

    def __init__(self, client: ChdbClient) -> None:
        self._client = client
        self._numbers = itertools.count()

    def new_database(self) -> str:
        return f"tenant{next(self._numbers)}"

    def open(self, database: str) -> Engine:
        return ClickhouseEngine.open(self._client, database)

    def open_backup(self, folder: Path, database: str) -> Engine:
        raise NotImplementedError


@contextmanager
def clickhouse_house(folder: Path) -> Iterator[ChdbHouse]:
    session_module = pytest.importorskip("chdb.session", reason="chdb is not installed")
    session = session_module.Session(str(folder / "chdb"))
    try:
        yield ChdbHouse(ChdbClient(session, folder))
    finally:
        session.close()
