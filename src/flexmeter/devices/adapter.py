"""What a Device Integration Adapter is (paper section 3.1), and what the runtime needs of a transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from flexmeter.messages import Column, Flag, Roster
from flexmeter.messages.readings import Clock


class Measured(msgspec.Struct, frozen=True, eq=False):
    """What an adapter read at one instant, in SI units; the runtime adds who, which run and which number.

    `values` is (columns, meters) with nan = not read; the meters are those of `meters`, or of the adapter's roster.
    """

    time_ms: int
    columns: tuple[Column, ...]
    values: NDArray[np.float64]
    meters: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    clock: Clock = "real"


class Adapter(Protocol):
    """Reads meters of one protocol. An async context manager opens and closes whatever it reads from."""

    @property
    def roster(self) -> Roster | None:
        """The meters behind the device, None if batches list them."""

    def measurements(self) -> AsyncIterator[Measured]:
        """Yield what was read, in order of reading; end when there is nothing more to come."""


class Publisher(Protocol):
    """The part of an MQTT client that the runtime uses."""

    @property
    def connected(self) -> bool:
        """Whether the session is up now."""

    @property
    def connections(self) -> int:
        """How many connections there have been."""

    async def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> asyncio.Future[None]:
        """Publish as soon as the window has room; the future is done at the acknowledgement."""
