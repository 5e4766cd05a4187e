"""`flexmeter bench ingest`: a platform and its load on one machine, measured from the publisher to the database.

    load process (MQTT/TLS clients) -> broker -> store process -> DuckDB

Every case makes a platform of its own in a folder of its own. The load takes its share of the same processors.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec
import numpy as np
import psutil

from flexmeter.app.arena import TENANT, Arena, prepare, running
from flexmeter.app.edge import device_client
from flexmeter.app.load import Numbered, Packed, paced
from flexmeter.config import Config
from flexmeter.errors import InputError

DEVICES = 20
PACKED_WINDOW = 20
LATENCY_RATE_PER_S = 1000.0
CONNECTIONS = 1000


class Case(msgspec.Struct, frozen=True):
    """What is measured: how many devices, and the load."""

    devices: int
    measure: Callable[[Config, Arena, float], Awaitable[dict[str, object]]]


async def _single(config: Config, arena: Arena, seconds: float) -> dict[str, object]:
    """Measure single readings of three values, as fast as they are acknowledged and stored."""
    async with AsyncExitStack() as stack:
        devices = [await _numbered(config, name, stack) for name in names(DEVICES)]
        return await _closed_loop(arena, devices, 3, seconds)


async def _packed(config: Config, arena: Arena, seconds: float) -> dict[str, object]:
    """Measure batches of 100 meters with three values each."""
    async with AsyncExitStack() as stack:
        devices = []
        for name in names(DEVICES):
            client = device_client(config, TENANT, name, patience_s=10, window=PACKED_WINDOW)
            await stack.enter_async_context(client)
            devices.append(Packed(TENANT, name, client, int(time.time()), time.time_ns() // 1_000_000))
            await devices[-1].announce()
        return await _closed_loop(arena, devices, 300, seconds)


async def _latency(config: Config, arena: Arena, seconds: float) -> dict[str, object]:
    """Measure acknowledgement, and reading to answered query, at 1,000 readings per second."""
    async with AsyncExitStack() as stack:
        devices = [await _numbered(config, name, stack) for name in names(DEVICES)]
        probe = devices.pop()
        stop = asyncio.Event()
        load = asyncio.create_task(paced(devices, LATENCY_RATE_PER_S, stop))
        acknowledged, queried = [], []
        ends_s = time.monotonic() + seconds
        async with arena.api() as client:
            while time.monotonic() < ends_s:
                began_s = time.perf_counter()
                await (await probe.publish())
                acknowledged.append(time.perf_counter() - began_s)
                await _until_queried(client, probe)
                queried.append(time.perf_counter() - began_s)
        stop.set()
        await load
        await arena.drained()
        return {
            "messages_per_s": LATENCY_RATE_PER_S,
            "puback_ms": _milliseconds(acknowledged),
            "query_ms": _milliseconds(queried),
            "probes": len(queried),
        }


async def _until_queried(client: httpx.AsyncClient, probe: Numbered) -> None:
    """Ask for the newest reading until the last published one is there."""
    wanted = probe.start_ms + probe.published - 1
    query = {"device": probe.name, "quantity": "voltage", "format": "json"}
    while True:
        answer = (await client.get("/api/v1/readings/latest", params=query)).raise_for_status().json()
        if str(wanted) in str(answer):
            return
        await asyncio.sleep(0.002)  # asking without a pause would be a load of its own


async def _connections(config: Config, arena: Arena, _: float) -> dict[str, object]:
    """Measure memory per connected client, and how long all take to come back after the broker was killed."""
    empty = psutil.Process(arena.pid("broker")).memory_info().rss
    async with AsyncExitStack() as stack:
        clients = [device_client(config, TENANT, name, patience_s=30) for name in names(CONNECTIONS)]
        began_s = time.monotonic()
        for start in range(0, len(clients), 100):
            await asyncio.gather(*(stack.enter_async_context(one) for one in clients[start : start + 100]))
        connected_s = time.monotonic() - began_s
        full = psutil.Process(arena.pid("broker")).memory_info().rss
        os.kill(arena.pid("broker"), 9)
        began_s = time.monotonic()
        while not all(one.connections > 1 and one.connected for one in clients):
            await asyncio.sleep(0.05)
        back_s = time.monotonic() - began_s
    return {
        "connections": len(clients),
        "kb_per_connection": round((full - empty) / len(clients) / 1000, 1),
        "connect_s": round(connected_s, 1),
        "back_after_kill_s": round(back_s, 1),
    }


CASES: dict[str, Case] = {
    "single": Case(DEVICES, _single),
    "packed": Case(DEVICES, _packed),
    "latency": Case(DEVICES, _latency),
    "connections": Case(CONNECTIONS, _connections),
}


def run_case(name: str, folder: Path, seconds: float, sync: str) -> dict[str, object]:
    """Measure one case in an empty folder; return the fields of its JSON line."""
    import uvloop  # noqa: PLC0415  (only here)

    if name not in CASES:
        raise InputError(f"case {name!r}: expected one of {', '.join(CASES)}")
    return uvloop.run(_run(name, folder, seconds, sync))


def names(count: int) -> list[str]:
    """Return the names of the devices of a load."""
    return [f"dev-{number}" for number in range(count)]


async def _run(name: str, folder: Path, seconds: float, sync: str) -> dict[str, object]:
    case = CASES[name]
    changes = {"sync_interval": f'"{sync}"', "tenant_values_per_s": "100000000"}
    config = prepare(folder, names(case.devices), changes)
    async with running(config) as arena:
        await _warm_up(config, arena)
        before = _cpu_s(arena)
        result = await case.measure(config, arena, seconds)
        used = {process: round(after - before[process], 2) for process, after in _cpu_s(arena).items()}
        arena.note_memory()
    return {
        "bench": "ingest",
        "case": f"{name} qos1 tls, sync {sync}",
        **result,
        "cpu_s": used | {"load": round(time.process_time(), 2)},
        "peak_rss_mb": {process: round(rss) for process, rss in arena.peak_rss_mb.items()},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "note": f"load generator on the same machine; load average {os.getloadavg()[0]:.1f}",
    }


async def _warm_up(config: Config, arena: Arena) -> None:
    """Store one reading, so that nothing is loaded for the first time while it is measured."""
    async with AsyncExitStack() as stack:
        await (await (await _numbered(config, names(1)[0], stack)).publish())
        await arena.drained()


async def _numbered(config: Config, name: str, stack: AsyncExitStack) -> Numbered:
    client = device_client(config, TENANT, name, patience_s=10)
    await stack.enter_async_context(client)
    return Numbered(TENANT, name, client, int(time.time()), time.time_ns() // 1_000_000)


async def _closed_loop(
    arena: Arena, devices: Sequence[Numbered] | Sequence[Packed], values: int, seconds: float
) -> dict[str, object]:
    """Publish as fast as acknowledgements come, wait until everything is stored; the rate counts both times."""
    began_s = time.monotonic()
    lag: list[int] = []

    async def drive(device: Numbered | Packed) -> None:
        while time.monotonic() < began_s + seconds:
            last = await device.publish()
        await last

    async def watch() -> None:
        while True:
            await asyncio.sleep(seconds / 8)
            lag.append(await arena.waiting())

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(drive(device) for device in devices))
    published_s = time.monotonic() - began_s
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    await arena.drained()
    stored_s = time.monotonic() - began_s
    messages = sum(device.published for device in devices)
    return {
        "messages": messages,
        "published_per_s": round(messages / published_s),
        "messages_per_s": round(messages / stored_s),
        "values_per_s": round(messages * values / stored_s),
        "lag_messages": lag,
        "drain_s": round(stored_s - published_s, 2),
    }


def _cpu_s(arena: Arena) -> dict[str, float]:
    times = {}
    for process in ("broker", "platform"):
        used = psutil.Process(arena.pid(process)).cpu_times()
        times[process] = used.user + used.system
    return times


def _milliseconds(times_s: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times_s, [50, 99]) * 1000
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}
