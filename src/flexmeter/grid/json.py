"""Grid files: the published JSON of `Grid` (schema 1), read with clear errors, written readably."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from flexmeter.errors import InputError
from flexmeter.grid.model import Grid
from flexmeter.grid.validation import validate


def read_grid(path: Path | str) -> Grid:
    """Read and validate a grid file; `InputError` names the file, field and what was expected."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    grid = decode_grid(data, source=str(path))
    validate(grid, source=str(path))
    return grid


def decode_grid(data: bytes, source: str = "grid") -> Grid:
    """Decode grid JSON without checking that it makes sense; `InputError` on a wrong type or field."""
    try:
        return msgspec.json.decode(data, type=Grid)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not a Flexmeter grid: {error}") from error


def encode_grid(grid: Grid) -> bytes:
    """Return the JSON bytes of a grid, one component a line."""
    document = msgspec.to_builtins(grid)
    parts = []
    for key, value in document.items():
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            parts.append(f"{json.dumps(key)}: [\n  {rows}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def write_grid(grid: Grid, path: Path | str) -> None:
    """Write a grid file."""
    Path(path).write_bytes(encode_grid(grid))


def grid_schema() -> dict[str, object]:
    """Return the JSON Schema (2020-12) of a grid file, as published in docs/format/grid.schema.json."""
    return msgspec.json.schema(Grid)
