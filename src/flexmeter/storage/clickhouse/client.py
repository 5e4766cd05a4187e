"""Statements to a ClickHouse server and Arrow back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import httpx
import pyarrow as pa

from flexmeter.errors import StorageError


class ClickhouseClient(Protocol):
    """Runs statements; failures raise StorageError."""

    def run(self, statement: str) -> None:
        """Run a statement that gives nothing back."""

    def ask(self, query: str) -> pa.Table:
        """Return the answer of a query."""

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows, all or none, on disk when it returns."""

    def close(self) -> None:
        """Release the connection."""


@dataclass(frozen=True)
class HttpClient:
    """The HTTP interface of a server; `http` carries its address, credentials and TLS."""

    http: httpx.Client

    def run(self, statement: str) -> None:
        """Run a statement that gives nothing back."""
        self._post(statement.encode())

    def ask(self, query: str) -> pa.Table:
        """Return the answer of a query."""
        content = self._post(f"{query} format ArrowStream".encode())
        return pa.ipc.open_stream(content).read_all()

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows as one block, which is stored whole or not at all."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        given = {
            "query": f"insert into {table} ({', '.join(rows.column_names)}) format ArrowStream",
            "max_insert_block_size": str(max(rows.num_rows, 1)),
        }
        self._post(sink.getvalue().to_pybytes(), given)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def _post(self, content: bytes, given: dict[str, str] | None = None) -> bytes:
        try:
            response = self.http.post("/", params=given, content=content)
        except httpx.HTTPError as error:
            raise StorageError(f"ClickHouse: {error or type(error).__name__}") from error
        if response.is_error:
            raise StorageError(f"ClickHouse: {response.status_code} {response.text.strip()[:200]}")
        return response.content
