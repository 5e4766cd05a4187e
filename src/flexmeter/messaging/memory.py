"""An in-memory transport with the interface of the MQTT client, for tests without a broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from flexmeter.messaging.client import Message, Receiver, matches


class MemoryBroker:
    """Routes messages between its clients, keeps retained ones and lets QoS 1 messages wait for their ack."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.published: list[Message] = []
        self._clients: list[MemoryClient] = []

    def client(self) -> MemoryClient:
        """Return a new client of this broker."""
        return MemoryClient(self)

    def route(self, message: Message) -> None:
        """Deliver a message to every client with a filter that covers its topic."""
        self.published.append(message)
        if message.retain:
            self.retained[message.topic] = message.payload
        for client in self._clients:
            if any(matches(pattern, message.topic) for pattern in client.filters):
                client.deliver(message.topic, message.payload, message.qos)

    def join(self, client: MemoryClient) -> None:
        """Let a client take part."""
        self._clients.append(client)

    def leave(self, client: MemoryClient) -> None:
        """Forget a client."""
        self._clients.remove(client)


class MemoryClient:
    """A client of a `MemoryBroker`; see `client.Client` for the interface."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.receiver: Receiver | None = None
        self.filters: list[str] = []
        self.unacknowledged: dict[int, Message] = {}
        self._broker = broker
        self._next_id = 0
        self._queue: deque[Message] = deque()
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Join the broker."""
        self._broker.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the broker."""
        self._broker.leave(self)

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Subscribe; retained messages arrive at once."""
        self.filters += filters
        for topic, payload in self._broker.retained.items():
            if any(matches(pattern, topic) for pattern in filters):
                self.deliver(topic, payload, qos, retain=True)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish; the message is delivered before this returns."""
        self._broker.route(Message(topic, payload, qos, retain))

    async def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> asyncio.Future[None]:
        """Publish; the future is done already."""
        await self.publish(topic, payload, qos=qos, retain=retain)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Drop messages from `unacknowledged`."""
        for message in messages:
            self.unacknowledged.pop(message.packet_id, None)

    def redeliver(self) -> None:
        """Deliver everything unacknowledged again, as a broker does after a lost connection."""
        waiting, self.unacknowledged = list(self.unacknowledged.values()), {}
        for message in waiting:
            self.deliver(message.topic, message.payload, message.qos, duplicate=True)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield messages; asking for the next one acknowledges the one before."""
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            message = self._queue.popleft()
            yield message
            self.acknowledge((message,))

    def deliver(self, topic: str, payload: bytes, qos: int, *, retain: bool = False, duplicate: bool = False) -> None:
        """Receive a message: what the broker calls."""
        message = Message(topic, payload, qos, retain, duplicate)
        if qos:
            self._next_id += 1
            message.packet_id = self._next_id
            self.unacknowledged[message.packet_id] = message
        if self.receiver is not None:
            self.receiver([message])
        else:
            self._queue.append(message)
            self._arrived.set()
