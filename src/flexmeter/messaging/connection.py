"""One TCP connection of an MQTT session: bytes to packets and back, keep-alive, writes joined per turn of the loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, cast

from flexmeter.errors import BrokerError
from flexmeter.messaging import packets
from flexmeter.messaging.packets import Connack, Packet

log = logging.getLogger(__name__)


class Owner(Protocol):
    """The session that a connection works for."""

    client_id: str

    def accepted(self, connection: Connection) -> None:
        """Begin a new connection, before any message is handed on."""

    def received(self, batch: list[Packet]) -> None:
        """Take the packets of one read."""

    def lost(self, error: BrokerError) -> None:
        """Learn that the connection is gone."""


class Connection(asyncio.Protocol):
    """One TCP connection: joins writes of one loop turn, keeps alive, hands packets to the session."""

    def __init__(self, session: Owner, keepalive_s: int) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[int] = loop.create_future()
        self.closed: asyncio.Future[float] = loop.create_future()
        self.drained = asyncio.Event()
        self.drained.set()
        self._loop = loop
        self._session = session
        self._keepalive_s = keepalive_s
        self._parser = packets.Parser()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._started = self._heard = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._transport.set_write_buffer_limits(high=2**20)

    def data_received(self, data: bytes) -> None:
        """Hand on the packets that are complete (asyncio calls this)."""
        self._heard = self._loop.time()
        try:
            batch = self._parser.feed(data)
            if batch and not self.answer.done():
                self._begin(batch.pop(0))
            if batch:
                self._session.received(batch)
        except BrokerError as error:
            log.error("event=protocol_error client=%s error=%s", self._session.client_id, error)
            self.abort()

    def _begin(self, first: Packet) -> None:
        if not isinstance(first, Connack):
            raise BrokerError(f"expected CONNACK, got {type(first).__name__}")
        if first.code == 0:
            self._session.accepted(self)
            self._tick()
        self.answer.set_result(first.code)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the session and whoever waits (asyncio calls this)."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self.drained.set()
        reason = BrokerError(f"connection to the broker lost: {error or 'closed by the broker'}")
        if not self.answer.done():
            self.answer.set_exception(reason)
            self.answer.exception()  # nobody waits for it if the connection was lost before it was asked for
        self._session.lost(reason)
        if not self.closed.done():
            self.closed.set_result(self._loop.time() - self._started)

    def pause_writing(self) -> None:
        """Let senders wait (asyncio calls this)."""
        self.drained.clear()

    def resume_writing(self) -> None:
        """Let senders go on (asyncio calls this)."""
        self.drained.set()

    def write(self, data: bytes) -> None:
        """Send soon, together with whatever else this turn of the loop writes."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def pause(self) -> None:
        """Stop reading."""
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    async def leave(self) -> None:
        """Say goodbye and wait until the connection is gone."""
        if self._transport is None:
            return
        self._out.append(packets.DISCONNECT_BYTES)
        self._flush()
        self._transport.close()
        try:
            async with asyncio.timeout(2):
                await asyncio.shield(self.closed)
        except TimeoutError:
            self.abort()
            await self.closed

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _tick(self) -> None:
        """Ping every half keep-alive; give up a broker that was silent for one and a half."""
        if not self._paused and self._loop.time() - self._heard > 1.5 * self._keepalive_s:
            self.abort()
            return
        self.write(packets.PINGREQ_BYTES)
        self._timer = self._loop.call_later(self._keepalive_s / 2, self._tick)
