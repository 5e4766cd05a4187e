"""Everything one run of the day leaves behind, as arrays: what summary, figures and report are made of.

`demo` and `day` fill the same record, so their results can be compared field by field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """One change of topology: the first minute under the new switch vector and the lines that moved."""

    minute: int
    opened: str
    closed: str


@dataclass(frozen=True)
class Tracked:
    """A quantity over the day: truth, estimate and its standard deviation, each (n, n_minute) in the same unit."""

    true: Floats
    estimate: Floats
    sigma: Floats

    @property
    def error(self) -> Floats:
        """Estimate minus truth."""
        return self.estimate - self.true

    @property
    def standardised(self) -> Floats:
        """(estimate - truth) / sigma, finite values only, flat."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.error / self.sigma
        return np.asarray(z[np.isfinite(z)])


@dataclass(frozen=True)
class Losses:
    """Losses of the MV lines per minute [kW], (n_minute,)."""

    meshed: Floats
    fixed: Floats
    reconfigured: Floats
    best_radial: Floats


@dataclass(frozen=True)
class Deviation:
    """Largest |V - nominal| over the MV buses and phases per minute [% of nominal], (n_minute,)."""

    meshed: Floats
    fixed: Floats
    reconfigured: Floats


@dataclass(frozen=True)
class Unmonitored:
    """An MV bus without monitored LV grid (paper Fig. 12): active power [kW] of all phases, each (n_minute,)."""

    bus: str
    true: Floats
    pseudo: Floats
    estimate: Floats
    sigma: Floats


@dataclass(frozen=True)
class Counts:
    """The life of the messages, reconciled: received = stored + duplicate + rejected + queued."""

    published: int = 0
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    queued: int = 0


@dataclass(frozen=True)
class Timing:
    """How long things took: latencies [ms] per kind, wall-clock and simulated seconds, memory [MB] per process."""

    latency_ms: dict[str, Floats] = field(default_factory=dict)
    wall_s: float = 0.0
    simulated_s: float = 0.0
    peak_rss_mb: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DayRecord:
    """The record of a run.

    `mv_voltage` is |V| of every MV bus and phase [V], (3 n_bus, n_minute), rows in the order of `mv_nodes`;
    `lv_voltage` is |V| of every LV feeder bus and phase; `substation_power` is the active power per phase at the
    head of the MV grid [W], (3, n_minute). `vectors` is the switch vector in force, (n_minute, n_switch).
    """

    grid_id: str
    seed: int
    customers: int
    minutes: int
    mv_nodes: tuple[tuple[str, str], ...]
    mv_nominal_v: float
    lv_nominal_v: float
    mv_voltage: Tracked
    lv_voltage: Tracked
    substation_power: Tracked
    vectors: NDArray[np.bool_]
    changes: tuple[Change, ...]
    losses: Losses
    deviation: Deviation
    reverse_flow: NDArray[np.bool_]
    unmonitored: Unmonitored | None = None
    counts: Counts | None = None
    rows_stored: int = 0
    timing: Timing = field(default_factory=Timing)
    out: Path | None = None


def runs(vectors: NDArray[np.bool_], longest: int) -> Iterator[tuple[range, tuple[bool, ...]]]:
    """Yield the stretches of minutes (from 0) under one switch vector, none longer than `longest`."""
    start = 0
    while start < len(vectors):
        stop = min(start + longest, len(vectors))
        changed = np.flatnonzero((vectors[start:stop] != vectors[start]).any(axis=1))
        stop = start + int(changed[0]) if changed.size else stop
        yield range(start, stop), tuple(bool(closed) for closed in vectors[start])
        start = stop


def changes_of(vectors: NDArray[np.bool_], switched: tuple[str, ...]) -> tuple[Change, ...]:
    """Return the changes in a sequence of switch vectors (n_minute, n_switch); minutes count from 1."""
    found = []
    for k in np.flatnonzero((vectors[1:] != vectors[:-1]).any(axis=1)):
        before, after = vectors[k], vectors[k + 1]
        opened = ",".join(switched[j] for j in np.flatnonzero(before & ~after))
        closed = ",".join(switched[j] for j in np.flatnonzero(~before & after))
        found.append(Change(int(k) + 2, opened, closed))
    return tuple(found)
