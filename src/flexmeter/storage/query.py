"""What is asked of a store: which series, which time, how fine."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from flexmeter.errors import InputError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Resolution(enum.IntEnum):
    """Widths of the roll-ups that a store keeps [ms]; buckets start at multiples in UTC."""

    MINUTE = MINUTE_MS
    QUARTER = 15 * MINUTE_MS
    HOUR = HOUR_MS
    DAY = DAY_MS


@dataclass(frozen=True, slots=True)
class Selection:
    """Series by name; an empty tuple means all.

    Attributes
    ----------
    sources : devices that publish, or `estimate_source(level, area)`.
    meters : meters, or buses of an estimate.
    quantities : names of the data format.
    phases : `a`, `b`, `c` or the empty string.
    """

    sources: tuple[str, ...] = ()
    meters: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open time span [start_ms, end_ms) in UTC."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        """Refuse a span that ends before it starts."""
        if self.end_ms < self.start_ms:
            raise InputError(f"time span: to ({self.end_ms}) lies before from ({self.start_ms})")

    def buckets(self, width_ms: int) -> int:
        """Return how many intervals of this width start within the span."""
        return -(-self.end_ms // width_ms) - -(-self.start_ms // width_ms)
