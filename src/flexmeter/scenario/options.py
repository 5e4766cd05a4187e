"""What a run of the day is made from."""

from __future__ import annotations

from typing import Literal

import msgspec

GridName = Literal["reference", "eulv"]
START_MS = 1_498_003_200_000
"""2017-06-21T00:00:00Z: the summer day of the standard household profile; minute m ends at START_MS + 60,000 m."""
MINUTE_MS = 60_000


class DayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Choices of a run; the same choices give the same day."""

    grid: GridName = "reference"
    minutes: int = 1440
    seed: int = 1
    meters: Literal["noise", "realistic"] = "noise"
    profiles: Literal["generator", "european"] = "generator"
    handover: Literal["joint", "diagonal"] = "joint"
    partial: bool = False


def instant_ms(minute: int) -> int:
    """Return the end of a minute [ms UTC]; minutes count from 1."""
    return START_MS + minute * MINUTE_MS


def minute_of(time_ms: int) -> int:
    """Return the minute that ends at an instant, from 1."""
    return (time_ms - START_MS) // MINUTE_MS
