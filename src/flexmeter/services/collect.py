"""Gather the inputs of an interval until all of them are in, or the interval is overdue (event time).

An estimator waits for every source it serves. An interval goes incomplete when a later one was complete first, when
too many wait, or when the caller's own deadline passes (`release`): what is missing is then a pseudo-measurement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Interval(Generic[Item]):
    """The inputs of one instant [ms UTC], by source, and the sources that did not come."""

    time_ms: int
    items: dict[str, Item]
    missing: frozenset[str]


class Collector(Generic[Item]):
    """Inputs by instant and source; at most `most` intervals wait at a time."""

    def __init__(self, expected: Iterable[str], most: int = 8) -> None:
        self.expected = frozenset(expected)
        self.late = 0
        self._most = most
        self._open: dict[int, dict[str, Item]] = {}
        self._released_ms = -1

    def add(self, time_ms: int, source: str, item: Item) -> list[Interval[Item]]:
        """Take one input; return the intervals that are ready now, oldest first.

        An input of an instant that was released already is counted in `late` and otherwise ignored, as is one from
        a source nobody expects; of two inputs for the same place the first wins.
        """
        if source not in self.expected:
            return []
        if time_ms <= self._released_ms:
            self.late += 1
            return []
        items = self._open.setdefault(time_ms, {})
        items.setdefault(source, item)
        if len(items) == len(self.expected):
            return self.release(time_ms)
        if len(self._open) > self._most:
            return self.release(min(self._open))
        return []

    def release(self, until_ms: int) -> list[Interval[Item]]:
        """Let every waiting interval up to an instant go, complete or not."""
        ready = sorted(t for t in self._open if t <= until_ms)
        self._released_ms = max(self._released_ms, until_ms)
        return [self._close(t) for t in ready]

    @property
    def waiting(self) -> tuple[int, ...]:
        """The instants that wait, oldest first."""
        return tuple(sorted(self._open))

    def _close(self, time_ms: int) -> Interval[Item]:
        items = self._open.pop(time_ms)
        return Interval(time_ms, items, self.expected - items.keys())
