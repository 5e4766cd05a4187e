"""Quotas: how much a tenant may store per second, and how many messages one device may send."""

from __future__ import annotations

import msgspec

_MAX_DEVICES = 200_000


class Quota(msgspec.Struct, frozen=True):
    """Limits of a tenant; 0 = no limit.

    What exceeds `values_per_s` waits, at the broker in the end. What exceeds `device_messages_per_s` (bursts of ten
    seconds' worth are let through) is refused with the reason `quota` and lies in the dead letters.
    """

    values_per_s: float = 0.0
    device_messages_per_s: float = 0.0


class Bucket:
    """A token bucket: `rate` per second, at most `burst` saved up; taking may go into debt, to be waited for."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._updated_s = 0.0

    def level(self, now_s: float) -> float:
        """Return what may be taken now; negative = in debt."""
        self._level = min(self._burst, self._level + (now_s - self._updated_s) * self._rate)
        self._updated_s = now_s
        return self._level

    def take(self, amount: float) -> None:
        """Take, whether there is enough or not."""
        self._level -= amount

    def wait_s(self, now_s: float) -> float:
        """Return how long until the debt is paid."""
        return max(0.0, -self.level(now_s) / self._rate)


class DeviceQuota:
    """Counts the messages of every device."""

    def __init__(self, messages_per_s: float) -> None:
        self._rate = messages_per_s
        self._buckets: dict[str, Bucket] = {}

    def allows(self, device: str, now_s: float) -> bool:
        """Return whether the device may send one more message, and count it if so."""
        if not self._rate:
            return True
        bucket = self._buckets.get(device)
        if bucket is None:
            if len(self._buckets) >= _MAX_DEVICES:
                self._buckets.clear()
            bucket = self._buckets[device] = Bucket(self._rate, 10 * self._rate)
        if bucket.level(now_s) < 1:
            return False
        bucket.take(1)
        return True
