"""A platform of its own for a test under load: files, processes, readiness, memory, and the account at the end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from flexmeter.app.addresses import api_address, broker_address
from flexmeter.app.backup import open_stores
from flexmeter.app.setup import set_up
from flexmeter.config import Config, read_config
from flexmeter.errors import ServiceError
from flexmeter.messaging import identity, open_authority
from flexmeter.pipeline.shared import STREAM as MQTT_STREAM
from flexmeter.pipeline.stream import STREAM as WINDOW_STREAM
from flexmeter.ports import free_ports
from flexmeter.registry import Device, open_registry
from flexmeter.storage import Selection, Span
from flexmeter.supervision import Child, Program, Supervisor, answers

Process = Literal["broker", "platform", "source", "supervisor"]
TENANT = "proof"
START_S = 60.0
AS_INSTALLED = {"PYTHONDONTWRITEBYTECODE": ""}
"""A restart must not compile every module anew, whatever the shell of a developer says."""


def prepare(folder: Path, devices: Sequence[str], changes: Mapping[str, str]) -> Config:
    """Make a platform's files in a folder, with free ports, its devices, and changed lines of the configuration."""
    set_up(folder, TENANT, devices[0])
    config = change(folder / "flexmeter.toml", changes)
    for tenant in config.tenants:
        add_devices(config, tenant, devices)
    return config


def change(file: Path, changes: Mapping[str, str]) -> Config:
    """Give a configuration file free ports and changed lines; return what it says then."""
    text = file.read_text()
    ports = free_ports(4)
    for section in ("[broker]\nhost = ", "[api]\nhost = "):
        assert section in text
    for key, port in zip(
        ("port = 8883", "client_port = 4222", "monitor_port = 8222", "port = 8443"), ports, strict=True
    ):
        text = text.replace(f"\n{key}", f"\n{key.split(' = ')[0]} = {port}", 1)
    for key, value in changes.items():
        old = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
        text = text.replace(old, f"{key} = {value}", 1)
    file.write_text(text)
    return read_config(file)


def add_devices(config: Config, tenant: str, devices: Sequence[str]) -> None:
    """Register devices of a tenant and give them certificates."""
    registry = open_registry(config.data_folder / "registry.sqlite")
    try:
        registry.tenants.add(tenant)
        registry.devices.add(tenant, [Device(name) for name in devices])
    finally:
        registry.close()
    authority = open_authority(config.data_folder / "certificates")
    for name in devices:
        authority.client(identity(tenant, name, "device"))


@dataclass
class Arena:
    """A running `flexmeter up` and what can be seen of it from outside."""

    config: Config
    up: Child
    peak_rss_mb: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        authority = self.config.data_folder / "certificates" / "ca.crt"
        self._trust = ssl.create_default_context(cafile=str(authority))
        self._token = (self.config.data_folder / f"{TENANT}.token").read_text().strip()

    def pid(self, process: Process) -> int:
        """Return the process id, 0 = not running now."""
        if process == "supervisor" or not self.up.pid:
            return self.up.pid
        word = "--config" if process == "broker" else process
        program = "nats-server" if process == "broker" else "python"
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.up.pid).children():
                command = child.cmdline()
                if command and program in Path(command[0]).name and word in command:  # empty = just dying
                    return int(child.pid)
        return 0

    async def ready(self) -> bool:
        """Tell whether the platform says that it is ready."""
        try:
            url = urlsplit(api_address(self.config).url)
        except ServiceError:
            return False
        return await answers(url.hostname or "", url.port or 0, "/readyz", self._trust)

    def note_memory(self) -> None:
        """Keep the highest memory of every process."""
        processes: tuple[Process, ...] = ("broker", "platform", "source", "supervisor")
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if pid := self.pid(process):
                    rss_mb = psutil.Process(pid).memory_info().rss / 1e6
                    self.peak_rss_mb[process] = max(rss_mb, self.peak_rss_mb.get(process, 0.0))

    def api(self) -> httpx.AsyncClient:
        """Return a session with the REST API, with a token for everything."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = api_address(self.config).url
        return httpx.AsyncClient(base_url=url, headers=headers, verify=self._trust, trust_env=False, timeout=10)

    async def metrics(self) -> dict[str, float]:
        """Return the platform's metrics by name and labels."""
        async with self.api() as client:
            text = (await client.get("/metrics")).raise_for_status().text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    async def waiting(self) -> int:
        """Return how many messages wait at the broker or in the platform."""
        address = broker_address(self.config)
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            url = f"http://{address.host}:{address.monitor_port}/jsz?consumers=true"
            details = (await client.get(url)).raise_for_status().json().get("account_details", [])
        waiting = sum(
            consumer["num_pending"] + consumer["num_ack_pending"]
            for account in details
            for stream in account.get("stream_detail", [])
            if stream["name"] in (MQTT_STREAM, WINDOW_STREAM)
            for consumer in stream.get("consumer_detail") or []
        )
        metrics = await self.metrics()
        queued = sum(value for name, value in metrics.items() if name.startswith("flexmeter_messages_queued"))
        return int(waiting + queued)

    async def drained(self) -> None:
        """Return when nothing waits any more; asked twice, since a message may move while the parts are asked."""
        empty = 0
        while empty < 2:
            with contextlib.suppress(httpx.HTTPError, ServiceError, KeyError, ValueError):
                empty = empty + 1 if await self.waiting() == 0 else 0
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[Arena]:
    """Run `flexmeter up` on a configuration, kept up by a supervisor of our own; it is stopped at the end."""
    async with Supervisor() as supervisor:
        file = config.folder / "flexmeter.toml"
        program = Program(
            "flexmeter up",
            [sys.executable, "-m", "flexmeter", "up", "--config", str(file)],
            config.folder / "up.log",
            environment=AS_INSTALLED,
            stop_s=30,
        )
        arena = Arena(config, await supervisor.start(program))
        async with asyncio.timeout(START_S):
            while not await arena.ready():
                if not arena.up.pid:
                    raise ServiceError(f"flexmeter up ended; see {program.log}")
                await asyncio.sleep(0.05)
        yield arena


def stored_times(config: Config, device: str, tenant: str = TENANT) -> tuple[NDArray[np.int64], int]:
    """Return the times [ms] at which one quantity of a device is stored, and how many rows are there twice.

    The platform must not run: the caller opens its database.
    """
    stores = open_stores(config)
    try:
        store = stores.store(tenant)
        chosen = Selection(sources=(device,), quantities=("voltage",))
        batches = store.readings(chosen, Span(0, 2**62))
        times = np.concatenate([np.empty(0, np.int64), *(batch.column("time_ms").to_numpy() for batch in batches)])
    finally:
        stores.close()
    distinct = np.unique(times)
    return distinct, int(times.size - distinct.size)


class Account(msgspec.Struct):
    """What was acknowledged and what of it is stored."""

    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    duplicated: int = 0

    def add(self, acknowledged: NDArray[np.int64], stored: NDArray[np.int64], duplicated: int) -> None:
        """Count one device."""
        self.acknowledged += acknowledged.size
        self.stored += stored.size
        self.lost += int(np.setdiff1d(acknowledged, stored).size)
        self.duplicated += duplicated
