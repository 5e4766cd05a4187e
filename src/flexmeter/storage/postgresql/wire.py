"""The binary COPY format of PostgreSQL, to and from numpy columns without a Python object per value.

Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format". Columns must not be
null and have a fixed length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
Columns = Mapping[str, NDArray[np.generic]]
Types = Mapping[str, str]
"""Column names and their big-endian types on the wire, such as `>i4`."""


def packed(columns: Columns, types: Types) -> bytes:
    """Return columns of one length as the content of a COPY FROM."""
    record = _record(types)
    table = np.empty(next(iter(columns.values())).size, record)
    table["fields"] = len(types)
    for name, kind in types.items():
        table[f"{name}_length"] = np.dtype(kind).itemsize
        table[name] = columns[name]
    return _HEADER + table.tobytes() + _TRAILER


def unpacked(content: bytes, types: Types) -> dict[str, NDArray[np.generic]]:
    """Return the columns in the content of a COPY TO."""
    record = _record(types)
    count = (len(content) - len(_HEADER) - len(_TRAILER)) // record.itemsize
    table = np.frombuffer(content, record, count, offset=len(_HEADER))
    return {name: table[name].astype(np.dtype(kind).newbyteorder("=")) for name, kind in types.items()}


def _record(types: Types) -> np.dtype[np.void]:
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in types.items():
        fields += [(f"{name}_length", ">i4"), (name, kind)]
    return np.dtype(fields)
