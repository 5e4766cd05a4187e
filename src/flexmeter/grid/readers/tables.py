"""Tables of loads and readings (CSV or Parquet): one value per row, scenarios by a column of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from flexmeter.errors import Finding, InputError, MeasurementError
from flexmeter.grid.readers.power_grid_model_files import read_power_grid_model_update

Floats = NDArray[np.float64]
Key = tuple[str, ...]
LOAD_COLUMNS = ("load", "active_power_w", "reactive_power_var")
READING_COLUMNS = ("meter", "quantity", "value")
TEXT = ("load", "meter", "quantity", "phase", "at", "scenario")
"""Columns that are names: a meter 007 is not meter 7, an instant keeps its time zone."""


@dataclass(frozen=True)
class LoadTable:
    """Powers in scenarios: `active_power_w`, `reactive_power_var` (n_row, n_scenario), rows as asked for."""

    scenarios: tuple[str, ...]
    active_power_w: Floats
    reactive_power_var: Floats


@dataclass(frozen=True)
class ReadingTable:
    """Readings in scenarios: `keys` are (quantity, meter, phase, at), `value` and `sigma` (n_key, n_scenario).

    nan = missing; where no sigma is given it is nan.
    """

    scenarios: tuple[str, ...]
    keys: tuple[Key, ...]
    value: Floats
    sigma: Floats


def read_table(path: Path | str, required: Sequence[str]) -> dict[str, list[object]]:
    """Return the columns of a CSV or Parquet file; `InputError` names what is missing."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path)
        elif path.suffix.lower() == ".csv":
            names = csv.ConvertOptions(column_types=dict.fromkeys(TEXT, pa.string()))
            table = csv.read_csv(path, convert_options=names)
        else:
            raise InputError(f"{path}: {path.suffix or 'no'} extension, expected .csv or .parquet")
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{path}: not a table: {error}") from error
    missing = [name for name in required if name not in columns]
    if missing:
        found = ", ".join(columns)
        raise InputError(f"{path}: column {missing[0]!r} is missing, expected {', '.join(required)}, found {found}")
    return columns


def read_load_table(
    path: Path | str,
    rows: Sequence[tuple[str, str]],
    default: tuple[Floats, Floats],
    load_ids: Mapping[str, str] | None = None,
) -> LoadTable:
    """Return powers for the given (load, phase) rows, from a table or a power-grid-model update batch.

    Columns: load, active_power_w, reactive_power_var, optionally phase (without it the power is shared equally by
    the load's phases) and scenario. A load that a scenario does not name keeps its `default` power. `load_ids`: ids of
    loads by their number in a power-grid-model batch.
    """
    if Path(path).suffix.lower() == ".json":
        return _from_updates(path, rows, default, load_ids)
    columns = read_table(path, LOAD_COLUMNS)
    scenarios, place = _scenarios(columns)
    at: dict[Key, list[int]] = {}
    for k, row in enumerate(rows):
        at.setdefault(row, []).append(k)
        at.setdefault(row[:1], []).append(k)
    active, reactive = (np.repeat(array[:, None], len(scenarios), axis=1) for array in default)
    findings = []
    given: set[tuple[int, int]] = set()
    phases = columns.get("phase", [None] * len(place))
    for number, (name, phase, p, q) in enumerate(
        zip(columns["load"], phases, columns["active_power_w"], columns["reactive_power_var"], strict=True)
    ):
        key: Key = (str(name),) if _empty(phase) else (str(name), str(phase))
        if key not in at:
            findings.append(Finding("load", (" ".join(key),), f"row {number + 1}", "is not in the grid"))
        elif not (_is_number(p) and _is_number(q)):
            findings.append(Finding("load", key[:1], f"row {number + 1}", f"{p!r}, {q!r}, expected numbers"))
        elif any((row_number, place[number]) in given for row_number in at[key]):
            findings.append(Finding("load", (" ".join(key),), f"row {number + 1}", "given twice in a scenario"))
        else:
            for row_number in at[key]:
                given.add((row_number, place[number]))
                share = 1 if len(key) == 2 else len(at[key])
                active[row_number, place[number]] = _as_number(p) / share
                reactive[row_number, place[number]] = _as_number(q) / share
    if findings:
        raise MeasurementError(findings, str(path))
    if not given:
        raise InputError(f"{path}: no loads")
    return LoadTable(scenarios, active, reactive)


def _from_updates(
    path: Path | str,
    rows: Sequence[tuple[str, str]],
    default: tuple[Floats, Floats],
    load_ids: Mapping[str, str] | None,
) -> LoadTable:
    updates = read_power_grid_model_update(path, load_ids)
    unknown = updates.active_power_w.keys() - {name for name, _ in rows}
    if unknown:
        raise MeasurementError([Finding("load", tuple(sorted(unknown)), "id", "is not in the grid")], str(path))
    active, reactive = (np.repeat(array[:, None], updates.n_scenario, axis=1) for array in default)
    seen: dict[str, int] = {}
    count: dict[str, int] = {}
    for name, _ in rows:
        count[name] = count.get(name, 0) + 1
    for k, (name, phase) in enumerate(rows):
        place = seen[name] = seen.get(name, -1) + 1
        for target, given in ((active, updates.active_power_w), (reactive, updates.reactive_power_var)):
            if name in given:
                values = given[name]
                own = values[:, 0] / count[name] if values.shape[1] == 1 else values[:, _column(phase, place)]
                target[k] = np.where(np.isnan(own), target[k], own)
    return LoadTable(tuple(str(k) for k in range(updates.n_scenario)), active, reactive)


def _column(phase: str, place: int) -> int:
    return "abc".index(phase) if phase in ("a", "b", "c") else place


def read_reading_table(path: Path | str) -> ReadingTable:
    """Return readings; columns: meter (load, bus or branch), quantity, value, optionally phase, sigma, scenario.

    A column `at` says where at the meter's place it reads: load, bus, branch_from, branch_to or head.
    """
    columns = read_table(path, READING_COLUMNS)
    scenarios, place = _scenarios(columns)
    n = len(place)
    phases, sigmas, places = (columns.get(name, [None] * n) for name in ("phase", "sigma", "at"))
    keys: dict[Key, int] = {}
    entries: dict[tuple[int, int], tuple[float, float]] = {}
    findings = []
    for number in range(n):
        words = (columns["quantity"][number], columns["meter"][number], phases[number], places[number])
        key = tuple("" if _empty(word) else str(word) for word in words)
        at = keys.setdefault(key, len(keys)), place[number]
        value, sigma = columns["value"][number], sigmas[number]
        if at in entries:
            findings.append(
                Finding("reading", (" ".join(key).strip(),), f"row {number + 1}", "given twice in a scenario")
            )
        elif not (_empty(value) or _is_number(value)) or not (_empty(sigma) or _is_number(sigma)):
            text = f"{value!r} with sigma {sigma!r}, expected numbers"
            findings.append(Finding("reading", (" ".join(key).strip(),), f"row {number + 1}", text))
        else:
            entries[at] = _as_number(value), _as_number(sigma)
    if findings:
        raise MeasurementError(findings, str(path))
    if not entries:
        raise InputError(f"{path}: no readings")
    values = np.full((2, len(keys), len(scenarios)), np.nan)
    for (row, scenario), pair in entries.items():
        values[:, row, scenario] = pair
    return ReadingTable(scenarios, tuple(keys), values[0], values[1])


def _scenarios(columns: dict[str, list[object]]) -> tuple[tuple[str, ...], list[int]]:
    """Return the names of the scenarios in order of appearance, and that of every row."""
    n = len(next(iter(columns.values())))
    names = columns.get("scenario", ["0"] * n)
    order: dict[str, int] = {}
    place = [order.setdefault(str(name), len(order)) for name in names]
    return tuple(order) or ("0",), place


def _empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and np.isnan(value))


def _is_number(value: object) -> bool:
    """Whether a cell is a finite number; one word in a column makes all its cells text."""
    try:
        return not isinstance(value, bool) and bool(np.isfinite(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _as_number(value: object) -> float:
    """Return a cell that is a number, nan if it is empty."""
    return np.nan if _empty(value) else float(value)  # type: ignore[arg-type]
