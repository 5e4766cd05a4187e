"""Days that retention takes out of the database stay in the archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flexmeter.errors import StorageError
from flexmeter.messages.rows import Rows, SeriesKey
from flexmeter.storage import Archive, Retention, Selection, Span, Store, TenantStores
from flexmeter.storage.duckdb import open_duckdb_stores

START_MS = 1_780_272_000_000
MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
EVER = Span(0, 4_000_000_000_000)


def keys(*meters: str) -> list[SeriesKey]:
    return [SeriesKey("acme", f"c-{meter}", meter, "voltage", "a") for meter in meters]


def rows(series: np.ndarray, minutes: np.ndarray, values: np.ndarray) -> Rows:
    n = np.size(minutes)
    return Rows(
        series=np.broadcast_to(series, n).astype(np.int32),
        time_ms=START_MS + np.asarray(minutes, np.int64) * MINUTE_MS,
        value=np.broadcast_to(np.asarray(values, float), n).copy(),
        sigma=np.full(n, 0.5, np.float32),
        quality=np.zeros(n, np.uint8),
    )


def read(store: Store, chosen: Selection | None = None, span: Span = EVER) -> dict[str, list]:
    batches = list(store.readings(chosen or Selection(), span))
    return pa.Table.from_batches([batch for batch in batches if batch.num_rows] or batches).to_pydict()


class TestArchive:
    @pytest.fixture
    def stores(self, tmp_path: Path) -> TenantStores:
        return open_duckdb_stores(
            tmp_path / "data",
            retention=Retention(rows_days=2),
            archive=tmp_path / "archive",
            clock=lambda: START_MS + 100 * DAY_MS,
        )

    def test_archived_days_are_answered_as_before(self, stores: TenantStores, tmp_path: Path) -> None:
        store = stores.store("acme")
        series = store.series_ids(keys("m1", "m2"))
        minutes = np.arange(0, 5 * 1440, 30)
        for number in (0, 1):
            store.write(rows(series[number], minutes, minutes + 0.5 * number))
        questions = [
            (Selection(), EVER),
            (Selection(meters=("m2",)), Span(START_MS + DAY_MS // 2, START_MS + 4 * DAY_MS)),
            (Selection(sources=("c-m1",)), Span(START_MS + 90 * MINUTE_MS, START_MS + 91 * MINUTE_MS)),
            (Selection(phases=("b",)), EVER),
        ]
        before = [read(store, *question) for question in questions]
        store.maintain()
        names = sorted(path.name for path in (tmp_path / "archive" / "acme").iterdir())
        assert names == ["readings-2026-06-01.0.parquet", "readings-2026-06-02.0.parquet"]
        assert [read(store, *question) for question in questions] == before
        stores.close()

    def test_rows_that_come_after_their_day_was_archived(self, stores: TenantStores) -> None:
        store = stores.store("acme")
        series = store.series_ids(keys("m1", "m2"))
        store.write(rows(series[0], np.arange(0, 5 * 1440, 60), np.arange(120)))
        store.maintain()
        store.write(rows(series[1], np.array([5, 100]), np.array([7.0, 8.0])))
        store.maintain()
        found = read(store, span=Span(START_MS, START_MS + 121 * MINUTE_MS))
        assert found["value"] == [0.0, 7.0, 1.0, 8.0, 2.0]
        assert found["time_ms"] == sorted(found["time_ms"])
        stores.close()

    def test_late_rows_archived_again_after_a_crash_are_there_once(self, tmp_path: Path) -> None:
        names = {name: pa.array(["x", "x"]).dictionary_encode() for name in ("source", "meter", "quantity", "phase")}
        numbers = {"time_ms": [START_MS, START_MS + 1], "value": [1.0, 2.0], "sigma": [0.1, 0.1], "quality": [0, 0]}
        batch = pa.RecordBatch.from_pydict({**names, **{name: pa.array(v) for name, v in numbers.items()}})
        archive = Archive(tmp_path)
        for late in (False, False, True, True):
            assert archive.add("readings", START_MS, iter([batch.slice(0, 0), batch]), late=late) == 2
        assert len(list(tmp_path.iterdir())) == 3
        (found,) = archive.read("readings", Selection(), EVER)
        assert found["value"].to_pylist() == [1.0, 2.0]

    def test_a_damaged_file_is_named(self, stores: TenantStores, tmp_path: Path) -> None:
        store = stores.store("acme")
        store.write(rows(store.series_ids(keys("m1")), np.arange(0, 5 * 1440, 60), np.arange(120)))
        store.maintain()
        (tmp_path / "archive" / "acme" / "readings-2026-06-01.0.parquet").write_bytes(b"PAR1 and nothing")
        with pytest.raises(StorageError, match="2026-06-01"):
            read(store)
        stores.close()
