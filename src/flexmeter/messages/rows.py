"""Rows: the columns in which readings travel from the integrity check to a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray


class SeriesKey(msgspec.Struct, frozen=True, order=True):
    """Names one time series; a store numbers it.

    Attributes
    ----------
    tenant : owner of the series.
    source : the device that publishes it (a concentrator, gateway or service).
    meter : the meter or, for an estimate, the bus.
    quantity : one of `quantities.QUANTITIES`.
    phase : `a`, `b`, `c` or the empty string for a quantity without phase.
    """

    tenant: str
    source: str
    meter: str
    quantity: str
    phase: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Values of many series, one entry per value in every column.

    Attributes
    ----------
    series : (n,) number of the series, given by the store.
    time_ms : (n,) [ms UTC] time of the value.
    value : (n,) [SI unit of the quantity].
    sigma : (n,) [unit of the value] standard deviation, nan = not given.
    quality : (n,) quality bits, 0 = measured and valid (`quantities.Quality`).
    """

    series: NDArray[np.int32]
    time_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    sigma: NDArray[np.float32]
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of values."""
        return int(self.series.size)

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of all parts, in order; no parts give no rows."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            series=np.concatenate([np.empty(0, np.int32), *(part.series for part in parts)]),
            time_ms=np.concatenate([np.empty(0, np.int64), *(part.time_ms for part in parts)]),
            value=np.concatenate([np.empty(0, np.float64), *(part.value for part in parts)]),
            sigma=np.concatenate([np.empty(0, np.float32), *(part.sigma for part in parts)]),
            quality=np.concatenate([np.empty(0, np.uint8), *(part.quality for part in parts)]),
        )


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a store did with the rows of one write; the three counts add up to the rows given.

    Attributes
    ----------
    stored : rows that are new and durable.
    duplicate : rows whose key was there already with the same value.
    conflict : rows whose key was there already with another value (first wins, recorded).
    new : (rows,) which rows were new; needed only when some were and some were not, so that messages can
        be counted, else None.
    """

    stored: int
    duplicate: int
    conflict: int
    new: NDArray[np.bool_] | None = None
