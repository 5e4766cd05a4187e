"""The integrity check (paper section 3.2): a message in, numbers for the store or a reason for refusal out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import MessageError
from flexmeter.messages.codec import decode_estimate, decode_readings
from flexmeter.messages.notices import Reason, Roster
from flexmeter.messages.quantities import QUANTITIES, Quality
from flexmeter.messages.readings import Clock, Column, Readings
from flexmeter.messages.rows import SeriesKey
from flexmeter.messages.topics import Topic
from flexmeter.storage.base import estimate_source

Kind = Literal["readings", "estimates"]
Array = NDArray[np.float64]

_DAY_MS = 86_400_000
_EARLIEST_MS = 946_684_800_000  # 2000-01-01: before, a clock was never set
_LATEST_MS = 4_102_444_800_000  # 2100-01-01
_SIMULATED, _CLOCK_UNCERTAIN = int(Quality.SIMULATED), int(Quality.CLOCK_UNCERTAIN)
_FULL_SCALE = 1 + 1e-6  # float32 may round a limit upward


class Limits(msgspec.Struct, frozen=True):
    """What a message may be.

    A real clock may be `future_s` ahead of the platform's or the reading `past_days` old; from `doubt_s` ahead on,
    its values are marked `clock_uncertain`. Simulated clocks only have to lie between 2000 and 2100.
    """

    max_bytes: int = 2**20
    future_s: float = 7200.0
    doubt_s: float = 60.0
    past_days: float = 400.0


class Layout(msgspec.Struct, frozen=True, cache_hash=True):
    """Which series the values of a message belong to: the same for all messages of a device, mostly."""

    tenant: str
    source: str
    meters: tuple[str, ...]
    columns: tuple[Column, ...]
    phases: tuple[str, ...] = ()

    def keys(self) -> list[SeriesKey]:
        """Return the series of the values, in their order; a meter's own phase fills an empty one."""
        own = self.phases or ("",) * len(self.meters)
        return [
            SeriesKey(self.tenant, self.source, meter, column.quantity, column.phase or phase)
            for column in self.columns
            for meter, phase in zip(self.meters, own, strict=True)
        ]


class Checked(msgspec.Struct, eq=False):
    """A message that passed: flat values (nan = none), with sigma and quality bits where the message has them."""

    kind: Kind
    layout: Layout
    time_ms: int
    values: Array
    source: str
    boot: int
    seq: int
    sigma: Array | None = None
    quality_of_all: int = 0
    quality: NDArray[np.uint8] | None = None


class Refused(MessageError):
    """The message must not be stored; `reason` is what the device is told."""

    def __init__(
        self, reason: Reason, detail: str, source: str = "", boot: int | None = None, seq: int | None = None
    ) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.source = source
        self.boot = boot
        self.seq = seq


class UnknownRoster(Exception):
    """The batch refers to a roster that has not arrived."""


FindRoster = Callable[[str, str], Roster | None]


class IntegrityCheck:
    """Checks the messages of one tenant.

    Parameters
    ----------
    tenant : the tenant whose topics are checked.
    limits : sizes and times.
    find_roster : returns the roster of a source with a hash, None = not known.
    """

    def __init__(self, tenant: str, limits: Limits, find_roster: FindRoster) -> None:
        self.tenant = tenant
        self.limits = limits
        self._find_roster = find_roster
        self._layouts: dict[tuple[object, ...], Layout] = {}

    def __call__(self, topic: Topic, payload: bytes, now_ms: int) -> Checked:
        """Return what to store; raise `Refused` or `UnknownRoster`. A topic without device takes any source."""
        if topic.tenant != self.tenant:
            raise Refused("topic", f"topic of tenant {topic.tenant} on a connection of {self.tenant}")
        if len(payload) > self.limits.max_bytes:
            raise Refused("too_large", f"{len(payload)} bytes, expected at most {self.limits.max_bytes}", topic.device)
        try:
            return (
                self._readings(topic, payload, now_ms) if topic.kind == "readings" else self._estimate(topic, payload)
            )
        except Refused:
            raise
        except MessageError as error:
            raise Refused("format", str(error), topic.device) from None

    def _readings(self, topic: Topic, payload: bytes, now_ms: int) -> Checked:
        readings = decode_readings(payload)
        who = (readings.source, readings.boot, readings.seq)
        if topic.device and readings.source != topic.device:
            detail = f"source {readings.source!r} on the topic of device {topic.device!r}"
            raise Refused("source", detail, topic.device, readings.boot, readings.seq)
        doubt = self._check_time(readings.time_ms, readings.clock, now_ms, who)
        layout = self._layout(readings, who)
        _check_ranges(readings.columns, readings.values, who)
        for_all = _SIMULATED if readings.clock == "simulated" else _CLOCK_UNCERTAIN if doubt else 0
        some = readings.quality().ravel() if readings.flags else None
        return Checked("readings", layout, readings.time_ms, readings.values.ravel(), *who, None, for_all, some)

    def _estimate(self, topic: Topic, payload: bytes) -> Checked:
        estimate = decode_estimate(payload)
        who = (estimate.source, estimate.boot, estimate.seq)
        if (estimate.level, estimate.area) != (topic.level, topic.area):
            detail = f"estimate of {estimate.level}/{estimate.area} on the topic of {topic.level}/{topic.area}"
            raise Refused("topic", detail, *who)
        self._check_time(estimate.time_ms, "simulated", 0, who)
        _check_ranges(estimate.columns, estimate.values, who)
        key = (estimate.level, estimate.area, estimate.elements, estimate.columns)
        layout = self._layouts.get(key)
        if layout is None:
            source = estimate_source(estimate.level, estimate.area)
            layout = self._remember(key, Layout(self.tenant, source, estimate.elements, estimate.columns))
        return Checked("estimates", layout, estimate.time_ms, estimate.values.ravel(), *who, estimate.sigma.ravel())

    def _layout(self, readings: Readings, who: tuple[str, int, int]) -> Layout:
        key = (readings.source, readings.roster or readings.meters, readings.columns)
        layout = self._layouts.get(key)
        if layout is None:
            if not readings.roster:
                layout = Layout(self.tenant, readings.source, readings.meters, readings.columns)
            else:
                roster = self._find_roster(readings.source, readings.roster)
                if roster is None:
                    raise UnknownRoster
                phases = tuple(entry.phase for entry in roster.entries)
                layout = Layout(self.tenant, readings.source, roster.meters, readings.columns, phases)
            self._remember(key, layout)
        if readings.values.shape[1] != len(layout.meters):
            detail = f"{readings.values.shape[1]} values per column, but the roster lists {len(layout.meters)} meters"
            raise Refused("roster", detail, *who)
        return layout

    def _remember(self, key: tuple[object, ...], layout: Layout) -> Layout:
        if len(self._layouts) >= 200_000:
            self._layouts.clear()
        self._layouts[key] = layout
        return layout

    def _check_time(self, time_ms: int, clock: Clock, now_ms: int, who: tuple[str, int, int]) -> bool:
        """Return whether the clock is in doubt."""
        if not _EARLIEST_MS <= time_ms < _LATEST_MS:
            raise Refused("time", f"time_ms {time_ms}: expected a time from 2000 to 2100 in milliseconds", *who)
        if clock == "simulated":
            return False
        ahead_s = (time_ms - now_ms) / 1000
        if ahead_s > self.limits.future_s:
            detail = f"time_ms {time_ms} is {ahead_s:.0f} s ahead of the platform, at most {self.limits.future_s:g}"
            raise Refused("time", detail, *who)
        if -ahead_s * 1000 > self.limits.past_days * _DAY_MS:
            detail = f"time_ms {time_ms} is older than {self.limits.past_days:g} days"
            raise Refused("time", detail, *who)
        return ahead_s > self.limits.doubt_s


def _check_ranges(columns: tuple[Column, ...], values: Array, who: tuple[str, int, int]) -> None:
    """Refuse a message with a value out of its quantity's range, or with no value at all."""
    low, high = _bounds(columns)
    inside = (values >= low) & (values <= high)
    if np.count_nonzero(inside) == inside.size:
        return
    missing = np.isnan(values)
    wrong = np.argwhere(~inside & ~missing)
    if len(wrong):
        row, place = wrong[0]
        quantity = QUANTITIES[columns[row].quantity]
        detail = (
            f"{columns[row].name} {values[row, place]:g} {quantity.unit} at place {place}: "
            f"expected {quantity.lowest:g} to {quantity.highest:g}"
        )
        raise Refused("range", detail, *who)
    if missing.all():
        raise Refused("empty", "no value at all", *who)


@lru_cache(maxsize=10_000)
def _bounds(columns: tuple[Column, ...]) -> tuple[Array, Array]:
    quantities = [QUANTITIES[column.quantity] for column in columns]
    low = np.array([[quantity.lowest] for quantity in quantities])
    high = np.array([[quantity.highest] for quantity in quantities])
    return low * _FULL_SCALE, high * _FULL_SCALE
