"""Storage of one day of 10,000 meters: ingest rate, bytes per value, query times while ingesting.

Prints one JSON line per case. The load and the queries share the machine.

    python benchmarks/storage.py [--meters 10000] [--minutes 1440] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flexmeter.machine import machine
from flexmeter.messages.rows import Rows, SeriesKey
from flexmeter.storage import Resolution, Selection, Span, TenantStore
from flexmeter.storage.duckdb import DuckdbEngine, DuckdbOptions

START_MS = 1_780_272_000_000
MINUTE_MS = 60_000
DAY = Span(START_MS, START_MS + 1440 * MINUTE_MS)
METERS_PER_CONCENTRATOR = 100
QUERY_ROUNDS = 40


class Load:
    """Readings of households as meters send them: 0.1 V, 1 W, 1 var, as float32 on the wire."""

    def __init__(self, store: TenantStore, meters: int, seed: int = 1) -> None:
        self._store = store
        self._rng = np.random.default_rng(seed)
        self._meters = meters
        keys = [
            SeriesKey("bench", f"c{first // METERS_PER_CONCENTRATOR}", f"m{n}", quantity, "a")
            for first in range(0, meters, METERS_PER_CONCENTRATOR)
            for quantity in ("voltage", "active_power", "reactive_power")
            for n in range(first, first + METERS_PER_CONCENTRATOR)
        ]
        numbers = store.series_ids(keys).reshape(-1, 3, METERS_PER_CONCENTRATOR)
        self._series = numbers.transpose(1, 0, 2).reshape(3, meters)
        self._power = self._rng.gamma(1.0, 400.0, meters)

    def minute(self, minute: int, batches: int = 4) -> int:
        """Write one minute of all meters in batches of whole concentrators; return the rows."""
        rng, n = self._rng, self._meters
        moved = rng.random(n) < 0.1
        self._power[moved] = rng.gamma(1.0, 400.0, int(moved.sum()))
        power = np.round(self._power * (1 + 0.02 * rng.standard_normal(n)))
        values = np.stack([np.round(rng.normal(230.0, 3.0, n), 1), power, np.round(0.3 * power)])
        for part in np.array_split(np.arange(n), batches):
            self._write(minute, self._series[:, part].ravel(), values[:, part].ravel())
        return values.size

    def _write(self, minute: int, series: np.ndarray, values: np.ndarray) -> None:
        size = series.size
        self._store.write(
            Rows(
                series=series,
                time_ms=np.full(size, START_MS + minute * MINUTE_MS, np.int64),
                value=values.astype(np.float32).astype(np.float64),
                sigma=np.full(size, np.nan, np.float32),
                quality=np.zeros(size, np.uint8),
            )
        )


def say(case: str, **figures: object) -> None:
    print(
        json.dumps({"bench": "storage", "case": case, **figures, "machine": f"{machine()}, load on the same machine"}),
        flush=True,
    )


def ingest(load: Load, store: TenantStore, minutes: int) -> None:
    seconds, rows = [], 0
    for minute in range(minutes):
        begin = time.perf_counter()
        rows += load.minute(minute)
        seconds.append(time.perf_counter() - begin)
        if minute % 60 == 59:
            store.maintain()
    begin = time.perf_counter()
    store.maintain()
    say(
        "ingest",
        rows=rows,
        values_per_s=round(rows / sum(seconds)),
        minute_ms={"p50": _ms(seconds, 50), "p99": _ms(seconds, 99), "max": _ms(seconds, 100)},
        last_upkeep_s=round(time.perf_counter() - begin, 3),
    )


def questions(store: TenantStore, load: Load, minutes: int, rest_s: float | None) -> None:
    """Time questions; with `rest_s` a thread goes on writing minutes with that pause between."""
    meter, feeder = Selection(meters=("m4321",)), Selection(sources=("c43",))
    asked: dict[str, Callable[[], object]] = {
        "day of one meter": lambda: sum(batch.num_rows for batch in store.readings(meter, DAY)),
        "latest of a feeder": lambda: store.latest(feeder),
        "hourly mean of a feeder": lambda: store.aggregate_area(feeder, DAY, Resolution.HOUR),
        "minute mean of a feeder": lambda: store.aggregate_area(feeder, DAY, Resolution.MINUTE),
    }
    stop = threading.Event()
    written = [0]

    def keep_writing() -> None:
        minute = minutes
        while not stop.is_set():
            written[0] += load.minute(minute)
            minute += 1
            stop.wait(rest_s)

    writer = threading.Thread(target=keep_writing)
    if rest_s is not None:
        writer.start()
    begin = time.perf_counter()
    try:
        for name, ask in asked.items():
            seconds = []
            for _ in range(QUERY_ROUNDS):
                start = time.perf_counter()
                ask()
                seconds.append(time.perf_counter() - start)
            say(
                name,
                while_ingesting=rest_s is not None,
                ms={"p50": _ms(seconds, 50), "p90": _ms(seconds, 90), "p99": _ms(seconds, 99)},
            )
    finally:
        stop.set()
        if rest_s is not None:
            writer.join()
            say("ingest beside queries", values_per_s=round(written[0] / (time.perf_counter() - begin)))


def _ms(seconds: list[float], percentile: float) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=1440)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "bench.duckdb"

        def opened() -> TenantStore:
            return TenantStore("bench", DuckdbEngine.open(path, DuckdbOptions()))

        store = opened()
        ingest(Load(store, options.meters), store, options.minutes)
        store.close()
        rows = options.meters * 3 * options.minutes
        say("space", bytes_per_value=round(path.stat().st_size / rows, 3), megabytes=path.stat().st_size // 1_000_000)
        begin = time.perf_counter()
        store = opened()
        say("open", seconds=round(time.perf_counter() - begin, 3))
        load = Load(store, options.meters, seed=2)
        for rest_s in (None, 0.5, 0.0):
            questions(store, load, options.minutes if rest_s is None else options.minutes + 10_000, rest_s)
        store.close()


if __name__ == "__main__":
    main()
