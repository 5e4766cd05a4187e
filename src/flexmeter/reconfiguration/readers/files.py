"""Which reader a file needs, and the networks that come with the package."""

from __future__ import annotations

import csv
import json
from importlib.resources import as_file, files
from pathlib import Path

from flexmeter.errors import InputError
from flexmeter.grid import read_grid
from flexmeter.reconfiguration.adapter import network_from_grid
from flexmeter.reconfiguration.network import FeederNetwork
from flexmeter.reconfiguration.readers.json import read_json
from flexmeter.reconfiguration.readers.matpower import read_matpower
from flexmeter.reconfiguration.readers.pandapower import read_pandapower

EXAMPLES = ("kraftringen533_high", "kraftringen533_low")


def read_network(path: Path | str) -> FeederNetwork:
    """Read a feeder network, told apart by name and content.

    MATPOWER (.m), pandapower JSON, the feeder JSON of this package or the three-phase grid JSON of `flexmeter.grid`.

    Raises
    ------
    InputError, GridError
        The file cannot be read, is none of the three or holds no valid network; named.
    """
    path = Path(path)
    if path.suffix == ".m":
        return read_matpower(path)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: neither JSON nor a MATPOWER case (.m): {error}") from None
    if isinstance(content, dict) and content.get("_class") == "pandapowerNet":
        return read_pandapower(path)
    if isinstance(content, dict) and "sources" in content:
        return network_from_grid(read_grid(path))
    return read_json(path)


def read_loads(network: FeederNetwork, path: Path) -> FeederNetwork:
    """Replace bus powers by those of a CSV file with the columns bus, p_kw, q_kvar; other buses keep theirs.

    Raises
    ------
    InputError
        A column is missing, a bus does not exist or a value is no number (line named).
    """
    position = {bus: i for i, bus in enumerate(network.bus_ids)}
    p, q = network.p_w.copy(), network.q_var.copy()
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    for number, row in enumerate(rows, start=2):
        if not {"bus", "p_kw", "q_kvar"} <= row.keys():
            raise InputError(f"{path}: columns are {', '.join(map(str, row))}, expected bus, p_kw, q_kvar")
        if row["bus"] not in position:
            raise InputError(f"{path}: line {number}: bus {row['bus']!r} does not exist in {network.name}")
        try:
            p[position[row["bus"]]] = float(row["p_kw"]) * 1e3
            q[position[row["bus"]]] = float(row["q_kvar"]) * 1e3
        except (TypeError, ValueError):
            raise InputError(f"{path}: line {number}: p_kw and q_kvar must be numbers") from None
    return network.with_power(p, q)


def example(name: str) -> FeederNetwork:
    """Return a network of the package: `kraftringen533_high` (winter peak) or `kraftringen533_low` (export).

    Malmer and Thorin 2023, CC BY 4.0: the medium-voltage network of Kraftringen, Sweden, 533 buses, 45 ties.
    """
    if name not in EXAMPLES:
        raise InputError(f"example {name!r}: expected one of {', '.join(EXAMPLES)}")
    with as_file(files("flexmeter.reconfiguration") / "data" / f"{name}.json") as path:
        return read_json(path)
