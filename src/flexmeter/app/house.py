"""`flexmeter up`: broker and store process under one supervisor, with an eye on the disk.

Supervisor -> broker -> store process (Event Sources, databases, API)
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import ssl
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

from flexmeter.app.addresses import BrokerAddress, api_address, write_address
from flexmeter.app.identities import identities
from flexmeter.config import Config
from flexmeter.errors import InputError, ServiceError
from flexmeter.messaging import Broker, BrokerSettings, Cluster, Identity, open_authority
from flexmeter.registry import open_registry
from flexmeter.supervision import Program, Supervisor, answers

log = logging.getLogger(__name__)

DISK_CHECK_S = 1.0
_REOPEN_MARGIN = 100 * 2**20


async def run_house(config: Config, config_file: Path, announce: Callable[[str], None]) -> None:
    """Run the platform until cancelled; `announce` gets the address once it is ready."""
    only_one(config)
    authority = open_authority(config.data_folder / "certificates")
    known = known_clients(config)
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor())
        # A message that nobody has subscribed to is acknowledged and dropped: devices wait for the first Event Source.
        marker = _Marker(config)
        first = known if marker.fits() else [who for who in known if who.role == "platform"]
        broker = Broker(broker_settings(config), authority, supervisor, first)
        address = BrokerAddress(config.broker.host, *broker.choose_ports())
        write_address(config, address)
        trust = ssl.create_default_context(cafile=str(authority.certificate_file))
        try:
            async with asyncio.TaskGroup() as group:  # together: the store process takes its time to start
                group.create_task(stack.enter_async_context(broker))
                group.create_task(supervisor.start(store_program(config, config_file, trust)))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await broker.admit(known)
        marker.write()
        if config.ingest.mode == "stream":
            for number in range(1, config.ingest.sources + 1):
                await supervisor.start(source_program(config, config_file, number))
                stack.push_async_callback(supervisor.stop, f"source-{number}")
        stack.push_async_callback(supervisor.stop, "platform")  # before the broker, so that it can acknowledge
        announce(api_address(config).url)
        await guard_disk(config, broker)


def known_clients(config: Config) -> list[Identity]:
    """Return who may connect to the broker; tenants that are new in the configuration are registered."""
    registry = open_registry(config.data_folder / "registry.sqlite")
    try:
        for tenant in config.tenants:
            registry.tenants.add(tenant)
        return identities(config, registry)
    finally:
        registry.close()


class _Marker:
    """Notes for which tenants and which way of ingest the broker keeps messages already."""

    def __init__(self, config: Config) -> None:
        self._path = config.data_folder / "run" / "sessions"
        self._text = " ".join([config.ingest.mode, *sorted(config.tenants)])

    def fits(self) -> bool:
        """Tell whether that is so for this configuration."""
        return self._path.exists() and self._path.read_text() == self._text

    def write(self) -> None:
        """Note that it is so now."""
        self._path.write_text(self._text)


def broker_settings(config: Config) -> BrokerSettings:
    """Return how the broker of a platform runs."""
    cluster = config.cluster
    return BrokerSettings(
        folder=config.data_folder / "broker",
        port=config.broker.port,
        client_port=config.broker.client_port,
        monitor_port=config.broker.monitor_port,
        host=config.broker.host,
        sync_interval=config.broker.sync_interval,
        max_disk_bytes=int(config.broker.max_disk_gb * 2**30),
        tenant_disk_bytes=int(config.quota.tenant_disk_gb * 2**30),
        cluster=Cluster(cluster.name, cluster.port, cluster.routes) if cluster else None,
        node=cluster.node if cluster else "flexmeter",
    )


def store_program(config: Config, config_file: Path, trust: ssl.SSLContext) -> Program:
    """Return the store process; it is ready when `/readyz` says so."""

    async def ready() -> bool:
        try:
            url = urlsplit(api_address(config).url)
        except ServiceError:
            return False
        return await answers(url.hostname or "", url.port or 0, "/readyz", trust)

    command = [sys.executable, "-m", "flexmeter", "run", "platform", "--config", str(config_file)]
    return Program("platform", command, config.data_folder / "log" / "platform.log", ready=ready, start_s=60)


def source_program(config: Config, config_file: Path, number: int) -> Program:
    """Return one of the Event Source processes that feed the stream."""
    command = [sys.executable, "-m", "flexmeter", "run", "source", "--config", str(config_file)]
    command += ["--number", str(number)]
    name = f"source-{number}"
    return Program(name, command, config.data_folder / "log" / f"{name}.log")


async def guard_disk(config: Config, broker: Broker, interval_s: float = DISK_CHECK_S) -> None:
    """Stop the broker while the disk is nearly full: publishers keep what nobody acknowledged. Runs for ever."""
    least = config.data.min_free_mb * 2**20
    while True:
        free = shutil.disk_usage(config.data_folder).free
        if broker.accepting and free < least:
            log.error("event=disk_nearly_full free_mb=%d min_free_mb=%d broker=stopped", free >> 20, least >> 20)
            await broker.close_doors()
        elif not broker.accepting and free > least + min(_REOPEN_MARGIN, least // 5):
            log.warning("event=disk_free_again free_mb=%d broker=started", free >> 20)
            await broker.open_doors()
        await asyncio.sleep(interval_s)


def only_one(config: Config) -> None:
    """Make sure that no second platform runs on the same data."""
    path = config.data_folder / "run" / "up.pid"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        other = int(path.read_text())
        os.kill(other, 0)
    except (OSError, ValueError):
        path.write_text(str(os.getpid()))
        return
    if other != os.getpid() and "flexmeter" in _command(other):
        raise InputError(f"{config.data_folder}: process {other} already runs a platform on this data")
    path.write_text(str(os.getpid()))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
