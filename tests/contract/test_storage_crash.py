"""A store process that is killed at any moment has everything it acknowledged, once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flexmeter.storage import Selection, Span
from flexmeter.storage.duckdb import open_duckdb_stores

WRITER = """
import sys
from pathlib import Path
import numpy as np
from flexmeter.messages.rows import Rows, SeriesKey
from flexmeter.storage.duckdb import DuckdbOptions, open_duckdb_stores

store = open_duckdb_stores(Path(sys.argv[1]), options=DuckdbOptions(sort_rows=300)).store("acme")
first = int(sys.argv[2])
series = store.series_ids([SeriesKey("acme", "c1", f"m{n}", "voltage", "a") for n in range(50)])
for minute in range(first, first + 100_000):
    time_ms = np.full(50, minute * 60_000, np.int64)
    value = 1000.0 * minute + np.arange(50)
    store.write(Rows(series, time_ms, value, np.full(50, np.nan, np.float32), np.zeros(50, np.uint8)))
    print(minute, flush=True)
    if minute % 10 == 9:
        store.maintain()
"""


def write_until_killed(folder: Path, first: int, batches: int) -> int:
    """Return the last minute that was acknowledged before the kill."""
    command = [sys.executable, "-c", WRITER, str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(batches):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split("\n")
    whole = [int(line) for line in rest[:-1]]  # the last one may be cut off
    return max([acknowledged, *whole])


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_again_and_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    acknowledged = -1
    first = 0
    for _ in range(4):
        acknowledged = write_until_killed(tmp_path, first, int(rng.integers(5, 120)))
        store = open_duckdb_stores(tmp_path).store("acme")
        batches = list(store.readings(Selection(), Span(0, 10**14)))
        minutes = np.concatenate([batch["time_ms"].to_numpy() for batch in batches]) // 60_000
        values = np.concatenate([batch["value"].to_numpy() for batch in batches])
        stored, counts = np.unique(minutes, return_counts=True)
        assert np.array_equal(stored, np.arange(stored.size)), "a batch is missing"
        assert stored[-1] >= acknowledged
        assert (counts == 50).all(), "a batch is there in part or twice"
        assert np.array_equal(values, 1000.0 * minutes + np.tile(np.arange(50), stored.size))
        first = max(0, acknowledged - 3)  # what was not acknowledged for sure is sent again
        store.close()
