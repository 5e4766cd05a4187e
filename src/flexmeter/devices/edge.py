"""The runtime of an adapter on a concentrator or gateway: number, encode, spool, publish.

    adapter -> Measured -> outbox (on disk) -> MQTT, QoS 1 -> deleted when acknowledged

After an outage what is read now goes first; what waited follows at a limited rate and is marked late.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import msgspec

from flexmeter.devices.adapter import Adapter, Measured, Publisher
from flexmeter.devices.outbox import Outbox, Stored
from flexmeter.messages import Flag, Gap, Quality, Readings, decode_readings, encode_notice, encode_readings, topics
from flexmeter.messages.events import GapEvent, encode_event

log = logging.getLogger(__name__)

_TURN_S = 0.02
_MAX_PER_TURN = 200


class Edge:
    """Publishes what an adapter reads, without losing any of it.

    Parameters
    ----------
    tenant, name : of the device.
    adapter, outbox, publisher : what is read, where it waits, where it goes.
    now_ms : the device's clock [ms UTC].
    backfill_per_s : batches per second of what waited during an outage.
    late_after_s : what waited longer than this is marked late.
    """

    def __init__(
        self,
        tenant: str,
        name: str,
        adapter: Adapter,
        outbox: Outbox,
        publisher: Publisher,
        *,
        now_ms: Callable[[], int],
        backfill_per_s: float = 50.0,
        late_after_s: float = 60.0,
    ) -> None:
        self.acknowledged = 0
        self._tenant = tenant
        self._name = name
        self._adapter = adapter
        self._outbox = outbox
        self._publisher = publisher
        self._now_ms = now_ms
        self._backfill_per_s = backfill_per_s
        self._late_after_ms = int(late_after_s * 1000)
        self._topic = topics.readings(tenant, name)
        self._boot = outbox.new_boot(now_ms() // 1000)
        self._seq = 0
        self._connection = 0
        self._live_from = self._live_sent = self._filled_in = 0
        self._under_way: set[int] = set()
        self._allowance = 0.0
        self._done: list[Stored] = []
        self._reported: list[Gap] = []

    async def run(self) -> None:
        """Read and publish until the adapter ends and the outbox is empty."""
        reader = asyncio.create_task(self._read(), name=f"read {self._name}")
        try:
            while not reader.done() or self._outbox.count:
                await self._turn()
                await asyncio.sleep(_TURN_S)
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self) -> None:
        async for measured in self._adapter.measurements():
            self._keep(measured)

    def _keep(self, measured: Measured) -> None:
        """Put a batch on disk under its number."""
        roster = self._adapter.roster
        readings = Readings(
            self._name,
            self._boot,
            self._seq,
            measured.time_ms,
            measured.columns,
            measured.values,
            measured.meters,
            roster.hash if roster is not None and not measured.meters else "",
            measured.flags,
            measured.clock,
        )
        self._outbox.put(self._now_ms(), self._boot, [(self._seq, encode_readings(readings))])
        self._seq += 1

    async def _turn(self) -> None:
        """Delete what was acknowledged, then send what there is."""
        if self._done:
            done, self._done = self._done, []
            self._outbox.delete(done)
            self.acknowledged += len(done)
        if not self._publisher.connected:
            return
        if self._publisher.connections != self._connection:
            await self._begin_connection()
        await self._report_gaps()
        for one in self._outbox.between(self._live_sent, None, _MAX_PER_TURN):
            self._live_sent = one.id
            await self._send(one)
        self._allowance = min(self._allowance + self._backfill_per_s * _TURN_S, _MAX_PER_TURN)
        for one in self._outbox.between(self._filled_in, self._live_from, int(self._allowance)):
            self._filled_in = one.id
            if one.id not in self._under_way:
                self._allowance -= 1
                await self._send(one)

    async def _begin_connection(self) -> None:
        """Announce the roster; what lies in the outbox now is filled in beside what is read from now on.

        What is under way the transport sends again by itself.
        """
        self._connection = self._publisher.connections
        self._live_sent = self._outbox.last_id
        self._live_from = self._live_sent + 1
        self._filled_in = 0
        roster = self._adapter.roster
        if roster is not None:
            await self._publisher.send(topics.roster(self._tenant, self._name), encode_notice(roster), retain=True)

    async def _send(self, one: Stored) -> None:
        self._under_way.add(one.id)
        payload = one.payload
        if self._now_ms() - one.time_ms > self._late_after_ms:
            payload = mark_late(payload)
        future = await self._publisher.send(self._topic, payload)
        future.add_done_callback(partial(self._note, one))

    def _note(self, one: Stored, done: asyncio.Future[None]) -> None:
        self._under_way.discard(one.id)
        if not done.cancelled() and done.exception() is None:
            self._done.append(one)

    async def _report_gaps(self) -> None:
        for gap in self._outbox.gaps():
            if gap in self._reported:
                continue
            log.warning(
                "event=gap device=%s messages=%d first_seq=%d last_seq=%d reason=%s",
                self._name,
                gap.messages,
                gap.first_seq,
                gap.last_seq,
                gap.reason,
            )
            self._reported.append(gap)
            future = await self._publisher.send(topics.event(self._tenant, self._name), encode_event(GapEvent(gap=gap)))
            future.add_done_callback(partial(self._forget, gap))

    def _forget(self, gap: Gap, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._reported.remove(gap)
            self._outbox.forget([gap])


def mark_late(payload: bytes) -> bytes:
    """Return a batch of readings with all its values marked as late."""
    readings = decode_readings(payload)
    flags = (*readings.flags, Flag(int(Quality.LATE)))
    return encode_readings(msgspec.structs.replace(readings, flags=flags))
