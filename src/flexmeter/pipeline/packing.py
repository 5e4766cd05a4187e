"""Windows of checked messages as bytes, for the stream between Event Sources and writers.

Columns of all messages lie one after the other; what a device sends in every batch (its layout) is written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import MessageError
from flexmeter.pipeline.check import Checked, Kind, Layout


class _Packed(msgspec.Struct, array_like=True):
    """`places` says which layout each message has; bytes are float64, float64 and uint8, empty = none has any."""

    version: int
    layouts: list[Layout]
    kinds: list[Kind]
    places: list[int]
    times_ms: list[int]
    sources: list[tuple[str, int, int]]
    quality_of_all: list[int]
    values: bytes
    sigma: bytes
    quality: bytes


def pack(window: Sequence[Checked]) -> bytes:
    """Return a window as bytes."""
    numbers: dict[tuple[Kind, Layout], int] = {}
    places = [numbers.setdefault((one.kind, one.layout), len(numbers)) for one in window]
    packed = _Packed(
        1,
        [layout for _, layout in numbers],
        [kind for kind, _ in numbers],
        places,
        [one.time_ms for one in window],
        [(one.source, one.boot, one.seq) for one in window],
        [one.quality_of_all for one in window],
        np.concatenate([one.values for one in window]).astype("<f8", copy=False).tobytes(),
        _optional([one.sigma for one in window], window, np.nan, "<f8"),
        _optional([one.quality for one in window], window, 0, "u1"),
    )
    return msgspec.msgpack.encode(packed)


def unpack(payload: bytes) -> list[Checked]:
    """Return the window in a message of the stream; raise `MessageError` if it is none."""
    try:
        packed = msgspec.msgpack.decode(payload, type=_Packed)
    except msgspec.DecodeError as error:
        raise MessageError(f"packed window: {error}") from None
    if packed.version != 1:
        raise MessageError(f"packed window of version {packed.version}: expected 1")
    sizes = [len(layout.meters) * len(layout.columns) for layout in packed.layouts]
    cuts = np.cumsum([sizes[place] for place in packed.places])[:-1]
    values = np.split(np.frombuffer(packed.values, "<f8"), cuts)
    sigma = np.split(np.frombuffer(packed.sigma, "<f8"), cuts) if packed.sigma else [None] * len(values)
    quality = np.split(np.frombuffer(packed.quality, "u1"), cuts) if packed.quality else [None] * len(values)
    return [
        Checked(
            packed.kinds[place],
            packed.layouts[place],
            packed.times_ms[number],
            values[number],
            *packed.sources[number],
            sigma[number],
            packed.quality_of_all[number],
            quality[number],
        )
        for number, place in enumerate(packed.places)
    ]


def split(window: Sequence[Checked], most_rows: int) -> Iterator[Sequence[Checked]]:
    """Yield parts of a window with at most so many rows each, or one message if that has more."""
    start = rows = 0
    for end, one in enumerate(window):
        if rows and rows + one.values.size > most_rows:
            yield window[start:end]
            start, rows = end, 0
        rows += one.values.size
    yield window[start:]


def _optional(
    parts: Sequence[NDArray[np.float64] | None] | Sequence[NDArray[np.uint8] | None],
    window: Sequence[Checked],
    filler: float,
    dtype: str,
) -> bytes:
    if all(part is None for part in parts):
        return b""
    filled = [
        np.full(one.values.size, filler, dtype) if part is None else part.astype(dtype, copy=False)
        for part, one in zip(parts, window, strict=True)
    ]
    return np.concatenate(filled).tobytes()
