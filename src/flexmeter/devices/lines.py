"""Readings as lines of JSON, e.g. from another program: `{"time_ms": ..., "meter": "m1", "voltage.a": 230.1}`.

Without `time_ms` the time is when the line was read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import numpy as np

from flexmeter.devices.adapter import Measured
from flexmeter.errors import InputError
from flexmeter.messages import COLUMNS, Roster


class LinesAdapter:
    """An `adapter.Adapter` over a stream of lines; a line that makes no sense is an `InputError` with its number."""

    roster: Roster | None = None

    def __init__(self, lines: asyncio.StreamReader, device: str, now_ms: Callable[[], int]) -> None:
        self._lines = lines
        self._device = device
        self._now_ms = now_ms

    async def measurements(self) -> AsyncIterator[Measured]:
        """Yield one batch per line."""
        number = 0
        while line := await self._lines.readline():
            number += 1
            if line.strip():
                yield parse_line(line, number, self._device, self._now_ms())


def parse_line(line: bytes, number: int, device: str, now_ms: int) -> Measured:
    """Return the reading in a line."""
    where = f"line {number}"
    try:
        content = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected an object")
    time_ms = content.pop("time_ms", now_ms)
    meter = content.pop("meter", device)
    if type(time_ms) is not int or not isinstance(meter, str):
        raise InputError(f"{where}: expected time_ms as a whole number and meter as text")
    unknown = [name for name in content if name not in COLUMNS]
    if unknown or not content:
        raise InputError(f"{where}: {', '.join(unknown) or 'no value'}: expected e.g. voltage.a or frequency")
    wrong = [name for name, value in content.items() if type(value) not in (int, float)]
    if wrong:
        raise InputError(f"{where}: {', '.join(wrong)}: expected a number")
    values = np.array([[float(value)] for value in content.values()])
    return Measured(time_ms, tuple(COLUMNS[name] for name in content), values, (meter,))
