"""A session that several Event Sources share: each message of the tenant goes to one of them.

MQTT 3.1.1 on this broker has no shared subscriptions. Its QoS 1 messages lie on the stream `$MQTT_msgs`, though, and
are acknowledged to the publisher once they do; a durable pull consumer there is shared by all who fetch from it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from flexmeter.messaging.broker import MAX_UNACKNOWLEDGED
from flexmeter.messaging.client import Message, Receiver
from flexmeter.messaging.identity import to_subject
from flexmeter.messaging.mqtt import MqttClient

log = logging.getLogger(__name__)

STREAM = "$MQTT_msgs"
ACK_WAIT_S = 5.0
_FETCH = 1000
_PREFIX = "$MQTT.msgs."


async def ensure_consumer(jetstream: JetStreamContext, pattern: str) -> str:
    """Make the shared consumer of an MQTT filter if it is not there; return its name.

    From then on the broker keeps every matching message until one of the sources has acknowledged it.
    """
    durable = "sources-" + "".join(sign if sign.isalnum() else "-" for sign in pattern)
    config = ConsumerConfig(
        durable_name=durable,
        filter_subject=_PREFIX + to_subject(pattern),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=MAX_UNACKNOWLEDGED,
    )
    await jetstream.add_consumer(STREAM, config)
    return durable


class SharedSession:
    """The part of an MQTT client that an Event Source uses; QoS 1 filters become shared consumers.

    Parameters
    ----------
    mqtt : a session of this process alone, for retained rosters and error notes.
    jetstream : of a connection of the tenant's platform identity.
    """

    def __init__(self, mqtt: MqttClient, jetstream: JetStreamContext) -> None:
        self.receiver: Receiver | None = None
        self.redelivered = 0
        self._mqtt = mqtt
        self._jetstream = jetstream
        self._held: dict[int, Msg] = {}
        self._next_id = 0
        self._reading = asyncio.Event()
        self._reading.set()
        self._settled: asyncio.Queue[Msg] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> bool:
        """Whether the session is up now."""
        return self._mqtt.connected

    async def __aenter__(self) -> Self:
        """Connect."""
        self._mqtt.receiver = self.receiver
        await self._mqtt.__aenter__()
        self._tasks.append(asyncio.create_task(self._acknowledge_settled(), name="shared acknowledgements"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Acknowledge what is settled and leave; what is not settled goes to others."""
        while not self._settled.empty():
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._mqtt.__aexit__(kind, error, trace)

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Join a shared consumer per filter; with QoS 0 subscribe alone.

        One consumer for two filters would cost the broker 2.6 times as much.
        """
        if not qos:
            await self._mqtt.subscribe(*filters, qos=0)
            return
        for pattern in filters:
            durable = await ensure_consumer(self._jetstream, pattern)
            subscription = await self._jetstream.pull_subscribe_bind(durable, STREAM)
            self._tasks.append(asyncio.create_task(self._fetch(subscription), name=durable))

    async def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> asyncio.Future[None]:
        """Publish by MQTT."""
        return await self._mqtt.send(topic, payload, qos=qos, retain=retain)

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Let go of messages that are durable."""
        for message in messages:
            held = self._held.pop(message.packet_id, None)
            if held is not None:
                self._settled.put_nowait(held)

    def pause(self) -> None:
        """Stop fetching."""
        self._reading.clear()

    def resume(self) -> None:
        """Fetch again."""
        self._reading.set()

    async def _fetch(self, subscription: JetStreamContext.PullSubscription) -> None:
        while True:
            await self._reading.wait()
            try:
                fetched = await subscription.fetch(_FETCH, timeout=1.0)
            except (TimeoutError, nats.errors.Error):
                continue
            if fetched and self.receiver is not None:
                self.receiver([self._message(one) for one in fetched])

    def _message(self, one: Msg) -> Message:
        self._next_id += 1
        self._held[self._next_id] = one
        topic = one.subject.removeprefix(_PREFIX).replace(".", "/")
        return Message(topic, one.data, 1, packet_id=self._next_id)

    async def _acknowledge_settled(self) -> None:
        while True:
            message = await self._settled.get()
            try:
                await message.ack()
            except nats.errors.Error as error:
                log.warning("event=ack_failed error=%s", error)  # delivered again, found to be a duplicate
