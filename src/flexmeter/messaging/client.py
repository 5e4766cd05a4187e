"""What the rest of the platform needs of a message transport, and nothing of how it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec


class Message(msgspec.Struct, eq=False):
    """A received message; `connection` and `packet_id` say what an acknowledgement refers to."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0
    connection: int = 0


Receiver = Callable[[list[Message]], None]


class Client(Protocol):
    """A connection to the broker; an async context manager.

    A client gets its messages either in batches through `receiver` or one by one through `messages`. A QoS 1
    message stays the broker's until it is acknowledged with `acknowledge`.
    """

    receiver: Receiver | None

    async def __aenter__(self) -> Self:
        """Connect; raise `BrokerError` if the broker cannot be reached or refuses."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect in order."""

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Subscribe now and after every reconnection; raise `AccessError` if refused."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait for the acknowledgement (QoS 1)."""

    async def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> asyncio.Future[None]:
        """Publish as soon as the window has room; the future is done at the acknowledgement."""

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Tell the broker that these messages are safe; they are joined into one write."""

    def messages(self) -> AsyncIterator[Message]:
        """Yield messages; asking for the next one acknowledges the one before."""


class Session(Protocol):
    """What an Event Source needs: messages in batches, manual acknowledgement, a brake."""

    receiver: Receiver | None
    redelivered: int

    @property
    def connected(self) -> bool:
        """Whether the session is up now."""

    async def __aenter__(self) -> Self:
        """Connect; raise `BrokerError` if the broker cannot be reached or refuses."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect in order."""

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Subscribe now and after every reconnection."""

    async def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> asyncio.Future[None]:
        """Publish as soon as there is room; the future is done at the acknowledgement."""

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Tell the broker that these messages are safe."""

    def pause(self) -> None:
        """Stop reading from the broker, which keeps what it has."""

    def resume(self) -> None:
        """Read again after `pause`."""


def matches(pattern: str | Sequence[str], topic: str) -> bool:
    """Tell whether a topic is covered by a filter with + and # (MQTT 3.1.1 section 4.7)."""
    want = pattern.split("/") if isinstance(pattern, str) else pattern
    have = topic.split("/")
    for place, part in enumerate(want):
        if part == "#":
            return True
        if place >= len(have) or part not in ("+", have[place]):
            return False
    return len(want) == len(have)
