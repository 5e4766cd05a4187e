"""A device on this machine: an adapter, its outbox and its MQTT session, run until the adapter ends."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from flexmeter.app.addresses import broker_address
from flexmeter.config import Config
from flexmeter.devices import Adapter, Edge, LinesAdapter, Measured, Outbox
from flexmeter.errors import InputError
from flexmeter.messages import COLUMNS, Roster
from flexmeter.messaging import Credential, Endpoint, MqttClient, identity, may_publish

TEST_START_MS = 1_763_834_400_000


class TestAdapter:
    """Test readings at a rate; the time of each is `TEST_START_MS` plus how many the outbox has ever held."""

    roster: Roster | None = None

    def __init__(self, outbox: Outbox, device: str, rate_per_s: float) -> None:
        self._outbox = outbox
        self._device = device
        self._rate_per_s = rate_per_s

    async def measurements(self) -> AsyncIterator[Measured]:
        """Yield readings of 230 V for ever; none at all at rate 0."""
        while self._rate_per_s:
            time_ms = TEST_START_MS + self._outbox.last_id
            values = np.array([[230.0]])
            yield Measured(time_ms, (COLUMNS["voltage.a"],), values, (self._device,), clock="simulated")
            await asyncio.sleep(1 / self._rate_per_s)


def outbox_path(config: Config, device: str) -> Path:
    """Return where the outbox of a device lies."""
    return config.data_folder / "outbox" / f"{device}.sqlite"


def device_client(
    config: Config, tenant: str, name: str, *, patience_s: float | None, window: int = 1000
) -> MqttClient:
    """Return the MQTT client of a device whose certificate lies with the platform's."""
    who = identity(tenant, name, "device")
    folder = config.data_folder / "certificates"
    credential = Credential(folder / f"{who.file_name}.crt", folder / f"{who.file_name}.key", folder / "ca.crt")
    address = broker_address(config)
    endpoint = Endpoint(address.host, address.port, credential.client_context())
    return MqttClient(endpoint, name, patience_s=patience_s, window=window, may_publish=may_publish(who))


async def run_edge(config: Config, tenant: str, device: str, test_rate_per_s: float | None) -> None:
    """Publish lines of JSON from stdin, or test readings; return when stdin ends and everything is acknowledged."""
    outbox = Outbox(outbox_path(config, device), device)
    adapter: Adapter
    try:
        if test_rate_per_s is None:
            adapter = LinesAdapter(await _stdin(), device, _now_ms)
        else:
            adapter = TestAdapter(outbox, device, test_rate_per_s)
        async with device_client(config, tenant, device, patience_s=None) as client:
            await Edge(tenant, device, adapter, outbox, client, now_ms=_now_ms).run()
    finally:
        outbox.close()


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    except ValueError:
        raise InputError(
            "edge: expected a pipe, terminal or socket as standard input, e.g. `producer | flexmeter edge`"
        ) from None
    return reader


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
