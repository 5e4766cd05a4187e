"""power-grid-model JSON files: rows of components whatever way a file writes them, and update batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import InputError

Row = dict[str, object]


@dataclass(frozen=True)
class LoadUpdates:
    """Powers of loads in scenarios: {load id: (n_scenario, 3) or (n_scenario,) [W], [var]}, nan = not given."""

    n_scenario: int
    active_power_w: dict[str, NDArray[np.float64]]
    reactive_power_var: dict[str, NDArray[np.float64]]


def read_power_grid_model_update(path: Path | str, load_ids: Mapping[str, str] | None = None) -> LoadUpdates:
    """Read an update dataset or batch; only powers of loads and generators can change.

    `load_ids` are the ids of loads by number, from `power_grid_model_loads`; a `name` in the file comes first.
    """
    known = load_ids or {}
    data = dataset(path, "update", "input")
    scenarios = data if isinstance(data, list) else [data]
    values: dict[str, dict[int, tuple[object, object]]] = {}
    for number, scenario in enumerate(scenarios):
        for component, row in rows_of(scenario):
            if component not in ("sym_load", "asym_load", "sym_gen", "asym_gen"):
                raise InputError(f"{path}: updates of {component} are not supported, expected loads and generators")
            if "status" in row:
                raise InputError(f"{path}: {component} {row.get('id')} status: switching is not supported here")
            pair = row.get("p_specified"), row.get("q_specified")
            name = row.get("name", known.get(str(row.get("id")), row.get("id")))
            per_scenario = values.setdefault(f"{component}:{name}", {})
            if number in per_scenario:
                raise InputError(f"{path}: {component} {name}: given twice in scenario {number}")
            per_scenario[number] = pair
    active, reactive = {}, {}
    for key, per_scenario in values.items():
        component, _, name = key.partition(":")
        sign, width = -1.0 if component.endswith("gen") else 1.0, 1 if component.startswith("sym") else 3
        p, q = np.full((2, len(scenarios), width), np.nan)
        for number, pair in per_scenario.items():
            p[number], q[number] = (_power(value, width, f"{path}: {component} {name}") for value in pair)
        active[name], reactive[name] = sign * p, sign * q
    return LoadUpdates(len(scenarios), active, reactive)


def _power(value: object, width: int, where: str) -> NDArray[np.float64]:
    if value is None:
        return np.full(width, np.nan)
    try:
        array = np.asarray(value, float).reshape(-1)
    except (TypeError, ValueError):
        raise InputError(f"{where}: {value!r}, expected a number per phase") from None
    if array.size != width:
        raise InputError(f"{where}: {array.size} powers, expected {width}")
    return array


def dataset(path: Path | str, *types: str) -> object:
    """Return the data part of a dataset, rows as dictionaries are made by `rows_of`."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or "data" not in document or document.get("type") not in types:
        raise InputError(f"{path}: not a power-grid-model dataset of type {' or '.join(types)}")
    attributes, data = document.get("attributes", {}), document["data"]
    if not isinstance(attributes, dict):
        raise InputError(f"{path}: attributes: expected an object")
    scenarios = data if isinstance(data, list) else [data]
    named = [_named(scenario, attributes, path) for scenario in scenarios]
    if document.get("is_batch"):
        return named
    if len(named) != 1:
        raise InputError(f"{path}: data: a list, expected an object where is_batch is false")
    return named[0]


def _named(scenario: object, attributes: dict[str, object], path: Path | str) -> dict[str, list[Row]]:
    """Return components with rows as dictionaries, also where the file gives bare lists of values."""
    if not isinstance(scenario, dict):
        raise InputError(f"{path}: data: expected components, found {type(scenario).__name__}")
    result: dict[str, list[Row]] = {}
    for component, rows in scenario.items():
        if not isinstance(rows, list):
            raise InputError(f"{path}: {component}: expected a list")
        names = attributes.get(component)
        if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
            raise InputError(f"{path}: attributes of {component}: expected a list of names")
        for item in rows:
            row = item
            if isinstance(item, list) and isinstance(names, list) and len(item) <= len(names):
                row = dict(zip(names, item, strict=False))
            if not isinstance(row, dict):
                raise InputError(f"{path}: {component}: {item!r}, expected an object or a list with attributes")
            result.setdefault(component, []).append(row)
    return result


def rows_of(scenario: object) -> Iterator[tuple[str, Row]]:
    """Return each row of a scenario with the name of its component."""
    assert isinstance(scenario, dict)
    for component, rows in scenario.items():
        for row in rows:
            yield component, row
