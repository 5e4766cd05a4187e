"""`flexmeter bench ingest`: a platform and its load on one machine, measured from the publisher to the database.

    load process (MQTT/TLS clients) -> broker -> store process -> DuckDB

Every case makes a platform of its own in a folder of its own. The load takes its share of the same processors. The
cases that go beyond what a platform is meant to take are in `stress.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from flexmeter.app.arena import TENANT, Arena, prepare, running
from flexmeter.app.edge import device_client
from flexmeter.app.load import Load, Numbered, Packed, Timed, acknowledged, paced, unpaced
from flexmeter.config import Config
from flexmeter.errors import InputError
from flexmeter.machine import machine

DEVICES = 20
PACKED_WINDOW = 20
LATENCY_RATE_PER_S = 1000.0
PROBE_PAUSE_S = 0.02
WATCHES = 10


class Options(msgspec.Struct, frozen=True):
    """How long and how much.

    Attributes
    ----------
    seconds : length of the load.
    rate_per_s : messages; 0 = what the case is made for, for rates as fast as they are acknowledged.
    clients : how many connect in the case `connections`.
    sync : the broker's sync_interval.
    """

    seconds: float = 10.0
    rate_per_s: float = 0.0
    clients: int = 1000
    sync: str = "2m"

    def changes(self, **others: str) -> dict[str, str]:
        """Return the lines of the configuration that differ from what `flexmeter init` writes."""
        return {"sync_interval": f'"{self.sync}"', "tenant_values_per_s": "100000000"} | others


Connect = Callable[[Config, str, AsyncExitStack], Awaitable[Numbered | Packed]]
Measure = Callable[[Path, Options], Coroutine[None, None, dict[str, object]]]


def run_case(name: str, folder: Path, options: Options) -> dict[str, object]:
    """Measure one case in an empty folder; return the fields of its JSON line."""
    import uvloop  # noqa: PLC0415  (only here)

    from flexmeter.app.stress import STRESS_CASES  # noqa: PLC0415  (which needs this module)

    cases = CASES | STRESS_CASES
    if name not in cases:
        raise InputError(f"case {name!r}: expected one of {', '.join(cases)}")
    logging.disable(logging.WARNING)  # lost connections are part of it
    gc.set_threshold(50_000, 50, 100)  # millions of acknowledgements are kept, there are no cycles to look for
    try:
        result = uvloop.run(cases[name](folder, options))
    finally:
        logging.disable(logging.NOTSET)
    return {
        "bench": "ingest",
        "case": f"{name} qos1 tls, sync {options.sync}",
        **result,
        "load_cpu_s": round(time.process_time(), 1),
        "machine": machine(),
        "note": f"load generator on the same machine; load average {os.getloadavg()[0]:.1f}",
    }


async def _single(folder: Path, options: Options) -> dict[str, object]:
    """Measure single readings of three values."""
    return await _rate(folder, options, 3, numbered)


async def _packed(folder: Path, options: Options) -> dict[str, object]:
    """Measure batches of 100 meters with three values each."""
    return await _rate(folder, options, 300, _announced)


async def _rate(folder: Path, options: Options, values: int, connect: Connect) -> dict[str, object]:
    """Publish, wait until everything is stored; the rate that is stored counts both times."""
    config = prepare(folder, names(DEVICES), options.changes())
    async with running(config) as arena, AsyncExitStack() as stack:
        await warm_up(config, arena)
        devices = [await connect(config, name, stack) for name in names(DEVICES)]
        before = cpu_s(arena)
        began_s = time.monotonic()
        async with watched(arena, options.seconds / WATCHES) as lag:
            await publish_for(devices, options.seconds, options.rate_per_s)
        published_s = time.monotonic() - began_s
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
            **used(arena, before),
        }


async def _latency(folder: Path, options: Options) -> dict[str, object]:
    """Measure the acknowledgements of a steady load, and reading to answered query beside it."""
    rate_per_s = options.rate_per_s or LATENCY_RATE_PER_S
    config = prepare(folder, names(DEVICES), options.changes())
    async with running(config) as arena, AsyncExitStack() as stack:
        await warm_up(config, arena)
        probe = await numbered(config, names(1)[0], stack)
        devices = [await timed(config, name, stack) for name in names(DEVICES)[1:]]
        before = cpu_s(arena)
        stop = asyncio.Event()
        load = asyncio.create_task(paced(devices, rate_per_s, stop))
        found = await probed(arena, probe, options.seconds)
        stop.set()
        await load
        await acknowledged(devices)
        await arena.drained()
        waits_s = [wait_s for device in devices for _, wait_s in device.waits_s]
        found |= {"puback_ms": milliseconds(waits_s), "acknowledgements": len(waits_s)}
        return {"messages_per_s": rate_per_s, **found, **used(arena, before)}


CASES: dict[str, Measure] = {"single": _single, "packed": _packed, "latency": _latency}


async def publish_for(devices: Load, seconds: float, rate_per_s: float) -> None:
    """Publish for a while at a rate (0 = as fast as acknowledged); return when all is acknowledged."""
    stop = asyncio.Event()
    load = asyncio.create_task(paced(devices, rate_per_s, stop) if rate_per_s else unpaced(devices, stop))
    await asyncio.sleep(seconds)
    stop.set()
    await load
    await acknowledged(devices)


@asynccontextmanager
async def watched(arena: Arena, every_s: float) -> AsyncIterator[list[int]]:
    """Note how many messages wait, and the memory, ever so often while inside."""
    lag: list[int] = []

    async def watch() -> None:
        while True:
            await asyncio.sleep(every_s)
            arena.note_memory()
            with contextlib.suppress(httpx.HTTPError):
                lag.append(await arena.waiting())

    watcher = asyncio.create_task(watch())
    try:
        yield lag
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def probed(arena: Arena, probe: Numbered, seconds: float) -> dict[str, object]:
    """Publish one reading after the other and ask for it; return how long it takes until a query finds it."""
    queried = []
    ends_s = time.monotonic() + seconds
    async with arena.api() as client:
        while time.monotonic() < ends_s:
            began_s = time.perf_counter()
            await (await probe.publish())
            await until_queried(client, probe)
            queried.append(time.perf_counter() - began_s)
            await asyncio.sleep(PROBE_PAUSE_S)
    return {"query_ms": milliseconds(queried), "probes": len(queried)}


async def until_queried(client: httpx.AsyncClient, probe: Numbered) -> None:
    """Ask for the newest reading until the last published one is there."""
    wanted = probe.start_ms + probe.published - 1
    query = {"device": probe.name, "quantity": "voltage", "format": "json"}
    while True:
        answer = (await client.get("/api/v1/readings/latest", params=query)).raise_for_status().json()
        if str(wanted) in str(answer):
            return
        await asyncio.sleep(0.002)  # asking without a pause would be a load of its own


async def numbered(config: Config, name: str, stack: AsyncExitStack, tenant: str = TENANT) -> Numbered:
    """Connect a device that publishes single readings."""
    client = device_client(config, tenant, name, patience_s=10)
    await stack.enter_async_context(client)
    return Numbered(tenant, name, client, int(time.time()), time.time_ns() // 1_000_000)


async def timed(config: Config, name: str, stack: AsyncExitStack, tenant: str = TENANT) -> Timed:
    """Connect a device that publishes single readings and times every acknowledgement."""
    device = await numbered(config, name, stack, tenant)
    return Timed(device.tenant, device.name, device.client, device.boot, device.start_ms)


async def _announced(config: Config, name: str, stack: AsyncExitStack) -> Packed:
    client = device_client(config, TENANT, name, patience_s=10, window=PACKED_WINDOW)
    await stack.enter_async_context(client)
    device = Packed(TENANT, name, client, int(time.time()), time.time_ns() // 1_000_000)
    await device.announce()
    return device


async def warm_up(config: Config, arena: Arena) -> None:
    """Store one reading, so that nothing is loaded for the first time while it is measured."""
    async with AsyncExitStack() as stack:
        await (await (await numbered(config, names(1)[0], stack)).publish())
        await arena.drained()


def names(count: int) -> list[str]:
    """Return the names of the devices of a load."""
    return [f"dev-{number}" for number in range(count)]


def cpu_s(arena: Arena) -> dict[str, float]:
    """Return the processor time that broker and platform have used."""
    times = {}
    for process in ("broker", "platform"):
        taken = psutil.Process(arena.pid(process)).cpu_times()
        times[process] = taken.user + taken.system
    return times


def used(arena: Arena, before: dict[str, float]) -> dict[str, object]:
    """Return the processor time since, and the highest memory."""
    arena.note_memory()
    return {
        "cpu_s": {process: round(after - before[process], 2) for process, after in cpu_s(arena).items()},
        "peak_rss_mb": {process: round(rss) for process, rss in arena.peak_rss_mb.items()},
    }


def milliseconds(times_s: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Return median, 99th percentile and maximum of times."""
    p50, p99, most = np.percentile(times_s, [50, 99, 100]) * 1000
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(most), 2)}
