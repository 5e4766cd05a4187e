"""`flexmeter chaos --cluster`: three broker nodes on one machine, the leading one killed again and again in mid-stream.

node-1: `flexmeter up`      node-2, node-3: `flexmeter run broker`
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import numpy as np
import psutil

from flexmeter.app.addresses import broker_address
from flexmeter.app.arena import AS_INSTALLED, TENANT, Account, Arena, change, prepare, running, stored_times
from flexmeter.app.edge import device_client
from flexmeter.app.load import Numbered, acknowledged, paced
from flexmeter.config import Config, read_config, write_config
from flexmeter.errors import ServiceError
from flexmeter.pipeline.shared import STREAM
from flexmeter.ports import free_ports
from flexmeter.supervision import Child, Program, Supervisor

NODES = ("node-1", "node-2", "node-3")
PATIENCE_S = 120.0


class Trio:
    """Three running nodes; `up` are their supervising processes, in the order of `NODES`."""

    def __init__(self, configs: Sequence[Config], up: Sequence[Child]) -> None:
        self.configs = configs
        self.up = up

    async def leader(self) -> int:
        """Return which node leads the tenant's messages now."""
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while True:
                for config in self.configs:
                    address = broker_address(config)
                    url = f"http://{address.host}:{address.monitor_port}/jsz?streams=true"
                    try:
                        accounts = (await client.get(url)).raise_for_status().json().get("account_details") or []
                    except (httpx.HTTPError, ValueError):
                        continue
                    for account in accounts:
                        for stream in account.get("stream_detail") or []:
                            leader = stream.get("cluster", {}).get("leader")
                            if account["name"] == TENANT and stream["name"] == STREAM and leader in NODES:
                                return NODES.index(leader)
                await asyncio.sleep(0.1)

    def broker_pid(self, node: int) -> int:
        """Return the process id of a node's broker, 0 = not running now."""
        for child in psutil.Process(self.up[node].pid).children():
            if child.name() == "nats-server" and child.status() != psutil.STATUS_ZOMBIE:
                return int(child.pid)
        return 0


async def kill_leaders(
    kills: int,
    rate_per_s: float,
    folder: Path,
    *,
    seed: int,
    changes: Mapping[str, str],
    progress: Callable[[str], None],
) -> tuple[Account, list[float], float]:
    """Return the account, the recovery times [s] and the time to drain [s]; `changes` are of the configuration."""
    configs = _prepare(folder, changes)
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor())
        others = [await supervisor.start(_program(config)) for config in configs[1:]]
        arena = await stack.enter_async_context(running(configs[0]))
        trio = Trio(configs, [arena.up, *others])
        start_ms = time.time_ns() // 1_000_000
        devices = [
            Numbered(
                TENANT,
                name,
                await stack.enter_async_context(device_client(config, TENANT, name, patience_s=PATIENCE_S)),
                boot=start_ms // 1000,
                start_ms=start_ms,
                clock="real",
            )
            for name, config in zip(_devices(), configs, strict=True)
        ]
        stop = asyncio.Event()
        load = asyncio.create_task(paced(devices, rate_per_s, stop))
        recoveries = []
        pauses = random.Random(seed)
        for number in range(kills):
            await asyncio.sleep(pauses.uniform(2.0, 3.0))
            recoveries.append(await _kill_leader(trio, devices))
            progress(f"{number + 1} kill leader: {sum(len(one.acknowledged) for one in devices)} readings acknowledged")
        stop.set()
        await load
        drained_s = time.monotonic()
        await acknowledged(devices)
        await _stored(arena, sum(len(device.acknowledged) for device in devices))
        drain_s = time.monotonic() - drained_s
    account = Account()
    for device in devices:
        account.add(np.array(device.acknowledged, np.int64), *stored_times(configs[0], device.name))
    return account, recoveries, drain_s


async def _kill_leader(trio: Trio, devices: Sequence[Numbered]) -> float:
    """Kill the leading broker; return how long until it runs again and every device's reading is acknowledged."""
    node = await trio.leader()
    pid = trio.broker_pid(node)
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*[await device.publish() for device in devices])
        while trio.broker_pid(node) in (0, pid):
            await asyncio.sleep(0.01)
    return time.monotonic() - began_s


async def _stored(arena: Arena, messages: int) -> None:
    """Return when the platform has stored so many messages."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(httpx.HTTPError):  # busy: asked again
                metrics = await arena.metrics()
                if metrics.get(f'flexmeter_messages_total{{tenant="{TENANT}",state="stored"}}', 0) >= messages:
                    return
            await asyncio.sleep(0.2)


def _devices() -> list[str]:
    return [f"dev-{number}" for number in range(len(NODES))]


def _prepare(folder: Path, changes: Mapping[str, str]) -> list[Config]:
    """Make the files of three nodes; the second and third get authority and registry of the first."""
    ports = free_ports(len(NODES))
    routes = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    configs: list[Config] = []
    for name, port in zip(NODES, ports, strict=True):
        file = folder / name / "flexmeter.toml"
        if not configs:
            prepare(file.parent, _devices(), changes)
        else:
            file.parent.mkdir()
            write_config(file, TENANT)
            change(file, changes)
            data = file.parent / "data"
            shutil.copytree(configs[0].data_folder / "certificates", data / "certificates")
            shutil.copy(configs[0].data_folder / "registry.sqlite", data)
        with file.open("a") as text:
            text.write(f'\n[cluster]\nnode = "{name}"\nport = {port}\nroutes = [{routes}]\n')
        configs.append(read_config(file))
    return configs


def _program(config: Config) -> Program:
    """Return a node without platform; that it is ready shows only when the others are there."""
    if config.cluster is None:
        raise ServiceError("expected a node of a cluster")
    command = [sys.executable, "-m", "flexmeter", "run", "broker", "--config", str(config.folder / "flexmeter.toml")]
    return Program(config.cluster.node, command, config.folder / "node.log", environment=AS_INSTALLED)
