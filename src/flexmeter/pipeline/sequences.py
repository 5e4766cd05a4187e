"""Sequence gaps: batches that a device numbered and the platform has not seen."""

from __future__ import annotations

_MAX_RUNS = 200_000
_MAX_MISSING = 10_000


class Sequences:
    """Follows the numbers of every run of every source; late arrivals close their gap again.

    The broker gives no hint when it drops a forbidden message, and a device may have lost a batch itself; a gap that
    stays open says that something is missing.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str, int], tuple[int, set[int]]] = {}
        self._uncounted = 0

    def see(self, kind: str, source: str, boot: int, seq: int) -> bool:
        """Take note of a batch; return whether it opened a gap."""
        key = (kind, source, boot)
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= _MAX_RUNS:
                del self._runs[next(iter(self._runs))]
            self._runs[key] = (seq, set())
            return False
        highest, missing = run
        if seq <= highest:
            missing.discard(seq)
            return False
        self._runs[key] = (seq, missing)
        gap = range(highest + 1, seq)
        room = max(0, _MAX_MISSING - len(missing))
        missing.update(gap[:room])
        self._uncounted += len(gap[room:])
        return bool(gap)

    @property
    def missing(self) -> int:
        """How many batches are missing now, over all sources."""
        return self._uncounted + sum(len(missing) for _, missing in self._runs.values())

    def by_source(self) -> dict[str, int]:
        """Return the sources with missing batches and how many."""
        counts: dict[str, int] = {}
        for (_, source, _), (_, missing) in self._runs.items():
            if missing:
                counts[source] = counts.get(source, 0) + len(missing)
        return counts
