"""Archive, backup and upkeep of DuckDB stores."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flexmeter.errors import InputError, StorageError
from flexmeter.messages.rows import Rows, SeriesKey
from flexmeter.storage import (
    Archive,
    Retention,
    Selection,
    Span,
    Store,
    TenantStores,
    back_up,
    check_backup,
    restore,
    upkeep,
)
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


class TestBackup:
    @pytest.fixture
    def stores(self, tmp_path: Path) -> TenantStores:
        opened = open_duckdb_stores(tmp_path / "data")
        for tenant, value in (("acme", 1.0), ("beta", 2.0)):
            store = opened.store(tenant)
            series = store.series_ids([SeriesKey(tenant, "c1", "m1", "voltage", "a")])
            store.write(rows(series[0], np.arange(10), np.full(10, value)))
        return opened

    def test_backup_and_restore(self, stores: TenantStores, tmp_path: Path) -> None:
        others = {"registry.sqlite": lambda target: target.write_bytes(b"registry")}
        made = back_up(stores.opened(), tmp_path / "backup", 123, others)
        assert made == check_backup(tmp_path / "backup")
        assert (made.tenants, made.time_ms) == (("acme", "beta"), 123)
        store = stores.store("acme")
        store.write(rows(store.series_ids(keys("m1"))[:1] * 0, np.array([50]), np.array([9.0])))
        stores.close()
        restore(tmp_path / "backup", tmp_path / "again")
        assert (tmp_path / "again" / "platform" / "registry.sqlite").read_bytes() == b"registry"
        again = open_duckdb_stores(tmp_path / "again")
        assert read(again.store("acme"))["value"] == [1.0] * 10
        assert read(again.store("beta"))["value"] == [2.0] * 10
        again.close()

    @pytest.mark.parametrize("damage", ["changed", "missing", "no manifest"])
    def test_a_damaged_backup_is_not_restored(self, stores: TenantStores, tmp_path: Path, damage: str) -> None:
        backup = tmp_path / "backup"
        back_up(stores.opened(), backup, 1)
        stores.close()
        file = backup / "acme" / "acme.duckdb"
        if damage == "changed":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        elif damage == "missing":
            file.unlink()
        else:
            (backup / "manifest.json").unlink()
        with pytest.raises(InputError, match="backup"):
            restore(backup, tmp_path / "again")
        assert not (tmp_path / "again").exists()

    def test_nothing_is_written_over(self, stores: TenantStores, tmp_path: Path) -> None:
        back_up(stores.opened(), tmp_path / "backup", 1)
        with pytest.raises(InputError, match="already"):
            back_up(stores.opened(), tmp_path / "backup", 2)
        stores.close()
        with pytest.raises(InputError, match="not empty"):
            restore(tmp_path / "backup", tmp_path / "data")

    def test_a_failed_backup_leaves_nothing(self, stores: TenantStores, tmp_path: Path) -> None:
        def fails(target: Path) -> None:
            raise StorageError("registry is away")

        with pytest.raises(StorageError, match="away"):
            back_up(stores.opened(), tmp_path / "backup", 1, {"registry.sqlite": fails})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
        stores.close()


class TestUpkeep:
    def test_rounds_until_the_end_and_past_failures(self) -> None:
        done = threading.Event()
        failures: list[tuple[str, str]] = []

        class Kept:
            def __init__(self, tenant: str) -> None:
                self.tenant = tenant
                self.rounds = 0

            def maintain(self) -> None:
                self.rounds += 1
                if self.tenant == "acme":
                    raise StorageError("disk full")
                if self.rounds == 3:
                    done.set()

            def close(self) -> None:
                pass

        kept: dict[str, Kept] = {}
        stores = TenantStores(lambda tenant: kept.setdefault(tenant, Kept(tenant)))
        stores.store("acme")
        stores.store("beta")

        async def run() -> None:
            failed = lambda tenant, error: failures.append((tenant, str(error)))  # noqa: E731
            async with upkeep(stores, every_s=0.001, failed=failed):
                await asyncio.to_thread(done.wait)

        asyncio.run(run())
        rounds = kept["beta"].rounds
        assert rounds >= 3
        assert failures == [("acme", "disk full")] * rounds
