"""SimBench codes (e.g. 1-LV-rural1--0-sw) and CGMES files, by way of pandapower's own converters."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import msgspec

from flexmeter.errors import InputError
from flexmeter.grid.model import Grid
from flexmeter.grid.readers.optional import optional_module
from flexmeter.grid.readers.pandapower import grid_from_pandapower


def read_simbench(code: str) -> Grid:
    """Return the grid of a SimBench code; needs the package simbench (data: ODbL)."""
    return grid_from_pandapower(load_simbench(code), code)


def load_simbench(code: str) -> object:
    """Return the pandapower net of a SimBench code."""
    simbench = optional_module("simbench", f"reading the SimBench code {code}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return simbench.get_simbench_net(code)
    except Exception as error:  # simbench raises whatever its tables raise on a code it does not know
        raise InputError(f"SimBench code {code!r}: {type(error).__name__}: {error}") from error


def read_cgmes(path: Path | str) -> Grid:
    """Return the grid of CGMES files (a zip, an xml or a folder), converted by pandapower first."""
    grid = grid_from_pandapower(load_cgmes(path), Path(path).stem)
    return msgspec.structs.replace(grid, assumptions=("CGMES read by pandapower's converter", *grid.assumptions))


def load_cgmes(path: Path | str) -> object:
    """Return the pandapower net of CGMES files."""
    path = Path(path)
    files = sorted(str(item) for item in path.glob("*.xml")) if path.is_dir() else [str(path)]
    if not files or not path.exists():
        raise InputError(f"{path}: no CGMES files (.xml or .zip) found")
    if path.suffix.lower() == ".zip" and not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a zip file")
    converter = optional_module("pandapower.converter.cim.cim2pp.from_cim", "reading CGMES files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return converter.from_cim(file_list=files)
    except Exception as error:  # the converter has no error class of its own for broken files
        raise InputError(f"{path}: not readable as CGMES: {type(error).__name__}: {error}") from error
