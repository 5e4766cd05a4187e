"""The promises of `storage.base.Store`, asked of every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_engines import ENGINES, EngineHouse

from flexmeter.errors import InputError, StorageError
from flexmeter.messages.quantities import Quality
from flexmeter.messages.rows import Rows, SeriesKey
from flexmeter.storage import (
    Resolution,
    Retention,
    Selection,
    Span,
    TenantStore,
    estimate_source,
)

START_MS = 1_780_272_000_000  # 2026-06-01T00:00Z
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
EVER = Span(0, 4_000_000_000_000)
NOW_MS = START_MS + 400 * DAY_MS

SLOW = {"clickhouse"}
ENGINE_PARAMS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(ENGINES)]

OpenStore = Callable[..., TenantStore]


@pytest.fixture(scope="module", params=ENGINE_PARAMS)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Return a place where engines of one kind keep their databases."""
    with ENGINES[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def database(house: EngineHouse) -> str:
    return house.new_database()


@pytest.fixture
def open_store(house: EngineHouse, database: str) -> Iterator[OpenStore]:
    opened: list[TenantStore] = []

    def opener(retention: Retention | None = None, clock_ms: int = NOW_MS) -> TenantStore:
        store = TenantStore("acme", house.open(database), clock=lambda: clock_ms, retention=retention)
        opened.append(store)
        return store

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> TenantStore:
    return open_store()


def key(meter: str = "m1", source: str = "c1", quantity: str = "voltage", phase: str = "a"):
    return SeriesKey("acme", source, meter, quantity, phase)


def rows(series, minutes, values, *, sigma=np.nan, quality=0) -> Rows:
    time_ms = START_MS + np.asarray(minutes, float) * MINUTE_MS
    n = time_ms.size
    return Rows(
        series=np.broadcast_to(np.asarray(series, np.int32), n).copy(),
        time_ms=time_ms.astype(np.int64),
        value=np.broadcast_to(np.asarray(values, float), n).copy(),
        sigma=np.broadcast_to(np.asarray(sigma, np.float32), n).copy(),
        quality=np.broadcast_to(np.asarray(quality, np.uint8), n).copy(),
    )


def read(store: TenantStore, chosen: Selection | None = None, span: Span = EVER, **how) -> pa.Table:
    return pa.Table.from_batches(store.readings(chosen or Selection(), span, **how))


def values(store: TenantStore, *args, **how) -> list[float]:
    return read(store, *args, **how)["value"].to_pylist()


class TestSeries:
    def test_a_key_keeps_its_number(self, open_store: OpenStore) -> None:
        store = open_store()
        first = store.series_ids([key("m1"), key("m2"), key("m1")])
        assert first.dtype == np.int32
        assert first[0] == first[2] != first[1]
        store.close()
        again = open_store().series_ids([key("m3"), key("m2"), key("m1")])
        assert again.tolist()[1:] == [first[1], first[0]]
        assert again[0] not in first

    def test_every_part_of_the_name_tells_series_apart(self, store: TenantStore) -> None:
        keys = [
            key(),
            key(meter="m2"),
            key(source="c2"),
            key(quantity="active_power"),
            key(phase="b"),
            key(phase=""),
        ]
        assert len(set(store.series_ids(keys).tolist())) == len(keys)

    def test_a_key_of_another_tenant_is_refused(self, store: TenantStore) -> None:
        with pytest.raises(StorageError, match="rival"):
            store.series_ids([SeriesKey("rival", "c1", "m1", "voltage", "a")])
        assert store.series(Selection()).num_rows == 0

    def test_selection_by_each_part(self, store: TenantStore) -> None:
        store.series_ids(
            [
                key(source=s, meter=m, quantity=q)
                for s in ("c1", "c2")
                for m in ("m1", "m2")
                for q in ("voltage", "current")
            ]
        )
        assert store.series(Selection()).num_rows == 8
        assert store.series(Selection(sources=("c1",))).num_rows == 4
        assert store.series(Selection(meters=("m1", "m2"), quantities=("current",))).num_rows == 4
        assert store.series(Selection(sources=("c2",), meters=("m1",))).num_rows == 2
        assert store.series(Selection(phases=("b",))).num_rows == 0
        found = store.series(Selection(sources=("c2",), meters=("m1",), quantities=("voltage",)))
        assert found.select(["source", "meter", "quantity", "phase"]).to_pylist() == [
            {"source": "c2", "meter": "m1", "quantity": "voltage", "phase": "a"}
        ]

    def test_odd_names_are_names(self, store: TenantStore) -> None:
        odd = ["m'; drop table series; --", 'q"uote', "Zähler,1 =x\\", "a b"]
        series = store.series_ids([key(name) for name in odd])
        store.write(rows(series, [0, 0, 0, 0], [1.0, 2.0, 3.0, 4.0]))
        assert values(store, Selection(meters=(odd[2],))) == [3.0]
        assert read(store)["meter"].to_pylist() == odd


class TestWriting:
    def test_what_is_written_is_read(self, store: TenantStore) -> None:
        series = store.series_ids([key("m1"), key("m2")])
        result = store.write(rows(series[[0, 1, 0, 1]], [0, 0, 1, 1], [230.4, 231.25, 229.9, 0.1 + 0.2], quality=1))
        assert (result.stored, result.duplicate, result.conflict) == (4, 0, 0)
        assert result.new is None
        found = read(store)
        assert found["value"].to_pylist() == [230.4, 231.25, 229.9, 0.1 + 0.2]
        assert found["meter"].to_pylist() == ["m1", "m2", "m1", "m2"]
        assert found["time_ms"].to_pylist() == [START_MS] * 2 + [START_MS + MINUTE_MS] * 2
        assert found["quality"].to_pylist() == [1] * 4
        assert found["sigma"].to_pylist() == [None] * 4

    def test_numbers_keep_every_bit(self, store: TenantStore) -> None:
        exact = [np.float64(np.float32(230.4)), 1e15 + 1, -0.0, 5e-324, 1.7e308, 1 / 3]
        series = store.series_ids([key()])
        for minute, value in enumerate(exact):  # one by one: each may take its own way in
            store.write(rows(series, [minute], [value], sigma=1.152))
        assert values(store) == exact
        assert read(store)["sigma"].to_pylist() == [np.float32(1.152)] * len(exact)

    def test_a_second_delivery_is_a_duplicate(self, store: TenantStore) -> None:
        series = store.series_ids([key("m1"), key("m2")])
        batch = rows(series, [0, 0], [230.0, 231.0])
        store.write(batch)
        again = store.write(batch)
        assert (again.stored, again.duplicate, again.conflict) == (0, 2, 0)
        assert values(store) == [230.0, 231.0]

    def test_partly_new_batch_tells_which_rows_are_new(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [0, 2], [1.0, 3.0]))
        result = store.write(rows(series, [0, 1, 2, 3], [1.0, 2.0, 99.0, 4.0]))
        assert (result.stored, result.duplicate, result.conflict) == (2, 1, 1)
        assert result.new is not None
        assert result.new.tolist() == [False, True, False, True]
        assert values(store) == [1.0, 2.0, 3.0, 4.0]

    def test_first_value_wins_and_the_conflict_is_recorded(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [0], [230.0]))
        result = store.write(rows(series, [0], [111.0]))
        assert (result.stored, result.duplicate, result.conflict) == (0, 0, 1)
        assert values(store) == [230.0]
        found = store.conflicts(Selection(), EVER).to_pylist()
        assert [(c["stored_value"], c["refused_value"]) for c in found] == [(230.0, 111.0)]
        assert (found[0]["meter"], found[0]["received_ms"]) == ("m1", NOW_MS)

    def test_repeats_within_a_batch(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        result = store.write(rows(series, [0, 0, 1, 0], [1.0, 1.0, 5.0, 2.0]))
        assert (result.stored, result.duplicate, result.conflict) == (2, 1, 1)
        assert result.new is not None
        assert result.new.tolist() == [True, False, True, False]
        assert values(store) == [1.0, 5.0]

    def test_late_rows_find_their_place(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [5], [5.0]))
        assert store.write(rows(series, [1, 3], [1.0, 3.0])).stored == 2
        assert values(store) == [1.0, 3.0, 5.0]
        assert store.latest(Selection())["value"].to_pylist() == [5.0]

    def test_duplicates_are_known_after_reopening(self, open_store: OpenStore) -> None:
        store = open_store()
        series = store.series_ids([key("m1"), key("m2")])
        store.write(rows(series[[0, 1, 0]], [0, 0, 1], [1.0, 2.0, 3.0]))
        store.close()
        store = open_store()
        result = store.write(rows(series[[0, 1, 0, 1]], [0, 0, 1, 1], [1.0, 9.0, 3.0, 4.0]))
        assert (result.stored, result.duplicate, result.conflict) == (1, 2, 1)
        assert store.latest(Selection())["value"].to_pylist() == [3.0, 4.0]

    def test_nothing_is_stored_of_a_bad_batch(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        for bad in (
            rows([series[0], 77], [0, 0], [1.0, 2.0]),
            rows([series[0], -1], [0, 0], [1.0, 2.0]),
            rows(series, [0, 1], [1.0, np.nan]),
            rows(series, [0, 1], [1.0, np.inf]),
        ):
            with pytest.raises(StorageError):
                store.write(bad)
        assert values(store) == []

    def test_no_rows(self, store: TenantStore) -> None:
        result = store.write(Rows.concatenate([]))
        assert (result.stored, result.duplicate, result.conflict) == (0, 0, 0)

    def test_a_closed_store_says_so(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.close()
        with pytest.raises(StorageError, match="closed"):
            store.write(rows(series, [0], [1.0]))
        store.close()

    @settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        batches=st.lists(
            st.tuples(
                st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 2)), max_size=6),
                st.booleans(),
            ),
            max_size=5,
        )
    )
    def test_any_order_of_deliveries(self, house: EngineHouse, batches) -> None:
        """Differential: a dictionary that keeps first values."""
        store = TenantStore("acme", house.open(house.new_database()), clock=lambda: NOW_MS)
        series = store.series_ids([key(f"m{n}") for n in range(3)])
        first: dict[tuple[int, int], int] = {}
        conflicts = 0
        for batch, upkeep in batches:
            if upkeep:
                store.maintain()
            fates = []
            for which, minute, value in batch:
                new = (minute, which) not in first
                same = first.setdefault((minute, which), value) == value
                fates.append("stored" if new else "duplicate" if same else "conflict")
            columns = np.array(batch, int).reshape(-1, 3).T
            result = store.write(rows(series[columns[0]], columns[1], columns[2]))
            counted = (result.stored, result.duplicate, result.conflict)
            assert counted == tuple(map(fates.count, ("stored", "duplicate", "conflict")))
            if result.new is not None:
                assert result.new.tolist() == [fate == "stored" for fate in fates]
            conflicts += result.conflict
        assert values(store) == [first[where] for where in sorted(first)]
        assert store.conflicts(Selection(), EVER).num_rows == conflicts
        store.close()


class TestCorrections:
    def test_the_correction_is_in_force_and_the_first_value_kept(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [0, 1], [230.0, 231.0]))
        assert store.correct(rows(series, [0], [229.0]), "meter exchanged").stored == 1
        assert store.correct(rows(series, [0], [228.5]), "typing error").stored == 1
        found = read(store)
        assert found["value"].to_pylist() == [228.5, 231.0]
        assert found["quality"].to_pylist() == [Quality.CORRECTED, 0]
        old = store.versions(Selection(), EVER).to_pylist()
        assert [(v["version"], v["value"], v["reason"]) for v in old] == [
            (1, 230.0, "meter exchanged"),
            (2, 229.0, "typing error"),
        ]
        assert {v["replaced_ms"] for v in old} == {NOW_MS}

    def test_a_late_second_delivery_does_not_undo_it(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [0], [230.0]))
        store.correct(rows(series, [0], [229.0]), "why")
        result = store.write(rows(series, [0], [230.0]))
        assert (result.stored, result.duplicate, result.conflict) == (0, 1, 0)
        assert store.write(rows(series, [0], [7.0])).conflict == 1
        assert values(store) == [229.0]

    def test_a_correction_can_go_back(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [0], [230.0]))
        store.correct(rows(series, [0], [229.0]), "a mistake")
        assert store.correct(rows(series, [0], [230.0]), "it was right").stored == 1
        assert values(store) == [230.0]
        assert store.versions(Selection(), EVER)["version"].to_pylist() == [1, 2]

    def test_the_same_correction_twice_is_a_duplicate(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [0], [230.0]))
        store.correct(rows(series, [0], [229.0]), "why")
        assert store.correct(rows(series, [0], [229.0]), "why").duplicate == 1
        assert store.versions(Selection(), EVER).num_rows == 1

    def test_a_missing_reading_can_be_put_in(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        assert store.correct(rows(series, [3], [4.0]), "read by hand").stored == 1
        assert values(store) == [4.0]

    def test_rows_flagged_as_corrected_take_over(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        store.write(rows(series, [0, 1], [1.0, 2.0]))
        result = store.write(rows(series, [0, 1, 2], [5.0, 6.0, 7.0], quality=[Quality.CORRECTED, 0, 0]))
        assert (result.stored, result.duplicate, result.conflict) == (2, 0, 1)
        assert result.new is not None
        assert result.new.tolist() == [True, False, True]
        assert values(store) == [5.0, 2.0, 7.0]

    def test_latest_follows_a_correction(self, open_store: OpenStore) -> None:
        store = open_store()
        series = store.series_ids([key()])
        store.write(rows(series, [0, 1], [1.0, 2.0]))
        store.correct(rows(series, [1], [9.0]), "why")
        assert store.latest(Selection())["value"].to_pylist() == [9.0]
        store.close()
        assert open_store().latest(Selection())["value"].to_pylist() == [9.0]


class TestEstimates:
    def test_readings_and_estimates_do_not_mix(self, store: TenantStore) -> None:
        lv = SeriesKey("acme", estimate_source("lv", "g1"), "bus1", "voltage", "a")
        series = store.series_ids([key(), lv])
        store.write(rows(series[:1], [0], [230.0]))
        store.write_estimates(rows(series[1:], [0], [229.7], sigma=0.25))
        assert values(store) == [230.0]
        found = read(store, Selection(sources=("lv/g1",)), kind="estimates").to_pylist()
        assert [(e["source"], e["meter"], e["value"], e["sigma"]) for e in found] == [("lv/g1", "bus1", 229.7, 0.25)]
        assert store.latest(Selection(), "estimates")["value"].to_pylist() == [229.7]

    def test_a_new_estimate_replaces_the_old(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        old, new = rows(series, [0], [229.7]), rows(series, [0], [229.9])
        assert store.write_estimates(old).stored == 1
        assert store.write_estimates(new).stored == 1
        assert store.write_estimates(new).duplicate == 1
        assert store.write_estimates(old).duplicate == 1  # a late second delivery
        assert values(store, kind="estimates") == [229.9]
        assert store.versions(Selection(), EVER, "estimates")["value"].to_pylist() == [229.7]


class TestQuestions:
    @pytest.fixture
    def filled(self, store: TenantStore) -> TenantStore:
        """Three meters at two concentrators, one value per minute for three hours."""
        keys = [key("m1", "c1"), key("m2", "c1"), key("m3", "c2")]
        series = store.series_ids(keys)
        for first in range(0, 180, 60):
            minutes = np.repeat(np.arange(first, first + 60), 3)
            which = np.tile(np.arange(3), 60)
            store.write(rows(series[which], minutes, 100.0 * which + minutes))
        return store

    def test_a_span_is_half_open(self, filled: TenantStore) -> None:
        span = Span(START_MS + MINUTE_MS, START_MS + 3 * MINUTE_MS)
        assert values(filled, Selection(meters=("m1",)), span) == [1.0, 2.0]
        assert values(filled, Selection(meters=("m1",)), Span(START_MS, START_MS)) == []
        with pytest.raises(InputError, match="before"):
            Span(START_MS, START_MS - 1)

    def test_order_is_time_then_series_across_pieces(
        self, filled: TenantStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flexmeter.storage.store.SLICE_ROWS", 30)
        pieces = list(filled.readings(Selection(), EVER))
        assert len(pieces) > 10
        found = pa.Table.from_batches(pieces)
        order = list(zip(found["time_ms"].to_pylist(), found["meter"].to_pylist(), strict=True))
        assert order == sorted(order)
        assert len(order) == 540

    def test_a_value_far_in_the_future_costs_no_time(
        self, filled: TenantStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flexmeter.storage.store.SLICE_ROWS", 1)  # pieces of a minute
        series = filled.series_ids([key("m1", "c1")])
        filled.write(rows(series, [70 * 365 * 1440], [7.0]))
        span = Span(START_MS + 178 * MINUTE_MS, EVER.end_ms)
        pieces = list(filled.readings(Selection(), span))
        assert sum(piece.num_rows for piece in pieces) == 7
        assert len(pieces) < 10

    def test_series_that_come_during_an_answer_are_not_in_it(
        self, filled: TenantStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flexmeter.storage.store.SLICE_ROWS", 30)
        answer = filled.readings(Selection(), EVER)
        count = next(answer).num_rows + next(answer).num_rows
        late = filled.series_ids([key("m9", "c9")])
        filled.write(rows(late, [170], [1.0]))
        assert count + sum(piece.num_rows for piece in answer) == 540

    def test_an_empty_answer_has_its_columns(self, filled: TenantStore) -> None:
        found = read(filled, Selection(meters=("nobody",)))
        assert found.num_rows == 0
        assert found.column_names == [
            *("source", "meter", "quantity", "phase"),
            *("time_ms", "value", "sigma", "quality"),
        ]

    def test_latest_of_an_area(self, filled: TenantStore) -> None:
        found = filled.latest(Selection(sources=("c1",))).to_pylist()
        assert [(r["meter"], r["value"]) for r in found] == [("m1", 179.0), ("m2", 279.0)]

    @pytest.mark.parametrize("maintained", [False, True])
    @pytest.mark.parametrize("step", list(Resolution))
    def test_buckets_of_a_series(self, filled: TenantStore, step: Resolution, maintained: bool) -> None:
        if maintained:
            filled.maintain()
        found = filled.aggregate(Selection(meters=("m2",)), Span(START_MS, START_MS + 3 * HOUR_MS), step)
        every = step // MINUTE_MS
        expected = [np.arange(first, min(first + every, 180)) + 100.0 for first in range(0, 180, every)]
        assert found["time_ms"].to_pylist() == [START_MS + n * step for n in range(len(expected))]
        for name, of in (("count", len), ("min", min), ("max", max), ("mean", np.mean)):
            assert found[name].to_pylist() == pytest.approx([of(e) for e in expected], rel=1e-12)
        assert found["last"].to_pylist() == [e[-1] for e in expected]

    def test_a_span_is_widened_to_whole_buckets(self, filled: TenantStore) -> None:
        span = Span(START_MS + 30 * MINUTE_MS, START_MS + 61 * MINUTE_MS)
        found = filled.aggregate(Selection(meters=("m1",)), span, Resolution.HOUR)
        assert found["time_ms"].to_pylist() == [START_MS, START_MS + HOUR_MS]
        assert found["count"].to_pylist() == [60, 60]

    def test_buckets_of_an_area(self, filled: TenantStore) -> None:
        span = Span(START_MS, START_MS + 2 * HOUR_MS)
        found = filled.aggregate_area(Selection(sources=("c1",)), span, Resolution.HOUR)
        assert found.to_pylist() == [
            {
                "quantity": "voltage",
                "phase": "a",
                "time_ms": START_MS + hour * HOUR_MS,
                "series": 2,
                "count": 120,
                "mean": pytest.approx(79.5 + 60 * hour),
                "min": 60.0 * hour,
                "max": 159.0 + 60 * hour,
            }
            for hour in range(2)
        ]

    def test_suspect_values_are_left_out_of_buckets(self, store: TenantStore) -> None:
        series = store.series_ids([key()])
        flags = [0, Quality.QUESTIONABLE, Quality.ESTIMATED]
        store.write(rows(series, [0, 1, 2], [1.0, 1000.0, 3.0], quality=flags))
        found = store.aggregate(Selection(), Span(START_MS, START_MS + 1), Resolution.HOUR)
        assert found["count"].to_pylist() == [2]
        assert found["max"].to_pylist() == [3.0]

    def test_gaps_quality_and_read_success(self, store: TenantStore) -> None:
        series = store.series_ids([key("m1"), key("m2")])
        store.write(rows(series[0], [0, 1, 4, 5], [1.0, 2.0, 5.0, 6.0]))
        store.write(rows(series[1], np.arange(6), 1.0, quality=[0, 0, 2, 0, 0, 0]))
        store.write(rows(series[1], [3], [9.0]))  # a conflict
        span = Span(START_MS, START_MS + 6 * MINUTE_MS)
        runs = store.gaps(Selection(), span, MINUTE_MS).to_pylist()
        assert [(r["meter"], r["start_ms"], r["end_ms"], r["missing"]) for r in runs] == [
            ("m1", START_MS + 2 * MINUTE_MS, START_MS + 4 * MINUTE_MS, 2)
        ]
        found = store.quality(Selection(), span, MINUTE_MS).to_pylist()
        names = ("meter", "expected", "received", "missing", "suspect", "conflicts")
        assert [tuple(r[name] for name in names) for r in found] == [
            ("m1", 6, 4, 2, 0, 0),
            ("m2", 6, 6, 0, 1, 1),
        ]
        rate = store.read_success(Selection(), span, MINUTE_MS)
        assert rate["received"].to_pylist() == [2, 2, 1, 1, 2, 2]
        assert rate["rate"].to_pylist() == [1.0, 1.0, 0.5, 0.5, 1.0, 1.0]
        assert rate["time_ms"].to_pylist()[2] == START_MS + 2 * MINUTE_MS

    def test_reports_of_nothing(self, store: TenantStore) -> None:
        store.series_ids([key()])
        span = Span(START_MS, START_MS + 3 * MINUTE_MS)
        assert store.gaps(Selection(), span, MINUTE_MS)["missing"].to_pylist() == [3]
        nobody = Selection(meters=("nobody",))
        assert store.gaps(nobody, span, MINUTE_MS).num_rows == 0
        assert store.read_success(nobody, span, MINUTE_MS)["expected"].to_pylist() == [0] * 3
        with pytest.raises(InputError, match="interval"):
            store.gaps(Selection(), span, 0)
        with pytest.raises(InputError, match="at most"):
            store.gaps(Selection(), Span(0, 4_000_000_000_000), 1)


class TestRollUps:
    def both(self, store: TenantStore, step: Resolution) -> tuple[list, list]:
        """Return buckets as answered, and computed from all rows as they are."""
        span = Span(START_MS, START_MS + 4 * DAY_MS)
        answered = store.aggregate(Selection(), span, step)
        found = read(store, span=span)
        expected: dict[tuple[int, str], list[float]] = {}
        for time_ms, meter, value in zip(
            *(found[name].to_pylist() for name in ("time_ms", "meter", "value")), strict=True
        ):
            expected.setdefault((time_ms // step * step, meter), []).append(value)
        names = ("time_ms", "meter", "count", "min", "max", "last")
        return sorted(zip(*(answered[n].to_pylist() for n in names), strict=True)), [
            (*where, len(v), min(v), max(v), v[-1]) for where, v in sorted(expected.items())
        ]

    @pytest.mark.parametrize("step", list(Resolution))
    def test_late_and_corrected_rows_reach_the_roll_ups(self, open_store: OpenStore, step: Resolution) -> None:
        store = open_store()
        series = store.series_ids([key("m1"), key("m2")])
        minutes = np.arange(0, 3 * 24 * 60, 10)
        store.write(rows(series[0], minutes, np.sin(minutes)))
        store.maintain()
        assert self.both(store, step)[0] == self.both(store, step)[1]
        store.write(rows(series[1], minutes[::7] + 3, 2.0 + np.cos(minutes[::7])))  # late
        store.correct(rows(series[0], minutes[30:35], 50.0), "why")
        answered, expected = self.both(store, step)
        assert answered == expected
        store.close()
        store = open_store()  # before upkeep: the marks are durable
        assert self.both(store, step)[0] == expected
        store.maintain()
        assert self.both(store, step)[0] == expected
        store.maintain()
        assert self.both(store, step)[0] == expected

    def test_retention_keeps_the_roll_ups(self, open_store: OpenStore) -> None:
        store = open_store(Retention(rows_days=2, quarter_days=3))
        series = store.series_ids([key()])
        minutes = np.arange(0, 6 * 24 * 60, 5)
        store.write(rows(series, minutes, minutes % 97))
        spans = Span(START_MS, START_MS + 6 * DAY_MS)
        before = {
            step: store.aggregate(Selection(), spans, step).drop_columns(["meter", "source"]) for step in Resolution
        }
        store.maintain()
        first_kept = START_MS + 3 * DAY_MS  # newest value on the sixth day, two days back
        assert min(read(store)["time_ms"].to_pylist()) == first_kept
        for step in (Resolution.MINUTE, Resolution.HOUR, Resolution.DAY):
            after = store.aggregate(Selection(), spans, step).drop_columns(["meter", "source"])
            assert after.to_pydict() == before[step].to_pydict()
        kept = store.aggregate(Selection(), spans, Resolution.QUARTER)
        assert min(kept["time_ms"].to_pylist()) == START_MS + 2 * DAY_MS

    def test_late_rows_beyond_retention_do_not_harm_roll_ups(self, open_store: OpenStore) -> None:
        store = open_store(Retention(rows_days=1))
        series = store.series_ids([key()])
        minutes = np.arange(0, 4 * 24 * 60, 30)
        store.write(rows(series, minutes, 1.0))
        store.maintain()
        first_day = Span(START_MS, START_MS + DAY_MS)
        store.write(rows(series, [1], [500.0]))
        store.maintain()
        for step in Resolution:
            found = store.aggregate(Selection(), first_day, step)
            assert sum(found["count"].to_pylist()) == 48
        assert min(read(store)["time_ms"].to_pylist()) >= START_MS + 2 * DAY_MS

    def test_a_value_from_the_future_deletes_nothing(self, open_store: OpenStore) -> None:
        store = open_store(Retention(rows_days=30), clock_ms=START_MS + 2 * DAY_MS)
        series = store.series_ids([key()])
        store.write(rows(series, [0, 50 * 365 * 24 * 60], [1.0, 2.0]))
        store.maintain()
        assert values(store) == [1.0, 2.0]


class TestCopies:
    def test_parquet_export(self, store: TenantStore, tmp_path: Path) -> None:
        series = store.series_ids([key("m1"), key("m2")])
        store.write(rows(series[[0, 1, 0]], [0, 0, 1], [1.0, 2.0, 3.0]))
        target = tmp_path / "export.parquet"
        assert store.export(Span(START_MS, START_MS + MINUTE_MS), target) == 2
        found = pq.read_table(target)
        assert found["meter"].to_pylist() == ["m1", "m2"]
        assert found["value"].to_pylist() == [1.0, 2.0]

    def test_backup_while_writing(self, store: TenantStore, house: EngineHouse, database: str, tmp_path: Path) -> None:
        """Every copy is a whole number of batches, at least those acknowledged before."""
        if not house.can_backup:
            pytest.skip("this database is backed up by its own tools")
        series = store.series_ids([key(f"m{n}") for n in range(5)])
        stop, written = threading.Event(), [0]

        def keep_writing() -> None:
            while not stop.is_set():
                store.write(rows(series, [written[0]] * 5, np.arange(5.0)))
                written[0] += 1

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            while written[0] < 3:
                stop.wait(0.001)
            before = written[0]
            store.backup(tmp_path / "copy")
        finally:
            stop.set()
            writer.join()
        copy = TenantStore("acme", house.open_backup(tmp_path / "copy", database))
        count = read(copy).num_rows
        assert count % 5 == 0
        assert before * 5 <= count <= written[0] * 5
        assert copy.series_ids([key("m3")]).tolist() == [series[3]]
        copy.close()

    def test_backup_into_a_used_folder_is_refused(self, store: TenantStore, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("mine")
        with pytest.raises(StorageError, match="not empty"):
            store.backup(tmp_path)


class TestConcurrency:
    def test_questions_while_writing_see_whole_batches(self, store: TenantStore) -> None:
        series = store.series_ids([key(f"m{n}") for n in range(10)])
        failures: list[str] = []
        stop = threading.Event()

        def keep_asking() -> None:
            while not stop.is_set():
                count = sum(batch.num_rows for batch in store.readings(Selection(), EVER))
                if count % 10:
                    failures.append(f"{count} rows")
                store.latest(Selection())
                store.aggregate_area(Selection(), Span(START_MS, START_MS + HOUR_MS), Resolution.QUARTER)

        askers = [threading.Thread(target=keep_asking) for _ in range(2)]
        for asker in askers:
            asker.start()
        for minute in range(40):
            store.write(rows(series, [minute] * 10, np.arange(10.0)))
            if minute % 13 == 0:
                store.maintain()
        stop.set()
        for asker in askers:
            asker.join()
        assert failures == []
        assert read(store).num_rows == 400

    def test_upkeep_beside_writing_and_correcting(self, store: TenantStore) -> None:
        series = store.series_ids([key(f"m{n}") for n in range(4)])
        stop = threading.Event()
        failures: list[StorageError] = []

        def keep_up() -> None:
            while not stop.is_set():
                try:
                    store.maintain()
                except StorageError as error:
                    failures.append(error)
                    return

        keeper = threading.Thread(target=keep_up)
        keeper.start()
        try:
            for step in range(30):  # 20 minutes a step: hours are over while rows still come
                store.write(rows(series, [20 * step] * 4, 10.0 * step + np.arange(4)))
                if step % 3 == 2:
                    store.correct(rows(series[:1], [20 * (step - 2)], [-1.0 * step]), "checked")
        finally:
            stop.set()
            keeper.join()
        assert failures == []
        expected = {(20 * step, n): 10.0 * step + n for step in range(30) for n in range(4)}
        expected |= {(20 * (step - 2), 0): -1.0 * step for step in range(2, 30, 3)}
        assert values(store) == [expected[where] for where in sorted(expected)]
        assert store.versions(Selection(), EVER).num_rows == 10
        span = Span(START_MS, START_MS + 10 * HOUR_MS)
        for _ in range(2):
            hours = store.aggregate_area(Selection(), span, Resolution.HOUR)
            assert hours["count"].to_pylist() == [12] * 10
            means = [sum(v for (m, _), v in expected.items() if m // 60 == hour) / 12 for hour in range(10)]
            assert hours["mean"].to_pylist() == pytest.approx(means, rel=1e-12)
            store.maintain()
