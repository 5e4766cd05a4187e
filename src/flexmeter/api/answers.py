"""Tables as answers: JSON columns, CSV, Parquet or an Arrow stream; large ones piece by piece."""

from __future__ import annotations

import io
from collections.abc import Iterator
from enum import StrEnum

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from fastapi import Response
from fastapi.responses import StreamingResponse

from flexmeter.api.problems import Problem


class Format(StrEnum):
    """Forms of an answer; `format=` names one, else the Accept header chooses."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


MEDIA_TYPES = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.ARROW: "application/vnd.apache.arrow.stream",
}


def chosen_format(asked: Format | None, accept: str | None) -> Format:
    """Return the format asked for, or the first one that Accept names, or JSON."""
    if asked is not None:
        return asked
    for part in (accept or "").split(","):
        media = part.partition(";")[0].strip().lower()
        for form, name in MEDIA_TYPES.items():
            if media == name:
                return form
    return Format.JSON


def bounded_answer(table: pa.Table, form: Format, json_rows: int) -> Response:
    """Return a table that is in memory anyway; as JSON it has at most `json_rows` rows."""
    if form is Format.JSON and table.num_rows > json_rows:
        raise _too_many(json_rows)
    return Response(b"".join(_pieces(iter(table.to_batches()), table.schema, form)), media_type=MEDIA_TYPES[form])


def stream_answer(batches: Iterator[pa.RecordBatch], form: Format, json_rows: int) -> Response:
    """Return batches as they come; the first one, which may be empty, gives the columns.

    JSON has its columns one after the other and so is gathered first: at most `json_rows` rows.
    """
    head = next(batches)
    if form is Format.JSON:
        return bounded_answer(_gathered(head, batches, json_rows), form, json_rows)
    pieces = _pieces(batches, head.schema, form)
    return StreamingResponse(pieces, media_type=MEDIA_TYPES[form])


def _too_many(most: int) -> Problem:
    return Problem(413, f"more than {most} rows: ask for less, or for csv, parquet or arrow")


def _gathered(head: pa.RecordBatch, batches: Iterator[pa.RecordBatch], most: int) -> pa.Table:
    found = [head]
    count = 0
    for batch in batches:
        count += batch.num_rows
        if count > most:
            raise _too_many(most)
        found.append(batch)
    return pa.Table.from_batches(found)


def _pieces(batches: Iterator[pa.RecordBatch], schema: pa.Schema, form: Format) -> Iterator[bytes]:
    if form is Format.JSON:
        table = pa.Table.from_batches(list(batches), schema)
        columns = {name: table[name].to_pylist() for name in table.column_names}
        return iter([msgspec.json.encode({"count": table.num_rows, "columns": columns})])
    return _written(batches, schema, form)


def _written(batches: Iterator[pa.RecordBatch], schema: pa.Schema, form: Format) -> Iterator[bytes]:
    """Write batch by batch and hand out what was written since."""
    sink = _Sink()
    plain = pa.schema([_plain(field) for field in schema]) if form is Format.CSV else schema
    with _writer(sink, plain, form) as writer:
        yield sink.taken()
        for batch in batches:
            writer.write(pa.Table.from_batches([batch]).cast(plain))
            yield sink.taken()
    yield sink.taken()


def _plain(field: pa.Field) -> pa.Field:
    is_dictionary = pa.types.is_dictionary(field.type)
    return pa.field(field.name, field.type.value_type) if is_dictionary else field


def _writer(
    sink: _Sink, schema: pa.Schema, form: Format
) -> pa_csv.CSVWriter | pq.ParquetWriter | pa.RecordBatchStreamWriter:
    if form is Format.CSV:
        return pa_csv.CSVWriter(sink, schema, write_options=pa_csv.WriteOptions(quoting_style="needed"))
    if form is Format.PARQUET:
        return pq.ParquetWriter(sink, schema, compression="zstd")
    return pa.ipc.new_stream(sink, schema)


class _Sink(io.RawIOBase):
    """A file that is only written to; what was written can be taken out."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(memoryview(data))  # type: ignore[arg-type]
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def tell(self) -> int:
        return self._position

    def taken(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
