"""Rules of writing: first value wins, estimates and corrections take over, nothing twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows
from flexmeter.storage import keys
from flexmeter.storage.base import Engine, Kind
from flexmeter.storage.query import Span


@dataclass(frozen=True, slots=True)
class Sorted:
    """Masks over rows with unique keys, and what is stored under those that are there.

    Attributes
    ----------
    new : the key is not stored yet.
    same : the key is stored with this value, or had this value before it was replaced.
    other : the key is stored with another value.
    stored_value : [SI unit] what is stored, nan for new keys.
    """

    new: NDArray[np.bool_]
    same: NDArray[np.bool_]
    other: NDArray[np.bool_]
    stored_value: NDArray[np.float64]


def sort_out(engine: Engine, kind: Kind, rows: Rows, later: NDArray[np.bool_], *, look_back: bool = True) -> Sorted:
    """Compare rows with the database; those known to be later than their series are new.

    With `look_back` a value that was in force before counts as the same: it is a second delivery.
    """
    stored_value = np.full(len(rows), np.nan)
    new = later.copy()
    if later.all():
        nothing = np.zeros(len(rows), bool)
        return Sorted(new, nothing, nothing, stored_value)
    older = np.flatnonzero(~later)
    stored = engine.find(kind, rows.series[older], rows.time_ms[older])
    place = keys.find(keys.take(rows, older), stored)
    new[older[place < 0]] = True
    there, place = older[place >= 0], place[place >= 0]
    stored_value[there] = stored.value[place]
    same = ~new & (stored_value == rows.value)
    other = ~new & ~same
    if look_back and other.any():
        before = _in_force_before(engine, kind, keys.take(rows, other))
        same[np.flatnonzero(other)[before]] = True
        other &= ~same
    return Sorted(new, same, other, stored_value)


def _in_force_before(engine: Engine, kind: Kind, rows: Rows) -> NDArray[np.bool_]:
    """Tell which rows repeat a value that was replaced since: a late second delivery."""
    span = Span(int(rows.time_ms.min()), int(rows.time_ms.max()) + 1)
    replaced = engine.versions(kind, np.unique(rows.series), span).rows
    before = np.zeros(len(rows), bool)
    for places in keys.once_each(replaced):
        part = keys.take(replaced, places)
        place = keys.find(rows, part)
        found = place >= 0
        before[found] |= part.value[place[found]] == rows.value[found]
    return before
