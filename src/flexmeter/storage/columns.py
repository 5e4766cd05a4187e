"""Columns that pass between a store and its engine, all of one length within an object."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows

Name = tuple[str, str, str, str]
"""Source, meter, quantity and phase of a series."""


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Second values that were refused because the key had another value.

    Attributes
    ----------
    series, time_ms : (n,) the key.
    stored_value, refused_value : (n,) [SI unit] what is kept and what was refused.
    """

    series: NDArray[np.int32]
    time_ms: NDArray[np.int64]
    stored_value: NDArray[np.float64]
    refused_value: NDArray[np.float64]

    @classmethod
    def none(cls) -> Conflicts:
        """Return no conflicts."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, float), np.empty(0, float))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction adds.

    Attributes
    ----------
    rows : values whose keys are not in the database yet.
    received_ms : [ms UTC] when they reached the store.
    conflicts : refused values to be recorded with them.
    stale_hours : [ms UTC] hours already rolled up that these rows change.
    mark : number of the stale marks, growing, so that later marks outlive a roll-up under way.
    """

    rows: Rows
    received_ms: int
    conflicts: Conflicts = field(default_factory=Conflicts.none)
    stale_hours: tuple[int, ...] = ()
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Buckets:
    """Roll-up of values per series and interval.

    Attributes
    ----------
    series, time_ms : (n,) series and start of the interval [ms UTC].
    count : (n,) values in it.
    total, low, high, last : (n,) [SI unit] sum, least, greatest and newest value.
    """

    series: NDArray[np.int32]
    time_ms: NDArray[np.int64]
    count: NDArray[np.int64]
    total: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    last: NDArray[np.float64]

    @classmethod
    def concatenate(cls, parts: list[Buckets]) -> Buckets:
        """Return the buckets of all parts, in order."""
        empty = cls.none()
        names = cls.__slots__
        return cls(*(np.concatenate([getattr(p, name) for p in (empty, *parts)]) for name in names))

    @classmethod
    def none(cls) -> Buckets:
        """Return no buckets."""
        floats = [np.empty(0, float) for _ in range(4)]
        return cls(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64), *floats)


@dataclass(frozen=True, slots=True)
class Versions:
    """Values that were replaced.

    Attributes
    ----------
    rows : the values as they were in force.
    version : (n,) 1 is the first value of its key.
    received_ms, replaced_ms : (n,) [ms UTC] when the value came and when it was replaced.
    reason : (n,) why it was replaced.
    """

    rows: Rows
    version: NDArray[np.int32]
    received_ms: NDArray[np.int64]
    replaced_ms: NDArray[np.int64]
    reason: tuple[str, ...]
