"""The v1 HTTP API of InfluxDB: write points, ask InfluxQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import msgspec

from flexmeter.errors import StorageError

POINTS_AT_ONCE = 10_000
TIMEOUT_S = 60.0
Value = str | float | int | bool | None


class Group(msgspec.Struct, frozen=True):
    """Rows of an answer that share their tags."""

    columns: list[str]
    name: str = ""
    tags: dict[str, str] = {}
    values: list[list[Value]] = []


class _Result(msgspec.Struct, frozen=True):
    series: list[Group] = []
    error: str = ""


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Result] = []
    error: str = ""


@dataclass(frozen=True)
class InfluxClient:
    """One database of a server; `http` carries its address, credentials and TLS."""

    http: httpx.Client
    database: str
    _decoder: msgspec.json.Decoder[_Answer] = field(
        default_factory=lambda: msgspec.json.Decoder(_Answer), compare=False, repr=False
    )

    def write(self, lines: Sequence[str]) -> None:
        """Write points; a request is on disk when it is answered (the server's default WAL setting)."""
        for first in range(0, len(lines), POINTS_AT_ONCE):
            content = "\n".join(lines[first : first + POINTS_AT_ONCE]).encode()
            self._post("/write", {"db": self.database, "precision": "ms"}, content=content)

    def ask(self, query: str) -> list[Group]:
        """Return the groups of rows that one statement gives; times in ms."""
        given = {"db": self.database, "epoch": "ms"}
        answer = self._decoder.decode(self._post("/query", given, form={"q": query}).content)
        for error in (answer.error, *(result.error for result in answer.results)):
            if error:
                raise StorageError(f"InfluxDB: {error}")
        return [group for result in answer.results for group in result.series]

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def _post(
        self,
        path: str,
        given: dict[str, str],
        *,
        content: bytes | None = None,
        form: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            response = self.http.post(path, params=given, content=content, data=form)
        except httpx.HTTPError as error:
            raise StorageError(f"InfluxDB: {error or type(error).__name__}") from error
        if response.is_error:
            raise StorageError(f"InfluxDB: {response.status_code} {response.text.strip()[:200]}")
        return response
