"""One door to all formats: which reader a file needs, and what the other program's load flow says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flexmeter.errors import InputError
from flexmeter.grid.json import read_grid
from flexmeter.grid.model import Grid
from flexmeter.grid.readers.dss_text import read_dss
from flexmeter.grid.readers.matpower import matpower_voltages, read_matpower
from flexmeter.grid.readers.opendss import read_opendss
from flexmeter.grid.readers.pandapower import grid_from_pandapower, load_pandapower, pandapower_voltages
from flexmeter.grid.readers.power_grid_model import (
    power_grid_model_loads,
    power_grid_model_voltages,
    read_power_grid_model,
)
from flexmeter.grid.readers.simbench import load_cgmes, load_simbench
from flexmeter.grid.validation import validate

FORMATS = (
    ".json (Flexmeter, pandapower, power-grid-model), .dss (OpenDSS), .m (MATPOWER), .xml, .zip or a folder (CGMES), "
    "simbench:CODE"
)
SIMBENCH = "simbench:"
Voltages = dict[tuple[str, str], float]


def _nothing() -> Voltages:
    return {}


@dataclass(frozen=True)
class Imported:
    """A grid in our model, the format it came in, and the other program's own load flow.

    `reference()` runs that program and returns |V| per (bus id, phase) [V]; empty where there is none to ask.
    `load_ids` are the ids of loads by their number, where the format has numbers (power-grid-model).
    """

    grid: Grid
    format: str
    reference: Callable[[], Voltages] = field(default=_nothing, compare=False)
    load_ids: dict[str, str] = field(default_factory=dict)


def read_any_grid(source: Path | str) -> Imported:
    """Read and validate a grid in any known format; `InputError` names file, field and what was expected."""
    imported = _read(str(source))
    validate(imported.grid, str(source))
    return imported


def _read(source: str) -> Imported:
    if source.startswith(SIMBENCH):
        code = source.removeprefix(SIMBENCH)
        return _from_net(load_simbench(code), code, "SimBench")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in (".xml", ".zip"):
        return _from_net(load_cgmes(path), path.stem, "CGMES")
    if suffix == ".m":
        return Imported(read_matpower(path), "MATPOWER", lambda: matpower_voltages(path))
    if suffix == ".dss":
        return _opendss(path)
    if suffix == ".json":
        return _json(path)
    raise InputError(f"{path}: {suffix or 'no'} extension, expected {FORMATS}")


def _from_net(net: object, name: str, program: str) -> Imported:
    return Imported(grid_from_pandapower(net, name), program, lambda: pandapower_voltages(net))


def _opendss(path: Path) -> Imported:
    """Ask the engine if it is installed; without it the small reader does what it can."""
    try:
        case = read_opendss(path)
    except InputError as error:
        if "pip install" not in str(error):
            raise
        return Imported(read_dss(path).grid, "OpenDSS")
    return Imported(case.grid, "OpenDSS", lambda: case.voltages)


def _json(path: Path) -> Imported:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if isinstance(document, dict) and document.get("_class") == "pandapowerNet":
        return _from_net(load_pandapower(path), path.stem, "pandapower")
    if isinstance(document, dict) and {"is_batch", "data"} <= document.keys():
        grid, ids = read_power_grid_model(path), power_grid_model_loads(path)
        return Imported(grid, "power-grid-model", lambda: power_grid_model_voltages(path), ids)
    return Imported(read_grid(path), "Flexmeter")


@dataclass(frozen=True)
class Comparison:
    """How far a load flow is from another program's: largest difference of |V| [pu of nominal], where, how many."""

    largest_pu: float
    bus: str
    phase: str
    compared: int


def compare_voltages(ours: Voltages, theirs: Voltages, nominal_v: dict[str, float]) -> Comparison:
    """Return the largest difference over the nodes both know; `nominal_v` phase-to-earth [V] per bus."""
    common = ours.keys() & theirs.keys()
    if not common:
        raise InputError("nothing to compare: the two load flows share no bus and phase")
    difference = {node: abs(ours[node] - theirs[node]) / nominal_v[node[0]] for node in common}
    worst = max(difference, key=lambda node: (difference[node], node))
    return Comparison(difference[worst], *worst, len(common))
