"""Failures of DuckDB as errors of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from flexmeter.errors import StorageError


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn an error of DuckDB into a StorageError that says what was being done."""
    try:
        yield
    except duckdb.Error as error:
        raise StorageError(f"{doing}: {str(error).splitlines()[0]}") from error


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what is done within, or nothing of it."""
    connection.execute("begin transaction")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")
