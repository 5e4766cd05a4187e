"""Days that retention takes out of the database, kept as Parquet files and still answered.

    folder/readings-2026-06-01.0.parquet    rows of one UTC day in order of time, then series; a later
                                            number holds rows that came after the day was archived

The files name their series in full, so any tool can read them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexmeter.errors import StorageError
from flexmeter.storage.base import Kind
from flexmeter.storage.query import DAY_MS, Selection, Span

_NAMES = ("source", "meter", "quantity", "phase")
_NAME = re.compile(r"(readings|estimates)-(\d{4}-\d\d-\d\d)\.(\d+)\.parquet")


class Archive:
    """The archived days in one folder, of one tenant."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, kind: Kind, day_ms: int, batches: Iterator[pa.RecordBatch], *, late: bool = False) -> int:
        """Write rows of the day that starts at `day_ms`; return how many. On disk when it returns.

        `late` rows go beside those that are there; else what is there is from an attempt that did not
        come to its end, and is replaced.
        """
        head = next(batches)
        first = next(batches, None)
        if first is None:
            return 0
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{kind}-{datetime.fromtimestamp(day_ms / 1000, UTC):%Y-%m-%d}"
        number = 1 + max((number for _, number, _ in self._of_day(kind, day_ms)), default=-1) if late else 0
        target = self._folder / f"{name}.{number}.parquet"
        part = target.with_suffix(".part")
        try:
            count = _write(part, head.schema, first, batches)
            part.rename(target)
        except OSError as error:
            raise StorageError(f"archive: {target.name}: {error.strerror or error}") from error
        return count

    def read(self, kind: Kind, chosen: Selection, span: Span) -> Iterator[pa.RecordBatch]:
        """Yield the chosen rows of a span, a day at a time, in order of time, then name."""
        days = sorted({day_ms for day_ms, _, _ in self._files(kind)})
        for day_ms in days:
            if day_ms < span.end_ms and day_ms + DAY_MS > span.start_ms:
                yield from self._day(kind, day_ms, chosen, span)

    def _day(self, kind: Kind, day_ms: int, chosen: Selection, span: Span) -> Iterator[pa.RecordBatch]:
        condition = (pc.field("time_ms") >= span.start_ms) & (pc.field("time_ms") < span.end_ms)
        wanted = (chosen.sources, chosen.meters, chosen.quantities, chosen.phases)
        for part, some in zip(_NAMES, wanted, strict=True):
            if some:
                condition &= pc.field(part).isin(list(some))
        files = [path for _, _, path in sorted(self._of_day(kind, day_ms))]
        try:
            parts = [pq.read_table(path, filters=condition) for path in files]
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"archive: {files[0].name}: {error}") from error
        table = parts[0] if len(parts) == 1 else _joined(parts)
        yield from table.combine_chunks().to_batches()

    def _of_day(self, kind: Kind, day_ms: int) -> list[tuple[int, int, Path]]:
        return [found for found in self._files(kind) if found[0] == day_ms]

    def _files(self, kind: Kind) -> list[tuple[int, int, Path]]:
        """Return start of the day [ms UTC], number and path of every file of a kind."""
        found = []
        for path in self._folder.iterdir() if self._folder.exists() else ():
            name = _NAME.fullmatch(path.name)
            if name is not None and name[1] == kind:
                day = datetime.fromisoformat(f"{name[2]}T00:00:00+00:00")
                found.append((int(day.timestamp()) * 1000, int(name[3]), path))
        return found


def _joined(parts: list[pa.Table]) -> pa.Table:
    """Return the rows of several files in order, each key once: late rows may be there twice."""
    table = pa.concat_tables(parts).unify_dictionaries()
    keys = pa.table({name: table[name].cast(pa.string()) for name in _NAMES}).append_column("time_ms", table["time_ms"])
    order = pc.sort_indices(keys, [(name, "ascending") for name in ("time_ms", *_NAMES)])
    keys, table = keys.take(order), table.take(order)
    again = np.ones(max(table.num_rows - 1, 0), bool)
    for name in keys.column_names:
        column = keys[name].combine_chunks()
        again &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return table.filter(pa.array(np.concatenate([[True], ~again])[: table.num_rows]))


def _write(part: Path, schema: pa.Schema, first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> int:
    count = 0
    with part.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in (first, *rest):
                writer.write_batch(batch)
                count += batch.num_rows
        file.flush()
        os.fsync(file.fileno())
    return count
