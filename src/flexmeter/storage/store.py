"""The store of one tenant: the rules of `base.Store` on any engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexmeter.errors import StorageError
from flexmeter.messages.quantities import Quality
from flexmeter.messages.rows import Rows, SeriesKey, WriteResult
from flexmeter.storage import answers, keys, reports
from flexmeter.storage.archive import Archive
from flexmeter.storage.base import KINDS, Engine, Kind
from flexmeter.storage.columns import Batch, Buckets, Conflicts
from flexmeter.storage.names import Labels, Names
from flexmeter.storage.newest import Newest
from flexmeter.storage.query import DAY_MS, HOUR_MS, MINUTE_MS, Resolution, Selection, Span
from flexmeter.storage.rollups import Retention, RollUps
from flexmeter.storage.writing import sort_out

SLICE_ROWS = 500_000
"""Rows aimed at per piece of a long answer, at one value per series and minute."""


def wall_clock_ms() -> int:
    """Return the time of now [ms UTC]."""
    return time.time_ns() // 1_000_000


class TenantStore:
    """`base.Store` over an engine; see there for what every method promises."""

    def __init__(
        self,
        tenant: str,
        engine: Engine,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        retention: Retention | None = None,
        archive: Archive | None = None,
    ) -> None:
        self.tenant = tenant
        self._engine = engine
        self._clock = clock
        self._retention = retention or Retention()
        self._archive = archive
        self._writing = threading.Lock()
        self._upkeep = threading.Lock()
        self._names = Names(engine.names())
        self._newest: dict[Kind, Newest] = {kind: Newest() for kind in KINDS}
        self._oldest_ms: dict[Kind, int | None] = dict.fromkeys(KINDS)
        self._rollups = {kind: RollUps(engine, kind, self._writing) for kind in KINDS}
        self._unsure = True
        self._closed = False
        with self._writing:
            self._look_up()

    def series_ids(self, keys: Sequence[SeriesKey]) -> NDArray[np.int32]:
        """Return the number of each key; new keys are registered durably first."""
        names = [(key.source, key.meter, key.quantity, key.phase) for key in keys]
        strangers = {key.tenant for key in keys} - {self.tenant}
        if strangers:
            raise StorageError(f"store of tenant {self.tenant} was given keys of {strangers}")
        with self._writing:
            self._look_up()
            missing = self._names.missing(names)
            if missing:
                self._engine.add_names(len(self._names), missing)
                for newest in self._newest.values():
                    newest.reserve(len(self._names) + len(missing))
                self._names.add(missing)
            return self._names.numbers(names)

    def write(self, rows: Rows) -> WriteResult:
        """Store readings; those flagged as corrected replace what is there."""
        corrected = (rows.quality & np.uint8(Quality.CORRECTED)) != 0
        if not corrected.any():
            return self._write("readings", rows, None)
        result = WriteResult(0, 0, 0, np.zeros(len(rows), bool))
        for some, reason in ((~corrected, None), (corrected, "flagged as corrected")):
            part = self._write("readings", keys.take(rows, some), reason)
            result = _joined(result, part, np.flatnonzero(some))
        return result

    def correct(self, rows: Rows, reason: str) -> WriteResult:
        """Put corrected readings in force; what they replace is kept as an older version."""
        flagged = Rows(
            series=rows.series,
            time_ms=rows.time_ms,
            value=rows.value,
            sigma=rows.sigma,
            quality=rows.quality | np.uint8(Quality.CORRECTED),
        )
        return self._write("readings", flagged, reason, look_back=False)

    def write_estimates(self, rows: Rows) -> WriteResult:
        """Store estimates; a different estimate of a key replaces the one before."""
        return self._write("estimates", rows, "estimated again")

    def series(self, chosen: Selection) -> pa.Table:
        """Return the chosen series: `series, source, meter, quantity, phase`."""
        series = self._names.chosen(chosen)
        return pa.table({"series": series, **self._names.labels(series).columns(series)})

    def readings(self, chosen: Selection, span: Span, kind: Kind = "readings") -> Iterator[pa.RecordBatch]:
        """Yield rows in order of time then series, in bounded memory."""
        kept_ms = self._rollups[kind].rows_from_ms
        if self._archive is None or kept_ms is None or kept_ms <= span.start_ms:
            yield from self._rows(kind, chosen, span)
            return
        # late rows before the limit are answered from the next upkeep on, which archives them
        rows = self._rows(kind, chosen, Span(kept_ms, max(kept_ms, span.end_ms)))
        yield next(rows)
        yield from self._archive.read(kind, chosen, Span(span.start_ms, min(kept_ms, span.end_ms)))
        yield from rows

    def latest(self, chosen: Selection, kind: Kind = "readings") -> pa.Table:
        """Return the newest value of every chosen series, from memory."""
        series = self._names.chosen(chosen)
        rows = self._newest[kind].rows(series)
        return pa.Table.from_batches([answers.row_batch(self._names.labels(series), rows)])

    def aggregate(self, chosen: Selection, span: Span, step: Resolution, kind: Kind = "readings") -> pa.Table:
        """Return per series and bucket `time_ms, count, mean, min, max, last`."""
        return answers.bucket_table(*self._buckets(chosen, span, step, kind))

    def aggregate_area(self, chosen: Selection, span: Span, step: Resolution, kind: Kind = "readings") -> pa.Table:
        """Return buckets per quantity and phase over all chosen series."""
        return answers.area_table(*self._buckets(chosen, span, step, kind))

    def versions(self, chosen: Selection, span: Span, kind: Kind = "readings") -> pa.Table:
        """Return what was replaced, in order of time, series and version."""
        series = self._names.chosen(chosen)
        return answers.version_table(self._names.labels(series), self._engine.versions(kind, series, span))

    def conflicts(self, chosen: Selection, span: Span) -> pa.Table:
        """Return refused second values."""
        series = self._names.chosen(chosen)
        return answers.conflict_table(self._names.labels(series), *self._engine.conflicts(series, span))

    def quality(self, chosen: Selection, span: Span, interval_ms: int) -> pa.Table:
        """Return per series `expected, received, missing, suspect, conflicts`."""
        found = self._presence(chosen, span, interval_ms)
        refused, _ = self._engine.conflicts(found.series, span)
        return answers.quality_table(self._names.labels(found.series), found, refused)

    def gaps(self, chosen: Selection, span: Span, interval_ms: int) -> pa.Table:
        """Return runs of missing intervals per series: `start_ms, end_ms, missing`."""
        found = self._presence(chosen, span, interval_ms)
        where, columns = reports.gaps(found, interval_ms)
        return pa.table({**self._names.labels(found.series).columns(where), **columns})

    def read_success(self, chosen: Selection, span: Span, interval_ms: int) -> pa.Table:
        """Return per interval `time_ms, expected, received, rate` over the chosen series."""
        return reports.read_success(self._presence(chosen, span, interval_ms))

    def maintain(self) -> None:
        """Bring roll-ups up to date and drop what retention no longer keeps."""
        with self._upkeep:
            for kind in KINDS:
                first_ms = self._oldest_ms[kind]
                latest_ms = self._newest[kind].latest_ms()
                if first_ms is None or latest_ms is None:
                    continue
                # neither a wrong clock nor a value from the future moves the limits
                now_ms = min(latest_ms, self._clock())
                self._rollups[kind].bring_up(first_ms, now_ms // HOUR_MS * HOUR_MS)
                self._rollups[kind].retain(self._retention, now_ms, partial(self._keep, kind))
                with self._writing:
                    self._oldest_ms[kind] = self._engine.oldest_ms(kind)
                self._engine.tidy(kind)

    def export(self, span: Span, target: Path, kind: Kind = "readings") -> int:
        """Write the span to one Parquet file; return the number of rows."""
        batches = self.readings(Selection(), span, kind)
        head = next(batches)
        with pq.ParquetWriter(target, head.schema, compression="zstd") as writer:
            count = 0
            for batch in batches:
                writer.write_batch(batch)
                count += batch.num_rows
        return count

    def backup(self, target: Path) -> None:
        """Write a consistent copy into an empty folder, while reading and writing go on."""
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise StorageError(f"backup: {target.name} is not empty")
        self._engine.backup(target)

    def size_bytes(self) -> int | None:
        """Return the space on disk, None if the database does not tell."""
        return self._engine.size_bytes()

    def close(self) -> None:
        """Release the database; later calls raise StorageError."""
        with self._upkeep, self._writing:
            if not self._closed:
                self._closed = True
                self._engine.close()

    def _rows(self, kind: Kind, chosen: Selection, span: Span) -> Iterator[pa.RecordBatch]:
        """Yield no rows, for the columns, then those of the database."""
        series = self._names.chosen(chosen)
        labels = self._names.labels(series)
        yield answers.row_batch(labels, Rows.concatenate([]))
        for rows in self._slices(kind, series, span):
            if len(rows):
                yield answers.row_batch(labels, rows)

    def _keep(self, kind: Kind, day: Span) -> None:
        """Archive a day that retention is about to delete."""
        if self._archive is not None:
            late = day.start_ms < (self._rollups[kind].rows_from_ms or 0)
            self._archive.add(kind, day.start_ms, self._rows(kind, Selection(), day), late=late)

    def _write(self, kind: Kind, rows: Rows, reason: str | None, *, look_back: bool = True) -> WriteResult:
        """Write rows; with a reason they replace what is there, without one the first value wins."""
        with self._writing:
            self._look_up()
            self._check(rows)
            parts = list(keys.once_each(rows))
            result = WriteResult(0, 0, 0, np.zeros(len(rows), bool))
            for places in parts:
                part = self._write_unique(kind, keys.take(rows, places), reason, look_back)
                result = _joined(result, part, places)
        mixed = 0 < result.stored < len(rows)
        return result if mixed else WriteResult(result.stored, result.duplicate, result.conflict)

    def _write_unique(self, kind: Kind, rows: Rows, reason: str | None, look_back: bool) -> WriteResult:
        newest = self._newest[kind]
        later = newest.later(rows)
        found = sort_out(self._engine, kind, rows, later, look_back=look_back)
        takes = found.new if reason is None else found.new | found.other
        taken = rows if takes.all() else keys.take(rows, takes)
        refused = np.zeros(len(rows), bool) if reason is not None else found.other
        conflicts = Conflicts(
            rows.series[refused],
            rows.time_ms[refused],
            found.stored_value[refused],
            rows.value[refused],
        )
        hours, mark = self._rollups[kind].stale_hours(taken)
        batch = Batch(taken, self._clock(), conflicts, hours, mark)
        if len(taken) or refused.any():
            self._unsure = True  # until the commit is known to have happened
            if reason is not None and found.other.any():
                self._engine.replace(kind, batch, reason)
            else:
                self._engine.insert(kind, batch)
            self._unsure = False
            self._remember(kind, taken)
            self._rollups[kind].marked(hours)
        mixed = 0 < len(taken) < len(rows)
        return WriteResult(len(taken), int(found.same.sum()), int(refused.sum()), takes if mixed else None)

    def _remember(self, kind: Kind, rows: Rows) -> None:
        """Take note of rows that are committed."""
        if len(rows):
            self._newest[kind].update(rows)
            first_ms = int(rows.time_ms.min())
            oldest_ms = self._oldest_ms[kind]
            self._oldest_ms[kind] = first_ms if oldest_ms is None else min(oldest_ms, first_ms)

    def _look_up(self) -> None:
        """Ask the database what it has, at the start and after a commit whose outcome is unknown."""
        if self._closed:
            raise StorageError(f"store of tenant {self.tenant} is closed")
        if self._unsure:
            self._names = Names(self._engine.names())
            for kind, newest in self._newest.items():
                newest.replace_all(self._engine.newest(kind), len(self._names))
                self._oldest_ms[kind] = self._engine.oldest_ms(kind)
            self._unsure = False

    def _check(self, rows: Rows) -> None:
        if len(rows) == 0:
            return
        if int(rows.series.min()) < 0 or int(rows.series.max()) >= len(self._names):
            raise StorageError(f"unknown series number among {len(self._names)} known")
        if not np.isfinite(rows.value).all():
            raise StorageError("value: not a finite number")

    def _buckets(self, chosen: Selection, span: Span, step: Resolution, kind: Kind) -> tuple[Labels, Buckets]:
        series = self._names.chosen(chosen)
        width = int(step)
        whole = Span(span.start_ms // width * width, -(-span.end_ms // width) * width)
        found = self._rollups[kind].buckets(self._filter(series), whole, step)
        known = found.series <= series.max(initial=-1)
        columns = (getattr(found, name)[known] for name in Buckets.__slots__)
        return self._names.labels(series), Buckets(*columns)

    def _presence(self, chosen: Selection, span: Span, interval_ms: int) -> reports.Presence:
        series = self._names.chosen(chosen)
        return reports.presence(self._slices("readings", series, span), series, span, interval_ms)

    def _slices(self, kind: Kind, series: NDArray[np.int32], span: Span) -> Iterator[Rows]:
        """Scan a span in pieces of time of bounded size, skipping times without rows."""
        first_ms = self._oldest_ms[kind]
        last_ms = self._newest[kind].latest_ms()
        if first_ms is None or last_ms is None or series.size == 0:
            return
        width = min(max(SLICE_ROWS // series.size, 1) * MINUTE_MS, 31 * DAY_MS)
        start_ms, end_ms = max(span.start_ms, first_ms), min(span.end_ms, last_ms + 1)
        while start_ms < end_ms:
            piece = Span(start_ms, min(start_ms + width, end_ms))
            rows = self._engine.scan(kind, self._filter(series), piece)
            yield keys.take(rows, rows.series <= series[-1])
            start_ms = piece.end_ms
            if len(rows) == 0:  # one value of the year 2099 must not make a million empty pieces
                start_ms = max(start_ms, self._engine.oldest_ms(kind, start_ms) or end_ms)

    def _filter(self, series: NDArray[np.int32]) -> NDArray[np.int32] | None:
        """Return the series, or None for all; then the answer may hold series that came since."""
        return None if series.size == len(self._names) else series


def _joined(whole: WriteResult, part: WriteResult, places: NDArray[np.intp]) -> WriteResult:
    """Add the result of the rows at these places to that of all; `whole.new` is a mask."""
    if whole.new is not None:
        whole.new[places] = part.stored > 0 if part.new is None else part.new
    return WriteResult(
        stored=whole.stored + part.stored,
        duplicate=whole.duplicate + part.duplicate,
        conflict=whole.conflict + part.conflict,
        new=whole.new,
    )
