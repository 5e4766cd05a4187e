"""What goes over HTTP to InfluxDB and ClickHouse, and what becomes of failures."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import numpy as np
import pyarrow as pa
import pytest

from flexmeter.errors import InputError, StorageError
from flexmeter.messages.rows import Rows
from flexmeter.storage.clickhouse import ClickhouseEngine, HttpClient
from flexmeter.storage.influxdb import InfluxClient, InfluxEngine
from flexmeter.storage.influxdb.points import row_lines, text

Handler = Callable[[httpx.Request], httpx.Response]


def http(handler: Handler) -> httpx.Client:
    return httpx.Client(base_url="http://store", transport=httpx.MockTransport(handler))


def away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


class TestInfluxdb:
    def test_points_of_rows(self) -> None:
        rows = Rows(
            series=np.array([7, 8], np.int32),
            time_ms=np.array([1000, 2000]),
            value=np.array([230.1, -0.0]),
            sigma=np.array([np.nan, 0.5], np.float32),
            quality=np.array([0, 2], np.uint8),
        )
        assert row_lines("readings", rows, 5) == [
            "readings,s=7 value=230.1,quality=0i,good=True,received=5i 1000",
            "readings,s=8 value=-0.0,quality=2i,good=False,received=5i,sigma=0.5 2000",
        ]
        assert text('a"b\\c') == '"a\\"b\\\\c"'

    def test_an_error_within_an_answer_is_an_error(self) -> None:
        client = InfluxClient(
            http(lambda _: httpx.Response(200, json={"results": [{"statement_id": 0, "error": "shard gone"}]})), "db"
        )
        with pytest.raises(StorageError, match="shard gone"):
            client.ask("select 1")

    @pytest.mark.parametrize("handler", [away, lambda _: httpx.Response(503, text="overloaded")])
    def test_a_failure_is_a_storage_error(self, handler: Handler) -> None:
        client = InfluxClient(http(handler), "db")
        with pytest.raises(StorageError, match=r"InfluxDB: (503 overloaded|connection refused)"):
            client.write(["readings,s=1 value=1 0"])

    def test_an_odd_database_name_is_refused(self) -> None:
        with pytest.raises(InputError, match="database"):
            InfluxEngine.open(InfluxClient(http(away), 'x"; drop database y'))


class TestClickhouse:
    def test_arrow_both_ways(self) -> None:
        table = pa.table({"series": [1, 2], "value": [0.5, 1.5]})
        asked: list[httpx.Request] = []

        def handler(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            return httpx.Response(200, content=sink.getvalue().to_pybytes())

        client = HttpClient(http(handler))
        assert client.ask("select series, value from t").equals(table)
        assert asked[0].content == b"select series, value from t format ArrowStream"
        client.insert("t", table)
        assert asked[1].url.params["query"] == "insert into t (series, value) format ArrowStream"
        assert pa.ipc.open_stream(asked[1].content).read_all().equals(table)

    @pytest.mark.parametrize("handler", [away, lambda _: httpx.Response(500, text="Code: 60. no table")])
    def test_a_failure_is_a_storage_error(self, handler: Handler) -> None:
        with pytest.raises(StorageError, match=r"ClickHouse: (500 Code: 60|connection refused)"):
            HttpClient(http(handler)).run("select 1")

    def test_an_odd_database_name_is_refused(self) -> None:
        with pytest.raises(InputError, match="database"):
            ClickhouseEngine.open(HttpClient(http(away)), "x`y")
