"""Load on a platform: devices with real MQTT/TLS sessions that publish numbered readings and keep count of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from flexmeter.messages import COLUMNS, Readings, Roster, RosterEntry, encode_notice, encode_readings, topics
from flexmeter.messages.readings import Clock
from flexmeter.messaging import MqttClient

SINGLE_COLUMNS = tuple(COLUMNS[name] for name in ("voltage.a", "active_power.a", "reactive_power.a"))
PACKED_COLUMNS = tuple(COLUMNS[name] for name in ("voltage", "active_power", "reactive_power"))
_LEAST_PAUSE_S = 0.005
_MADE_UP_S = 5.0
_GOLDEN = 0.618


@dataclass
class Numbered:
    """A device that publishes one JSON reading after the other, each at a time of its own.

    Attributes
    ----------
    published, acknowledged : how many readings went out, and which times [ms] the broker has acknowledged.
    shift_ms : error of the device's clock.
    """

    tenant: str
    name: str
    client: MqttClient
    boot: int
    start_ms: int
    clock: Clock = "simulated"
    published: int = 0
    shift_ms: int = 0
    acknowledged: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        values = np.array([[230.25], [512.5], [101.75]])
        example = Readings(self.name, self.boot, 0, 0, SINGLE_COLUMNS, values, meters=(self.name,), clock=self.clock)
        text = encode_readings(example, "json").decode()
        self._template = text.replace('"seq":0', '"seq":%d').replace('"time_ms":0', '"time_ms":%d')
        self._topic = topics.readings(self.tenant, self.name)

    async def publish(self) -> asyncio.Future[None]:
        """Publish the next reading; it is noted when it is acknowledged."""
        time_ms = self.start_ms + self.published + self.shift_ms
        payload = (self._template % (self.published, time_ms)).encode()
        self.published += 1
        done = await self.client.send(self._topic, payload)
        done.add_done_callback(partial(self._note, time_ms))
        return done

    def _note(self, time_ms: int, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is None:
            self.acknowledged.append(time_ms)


@dataclass
class Timed(Numbered):
    """Notes of every reading when it was published and how long its acknowledgement took [s, monotonic clock]."""

    waits_s: list[tuple[float, float]] = field(default_factory=list)

    async def publish(self) -> asyncio.Future[None]:
        """Publish the next reading."""
        sent_s = time.monotonic()
        done = await super().publish()
        done.add_done_callback(lambda _: self.waits_s.append((sent_s, time.monotonic() - sent_s)))
        return done


@dataclass
class Packed:
    """A concentrator that publishes CBOR batches of `meters` x 3 values under a roster."""

    tenant: str
    name: str
    client: MqttClient
    boot: int
    start_ms: int
    meters: int = 100
    published: int = 0

    def __post_init__(self) -> None:
        entries = tuple(RosterEntry(meter=f"{self.name}-{n}", phase="a") for n in range(self.meters))
        self._roster = Roster(source=self.name, entries=entries)
        rng = np.random.default_rng(self.boot)
        self._values = rng.uniform((225.0, 0.0, 0.0), (235.0, 3000.0, 600.0), (self.meters, 3)).T.round(2)
        self._topic = topics.readings(self.tenant, self.name)

    async def announce(self) -> None:
        """Publish the roster."""
        await self.client.publish(topics.roster(self.tenant, self.name), encode_notice(self._roster), retain=True)

    async def publish(self) -> asyncio.Future[None]:
        """Publish the next batch."""
        readings = Readings(
            self.name,
            self.boot,
            self.published,
            self.start_ms + self.published,
            PACKED_COLUMNS,
            self._values,
            roster=self._roster.hash,
            clock="simulated",
        )
        self.published += 1
        return await self.client.send(self._topic, encode_readings(readings))


Load = Sequence[Numbered | Packed]


async def paced(devices: Load, rate_per_s: float, stop: asyncio.Event) -> None:
    """Publish at a rate over all devices until told to stop; a stall is made up for, up to some seconds."""
    interval_s = len(devices) / rate_per_s
    await asyncio.gather(*(_pace(device, interval_s, place, stop) for place, device in enumerate(devices)))


async def _pace(device: Numbered | Packed, interval_s: float, place: int, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    pause_s = max(interval_s, _LEAST_PAUSE_S)
    next_s = loop.time() + pause_s * (place * _GOLDEN % 1)  # the devices do not all publish at once
    while not stop.is_set():
        now_s = loop.time()
        next_s = max(next_s, now_s - _MADE_UP_S)
        while next_s <= now_s:
            await device.publish()
            next_s += interval_s
        await asyncio.sleep(max(next_s - now_s, _LEAST_PAUSE_S))


async def unpaced(devices: Load, stop: asyncio.Event) -> None:
    """Publish as fast as acknowledgements come, until told to stop."""

    async def drive(device: Numbered | Packed) -> None:
        while not stop.is_set():
            await device.publish()

    await asyncio.gather(*map(drive, devices))


async def acknowledged(devices: Load) -> None:
    """Return when everything that was published is acknowledged."""
    while any(device.client.under_way for device in devices):
        await asyncio.sleep(0.01)
