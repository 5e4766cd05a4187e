"""What `powerflow` and `estimate` share: result files written block by block, progress, numbers for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import floor, isfinite, isnan, log10
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from flexmeter.errors import InputError

BLOCK_SCENARIOS = 256
SUFFIXES = (".csv", ".parquet", ".json")
Columns = dict[str, NDArray[np.generic]]


class Sink(Protocol):
    """Takes blocks of result columns."""

    def write(self, columns: Columns) -> None:
        """Append rows."""


class _Nothing:
    def write(self, columns: Columns) -> None:
        """Drop the rows: no file was asked for."""


class _Arrow:
    """Writes CSV or Parquet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: csv.CSVWriter | parquet.ParquetWriter | None = None

    def write(self, columns: Columns) -> None:
        """Append rows."""
        table = pa.table(columns)
        if self.writer is None:
            kind = parquet.ParquetWriter if self.path.suffix.lower() == ".parquet" else csv.CSVWriter
            self.writer = kind(str(self.path), table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()


class _Json:
    """Writes one JSON array, a row per line."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.between = "[\n"

    def write(self, columns: Columns) -> None:
        """Append rows."""
        for row in pa.table(columns).to_pylist():
            clean = {name: None if isinstance(value, float) and isnan(value) else value for name, value in row.items()}
            self.file.write(self.between + json.dumps(clean))
            self.between = ",\n"

    def close(self) -> None:
        """Finish the file."""
        self.file.write("[]\n" if self.between == "[\n" else "\n]\n")
        self.file.close()


def check_out(path: Path | None, option: str = "--out") -> None:
    """Refuse a result file we cannot write before any work is done."""
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{option} {path}: {path.suffix or 'no'} extension, expected one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: folder {path.parent} does not exist")


@contextmanager
def result_file(path: Path | None) -> Iterator[Sink]:
    """Open a result file by its extension; without path, rows go nowhere."""
    if path is None:
        yield _Nothing()
        return
    sink = _Json(path) if path.suffix.lower() == ".json" else _Arrow(path)
    try:
        yield sink
    finally:
        sink.close()


def blocks(n_scenario: int, what: str) -> Iterator[slice]:
    """Yield blocks of scenarios, with a progress bar on a terminal's stderr when there are several."""
    from rich.progress import track

    from flexmeter.console import console

    starts = range(0, n_scenario, BLOCK_SCENARIOS)
    quiet = len(starts) < 2 or not sys.stderr.isatty()
    for start in track(starts, description=what, console=console(stderr=True), disable=quiet, transient=True):
        yield slice(start, min(start + BLOCK_SCENARIOS, n_scenario))


def node_columns(
    scenarios: tuple[str, ...], nodes: tuple[tuple[str, str], ...], values: dict[str, NDArray[np.float64]]
) -> Columns:
    """Return long columns: scenario, bus, phase and the values (n_node, n_scenario), scenario after scenario."""
    n, m = len(nodes), len(scenarios)
    columns: Columns = {
        "scenario": np.repeat(np.array(scenarios, dtype=np.str_), n),
        "bus": np.tile(np.array([bus for bus, _ in nodes], dtype=np.str_), m),
        "phase": np.tile(np.array([phase for _, phase in nodes], dtype=np.str_), m),
    }
    return columns | {name: np.ascontiguousarray(array.T).ravel() for name, array in values.items()}


def table_columns(table: pa.Table, good: NDArray[np.bool_]) -> Columns:
    """Return the columns of a long table, with nan for all numbers of scenarios that are not good (n_scenario,)."""
    bad = np.repeat(~good, table.num_rows // max(len(good), 1))
    columns: Columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.to_numpy()
        columns[name] = np.where(bad, np.nan, values) if values.dtype == np.float64 else values
    return columns


def print_pairs(title: str, pairs: list[tuple[str, str]]) -> None:
    """Print a small two-column table to stdout."""
    from rich.table import Table

    from flexmeter.console import console

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, text in pairs:
        table.add_row(name, text)
    console().print(table)


def watts(value: float) -> str:
    """Return a power [W] with four digits, in W, kW, MW or GW."""
    if not isfinite(value):
        return f"{value} W"
    step = 0 if value == 0 else max(0, min(3, floor(log10(float(f"{abs(value):.4g}")) / 3)))
    return f"{value / 1000.0**step:.4g} {('W', 'kW', 'MW', 'GW')[step]}"
