"""A small MQTT 3.1.1 client over TLS for asyncio: QoS 0 and 1, manual and batched acknowledgement.

    Connection (connection.py: bytes <-> packets)  <-  MqttClient (session: window, resending, subscriptions)

Unacknowledged publishes survive a lost connection and are sent again. Received messages can only be acknowledged
on the connection they came by: the broker may give their packet ids to other messages after a reconnection, and
delivers them again anyway.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flexmeter.errors import AccessError, BrokerError
from flexmeter.messaging import packets
from flexmeter.messaging.client import Message, Receiver
from flexmeter.messaging.connection import Connection
from flexmeter.messaging.packets import Packet, Pingresp, Puback, Publish, Suback, Unsuback
from flexmeter.messaging.rights import Rights
from flexmeter.messaging.window import Window

log = logging.getLogger(__name__)

_REFUSALS = {
    1: "does not speak MQTT 3.1.1",
    2: "refuses the client id",
    3: "is not available",
    4: "refuses the credentials",
    5: "does not authorise this client",
}
_REFUSED = 0x80
_MAX_QUEUED_MESSAGES = 10_000
_MAX_QUEUED_BYTES = 64 * 2**20
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 2.0
_STEADY_S = 1.0
_CONNECT_TIMEOUT_S = 60.0


@dataclass(slots=True)
class _Flying:
    """A publish that is not acknowledged, and when it was last sent."""

    message: Publish
    done: asyncio.Future[None]
    sent_s: float = 0.0


@dataclass(frozen=True)
class Endpoint:
    """Where a broker listens, and the TLS context to meet it with (None = plain, tests only)."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class MqttClient:
    """One MQTT session; see `client.Client` for the interface.

    Parameters
    ----------
    endpoint : the broker.
    client_id : unique in the tenant; a second connection with the same id takes the session over.
    clean : False keeps session and undelivered messages at the broker while the client is away.
    will : published by the broker if the client vanishes.
    keepalive_s : the broker hears from the client, and the client from the broker, at least this often.
    window : unacknowledged publishes at most; how many of them are sent at once follows from the broker's answers.
    patience_s : how long the first connection may be tried again before `BrokerError` is raised; None = enter at once
        and connect in the background, however long that takes.
    may_publish : filters of the topics the broker lets this client publish to, see `rights`.
    rng : jitter of reconnection delays.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        client_id: str,
        *,
        clean: bool = True,
        will: Publish | None = None,
        keepalive_s: int = 30,
        window: int = 1000,
        patience_s: float | None = 0.0,
        may_publish: Sequence[str] = ("#",),
        rng: random.Random | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.client_id = client_id
        self.receiver: Receiver | None = None
        self.connections = 0
        self.redelivered = 0
        self._connect_packet = packets.connect(client_id, clean, keepalive_s, will)
        self._keepalive_s = keepalive_s
        self._room = asyncio.Semaphore(window)
        self._most = window
        self._window = Window(window)
        self._patience_s = patience_s
        self._rights = Rights(client_id, may_publish)
        self._rng = rng or random.Random()
        self._filters: dict[str, int] = {}
        self._next_id = 0
        self._flying: dict[int, _Flying] = {}
        self._unsent: deque[int] = deque()
        self._outstanding = 0
        self._requests: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        self._held: set[int] = set()
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._connected = asyncio.Event()
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the session is up now."""
        return self._connected.is_set()

    @property
    def under_way(self) -> int:
        """How many publishes wait for their acknowledgement."""
        return len(self._flying)

    async def __aenter__(self) -> Self:
        """Connect, then keep the connection up in the background."""
        if self._patience_s is not None:
            await self._first_connection(self._patience_s)
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"mqtt {self.client_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect in order; publishes that nobody acknowledged fail with `BrokerError`."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._connection is not None:
            await self._connection.leave()
        self._abandon(BrokerError(f"{self.client_id}: disconnected before the broker acknowledged"))

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Subscribe now and after every reconnection; raise `AccessError` if the broker refuses a filter."""
        wanted = dict.fromkeys(filters, qos)
        while True:
            await self._connected.wait()
            try:
                await self._subscribe(wanted)
            except BrokerError as error:
                log.warning("event=subscribe_again client=%s error=%s", self.client_id, error)
                await asyncio.sleep(_FIRST_DELAY_S)
            else:
                self._filters |= wanted
                return

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait for the acknowledgement (QoS 1), through reconnections if need be."""
        await (await self.send(topic, payload, qos=qos, retain=retain))

    async def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> asyncio.Future[None]:
        """Publish as soon as the window has room; the future is done at the acknowledgement."""
        self._rights.check(topic)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if qos == 0:
            await self._connected.wait()
            self._write(packets.publish(Publish(topic, payload, 0, retain)))
            done.set_result(None)
            return done
        await self._room.acquire()
        message = Publish(topic, payload, 1, retain, False, self._take_id())
        self._flying[message.packet_id] = _Flying(message, done)
        self._unsent.append(message.packet_id)
        self._pump()
        if self._connection is not None and not self._connection.drained.is_set():
            await self._connection.drained.wait()
        return done

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Acknowledge QoS 1 messages of the present connection; older ones the broker delivers again."""
        held = self._held
        ids = [m.packet_id for m in messages if m.connection == self.connections and m.packet_id in held]
        if ids:
            held.difference_update(ids)
            self._write(packets.pubacks(ids))

    async def messages(self) -> AsyncIterator[Message]:
        """Yield messages; asking for the next one acknowledges the one before."""
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            message = self._queue.popleft()
            self._queued_bytes -= len(message.payload)
            if len(self._queue) < _MAX_QUEUED_MESSAGES // 2 and self._queued_bytes < _MAX_QUEUED_BYTES // 2:
                self.resume()
            yield message
            self.acknowledge((message,))

    def pause(self) -> None:
        """Stop reading from the broker, which keeps what it has."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read again after `pause`."""
        if self._connection is not None:
            self._connection.resume()

    def received(self, batch: list[Packet]) -> None:
        """Take the packets of one read: what the connection calls."""
        messages: list[Message] = []
        for packet in batch:
            if type(packet) is Publish:
                self._take_message(packet, messages)
            elif type(packet) is Puback:
                self._take_puback(packet.packet_id)
            elif isinstance(packet, Suback | Unsuback):
                request = self._requests.pop(packet.packet_id, None)
                if request is not None and not request.done():
                    request.set_result(packet.codes if isinstance(packet, Suback) else ())
            elif not isinstance(packet, Pingresp):
                raise BrokerError(f"unexpected packet {packet!r}")
        if messages:
            self._hand_on(messages)

    def _take_puback(self, packet_id: int) -> None:
        flying = self._flying.pop(packet_id, None)
        if flying is None:
            return
        self._room.release()
        self._outstanding -= 1
        self._window.answered(flying.sent_s, asyncio.get_running_loop().time())
        if not flying.done.done():
            flying.done.set_result(None)
        if self._unsent:
            self._pump()

    def _pump(self) -> None:
        """Send what waits, as far as the window of this connection goes."""
        if not self._connected.is_set():
            return
        now_s = asyncio.get_running_loop().time()
        while self._unsent and self._outstanding < self._window.limit:
            flying = self._flying[self._unsent.popleft()]
            self._write(packets.publish(flying.message))
            flying.message.duplicate = True  # should it have to be sent again
            flying.sent_s = now_s
            self._outstanding += 1

    def _take_message(self, packet: Publish, messages: list[Message]) -> None:
        if packet.qos:
            if packet.packet_id in self._held:
                self.redelivered += 1
                return
            self._held.add(packet.packet_id)
        messages.append(
            Message(
                packet.topic,
                packet.payload,
                packet.qos,
                packet.retain,
                packet.duplicate,
                packet.packet_id,
                self.connections,
            )
        )

    def _hand_on(self, messages: list[Message]) -> None:
        if self.receiver is not None:
            self.receiver(messages)
            return
        self._queue += messages
        self._queued_bytes += sum(len(message.payload) for message in messages)
        self._arrived.set()
        if len(self._queue) > _MAX_QUEUED_MESSAGES or self._queued_bytes > _MAX_QUEUED_BYTES:
            self.pause()

    async def _first_connection(self, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while True:
            try:
                await self._connect()
            except BrokerError:
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(_FIRST_DELAY_S)
            else:
                return

    async def _keep_connected(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            if self._connection is not None:
                lasted_s = await asyncio.shield(self._connection.closed)
                self._connected.clear()
                log.warning("event=disconnected client=%s after_s=%.1f", self.client_id, lasted_s)
                delay_s = _FIRST_DELAY_S if lasted_s > _STEADY_S else min(2 * delay_s, _LAST_DELAY_S)
                self._connection = None
            await asyncio.sleep(delay_s * self._rng.uniform(0.5, 1.0))
            try:
                await self._connect()
            except (BrokerError, AccessError) as error:
                delay_s = min(2 * delay_s, _LAST_DELAY_S)
                log.warning("event=reconnect_failed client=%s error=%s", self.client_id, error)

    async def _connect(self) -> None:
        """Open a connection, subscribe again and resend what is under way."""
        await self._open()
        if self._filters:
            await self._subscribe(self._filters)
        self._window = Window(self._most, careful=self._outstanding > 0)
        self._unsent = deque(self._flying)
        self._outstanding = 0
        self._connected.set()
        self._pump()

    async def _open(self) -> None:
        where = f"broker {self.endpoint.host}:{self.endpoint.port}"
        connection = Connection(self, self._keepalive_s)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection,
                    self.endpoint.host,
                    self.endpoint.port,
                    ssl=self.endpoint.tls,
                    server_hostname=self.endpoint.host if self.endpoint.tls else None,
                )
                connection.write(self._connect_packet)
                code = await connection.answer
        except TimeoutError:
            raise BrokerError(f"{where} does not answer") from None
        except OSError as error:
            raise BrokerError(f"{where}: {error.strerror or error}") from error
        finally:
            if connection is not self._connection:
                connection.abort()
        if code:
            raise BrokerError(f"{where} {_REFUSALS.get(code, f'refuses with code {code}')}")

    def accepted(self, connection: Connection) -> None:
        """Begin a new connection: what the connection calls before it hands on any message."""
        self.connections += 1
        self._held.clear()
        self._connection = connection

    async def _subscribe(self, filters: dict[str, int]) -> None:
        packet_id = self._take_id()
        answer: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        self._requests[packet_id] = answer
        self._write(packets.subscribe(packet_id, list(filters.items())))
        codes = await answer
        refused = [topic for topic, code in zip(filters, codes, strict=False) if code == _REFUSED]
        if refused or len(codes) != len(filters):
            raise AccessError(f"{self.client_id}: the broker refuses to subscribe to {', '.join(refused)}")

    def _take_id(self) -> int:
        while True:
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in self._flying and self._next_id not in self._requests:
                return self._next_id

    def _write(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.write(data)

    def lost(self, error: BrokerError) -> None:
        """Fail what only the lost connection could answer: what the connection calls."""
        requests, self._requests = self._requests, {}
        for request in requests.values():
            if not request.done():
                request.set_exception(error)
                request.exception()

    def _abandon(self, error: BrokerError) -> None:
        self.lost(error)
        for flying in self._flying.values():
            if not flying.done.done():
                flying.done.set_exception(error)
                flying.done.exception()
        self._flying.clear()
