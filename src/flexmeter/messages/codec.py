"""Encode and decode the messages: JSON for people, CBOR with typed arrays (RFC 8746) for wires.

Decoding is strict: an unknown field, a wrong type, a value out of its bounds or sizes that do not fit
together raise `MessageError` with the place and what was expected; nothing is repaired.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, TypeVar

import cbor2
import msgspec
import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import MessageError
from flexmeter.messages.estimate import Estimate, Head
from flexmeter.messages.notices import Notice
from flexmeter.messages.quantities import QUANTITIES, Quality
from flexmeter.messages.readings import COLUMNS, Column, Flag, Readings
from flexmeter.messages.wire import (
    JsonTable,
    JsonVector,
    WireEstimate,
    WireFlag,
    WireHead,
    WireReadings,
)

Encoding = Literal["json", "cbor"]
N = TypeVar("N", bound=Notice)
W = TypeVar("W")
MAX_VALUES = 100_000

_Floats = NDArray[np.floating[Any]]
_FloatType = np.dtype[np.float32] | np.dtype[np.float64]
_FLOAT32, _FLOAT64 = np.dtype(np.float32).newbyteorder("<"), np.dtype(np.float64).newbyteorder("<")
_TAGS: dict[_FloatType, int] = {_FLOAT32: 85, _FLOAT64: 86}
_DTYPES: dict[int, _FloatType] = {
    85: _FLOAT32,
    86: _FLOAT64,
    81: _FLOAT32.newbyteorder(">"),
    82: _FLOAT64.newbyteorder(">"),
}
_NUMBERS = {float, int, type(None)}
_UPPER = np.triu_indices(9)
_json_readings = msgspec.json.Decoder(WireReadings[JsonTable])
_json_estimate = msgspec.json.Decoder(WireEstimate[JsonTable, JsonVector])


class _CborReadings(WireReadings[Any]):
    """Concrete, since converting to a parametrised generic costs half as much again."""


class _CborEstimate(WireEstimate[Any, Any]):
    """Concrete for the same reason."""


def encode_readings(readings: Readings, encoding: Encoding = "cbor") -> bytes:
    """Return the message; CBOR holds 32-bit floats unless a column is an energy.

    A 32-bit float is exact to 6e-8 of the value, 1e4 times finer than the standard deviation of a class
    0.1 meter; an energy counter of years needs 64 bits.
    """
    energy = any(QUANTITIES[column.quantity].energy for column in readings.columns)
    wire = WireReadings(
        version=1,
        source=readings.source,
        boot=readings.boot,
        seq=readings.seq,
        time_ms=readings.time_ms,
        columns=tuple([column.name for column in readings.columns]),
        values=_numbers(readings.values, encoding, _FLOAT64 if energy else _FLOAT32),
        meters=readings.meters,
        roster=readings.roster,
        quality=_wire_flags(readings.flags),
        clock=readings.clock,
    )
    return _pack(wire, encoding)


def encode_estimate(estimate: Estimate, encoding: Encoding = "cbor") -> bytes:
    """Return the message; all numbers are 64-bit floats, since another estimator consumes them."""
    head = estimate.head
    wire = WireEstimate(
        version=1,
        source=estimate.source,
        boot=estimate.boot,
        seq=estimate.seq,
        grid=estimate.grid,
        level=estimate.level,
        area=estimate.area,
        topology=estimate.topology,
        time_ms=estimate.time_ms,
        status=estimate.status,
        iterations=estimate.iterations,
        objective=estimate.objective if math.isfinite(estimate.objective) else None,
        degrees_of_freedom=estimate.degrees_of_freedom,
        elements=estimate.elements,
        columns=tuple([column.name for column in estimate.columns]),
        values=_numbers(estimate.values, encoding),
        sigma=_numbers(estimate.sigma, encoding),
        head=None
        if head is None
        else WireHead(_numbers(head.values, encoding), _numbers(head.covariance[_UPPER], encoding)),
        clock=estimate.clock,
    )
    return _pack(wire, encoding)


def encode_notice(notice: Notice, encoding: Encoding = "json") -> bytes:
    """Return a topology alert, rejection, gap, state or roster as a message."""
    return _pack(notice, encoding)


def decode_readings(payload: bytes) -> Readings:
    """Return the batch in a message of either encoding; raise `MessageError` if it breaks the format."""
    wire = _decode(payload, _json_readings, _CborReadings)
    columns = _columns(wire.columns)
    if bool(wire.meters) == bool(wire.roster):
        raise MessageError("meters: expected either a list of meters or the hash of a roster")
    if len(set(wire.meters)) < len(wire.meters):
        raise MessageError("meters: expected every meter once")
    values = _table(wire.values, "values", len(columns), len(wire.meters) or None)
    if values.dtype.itemsize < 8 and any(QUANTITIES[column.quantity].energy for column in columns):
        raise MessageError("values: expected 64-bit floats in a message with energies")
    for flag in wire.quality:
        if flag.at and max(flag.at) >= values.size:
            raise MessageError(f"quality {flag.flag}: place {max(flag.at)} of {values.size} values")
    return Readings(
        wire.source,
        wire.boot,
        wire.seq,
        wire.time_ms,
        columns,
        values.astype(_FLOAT64, copy=False),
        wire.meters,
        wire.roster,
        tuple([Flag(int(Quality[flag.flag.upper()]), flag.at) for flag in wire.quality]),
        wire.clock,
    )


def decode_estimate(payload: bytes) -> Estimate:
    """Return the estimate in a message of either encoding; raise `MessageError` if it breaks the format."""
    wire = _decode(payload, _json_estimate, _CborEstimate)
    columns = _columns(wire.columns)
    values = _table(wire.values, "values", len(columns), len(wire.elements))
    sigma = _table(wire.sigma, "sigma", len(columns), len(wire.elements))
    if (sigma < 0).any() or np.isinf(sigma).any() or np.isinf(values).any():
        raise MessageError("values, sigma: expected finite numbers and sigma of at least 0")
    return Estimate(
        wire.source,
        wire.boot,
        wire.seq,
        wire.grid,
        wire.level,
        wire.area,
        wire.topology,
        wire.time_ms,
        wire.status,
        wire.iterations,
        math.nan if wire.objective is None else wire.objective,
        wire.degrees_of_freedom,
        wire.elements,
        columns,
        values.astype(_FLOAT64, copy=False),
        sigma.astype(_FLOAT64, copy=False),
        None if wire.head is None else _head(wire.head),
        wire.clock,
    )


def decode_notice(payload: bytes, kind: type[N]) -> N:
    """Return a message of the given kind, of either encoding; raise `MessageError` if it is none."""
    return _decode(payload, msgspec.json.Decoder(kind), kind)


def encoding_of(payload: bytes) -> Encoding:
    """Return the encoding of a message by its first byte; raise `MessageError` if it is neither."""
    first = payload[0] if payload else 0
    if first == 0x7B:
        return "json"
    if 0xA0 <= first <= 0xBF:
        return "cbor"
    raise MessageError("payload: expected a JSON object or a CBOR map")


def _decode(payload: bytes, decoder: msgspec.json.Decoder[Any], kind: type[W]) -> W:
    try:
        if encoding_of(payload) == "json":
            decoded: W = decoder.decode(payload)
            return decoded
        return msgspec.convert(cbor2.loads(payload, allow_duplicate_keys=False, max_depth=16), kind)
    except (msgspec.MsgspecError, cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise MessageError(str(error)) from None


@lru_cache(maxsize=10_000)
def _columns(names: tuple[str, ...]) -> tuple[Column, ...]:
    if not names or len(set(names)) < len(names):
        raise MessageError("columns: expected at least one, each once")
    try:
        return tuple([COLUMNS[name] for name in names])
    except KeyError as error:
        raise MessageError(f"columns: unknown column {str(error)[:80]}, expected e.g. voltage.a or frequency") from None


def _table(content: object, field: str, rows: int, width: int | None) -> _Floats:
    """Return (rows, width) numbers; `width` None = as many as there are (a roster knows the meters)."""
    numbers = _vector(content, field)
    if width is None:
        width = numbers.size // rows
    if numbers.size != rows * width or not 0 < numbers.size <= MAX_VALUES:
        shape = f"{rows} columns x {width} values" if width else "at least one value per column"
        raise MessageError(f"{field}: {numbers.size} numbers, expected {shape}, {MAX_VALUES} at most")
    if isinstance(content, list) and isinstance(content[0], list):
        lengths = {len(row) for row in content}
        if len(content) != rows or lengths != {width}:
            raise MessageError(f"{field}: expected {rows} rows of {width} values")
    return numbers.reshape(rows, width)


def _vector(content: object, field: str) -> _Floats:
    """Return the numbers of a typed array, a list or a list of lists, one after the other."""
    if isinstance(content, cbor2.CBORTag):
        dtype = _DTYPES.get(content.tag)
        if dtype is None or not isinstance(content.value, bytes):
            raise MessageError(f"{field}: expected a typed array of floats (tag 81, 82, 85 or 86)")
        if len(content.value) % dtype.itemsize:
            raise MessageError(f"{field}: {len(content.value)} bytes do not hold whole numbers")
        numbers: _Floats = np.frombuffer(content.value, dtype)
        return numbers
    if not isinstance(content, list):
        raise MessageError(f"{field}: expected a typed array or a list of numbers")
    rows = content if content and isinstance(content[0], list) else [content]
    try:
        flat = [number for row in rows for number in row]
        if not set(map(type, flat)) <= _NUMBERS:
            raise MessageError(f"{field}: expected numbers or null")
        return np.array(flat, dtype=_FLOAT64)
    except (TypeError, OverflowError) as error:
        raise MessageError(f"{field}: {error}") from None


def _head(wire: WireHead[Any]) -> Head:
    values = _vector(wire.values, "head.values").astype(_FLOAT64)
    triangle = _vector(wire.covariance, "head.covariance")
    if values.size != 9 or triangle.size != 45:
        raise MessageError("head: expected 9 values and 45 covariances")
    covariance = np.empty((9, 9))
    covariance[_UPPER] = triangle
    covariance.T[_UPPER] = triangle
    return Head(values, covariance)


def _wire_flags(flags: tuple[Flag, ...]) -> tuple[WireFlag, ...]:
    return tuple(
        WireFlag(bit.name.lower(), flag.at)  # type: ignore[union-attr, arg-type]
        for flag in flags
        for bit in Quality
        if flag.quality & bit
    )


def _numbers(values: NDArray[np.float64], encoding: Encoding, dtype: _FloatType = _FLOAT64) -> object:
    if encoding == "cbor":
        return cbor2.CBORTag(_TAGS[dtype], values.astype(dtype, copy=False).tobytes())
    if np.isfinite(values).all():
        return values.tolist()
    with_gaps = values.astype(object)
    with_gaps[~np.isfinite(values)] = None
    return with_gaps.tolist()


def _pack(wire: msgspec.Struct, encoding: Encoding) -> bytes:
    if encoding == "json":
        return msgspec.json.encode(wire)
    return cbor2.dumps(msgspec.to_builtins(wire, builtin_types=(bytes, cbor2.CBORTag)))
