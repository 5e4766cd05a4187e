"""`flexmeter bench ingest`, beyond what a platform is meant to take: overload, a greedy tenant, very many clients.

In every case the platform has to stay alive within its memory, and what it acknowledged has to be stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from flexmeter.app.arena import TENANT, Account, Arena, add_devices, change, prepare, running, stored_times
from flexmeter.app.backup import CONFIGURATION
from flexmeter.app.bench import (
    DEVICES,
    Measure,
    Options,
    milliseconds,
    names,
    numbered,
    probed,
    publish_for,
    timed,
    until_queried,
    used,
    warm_up,
    watched,
)
from flexmeter.app.bench import cpu_s as cpu_s_of
from flexmeter.app.edge import device_client
from flexmeter.app.load import Numbered
from flexmeter.config import read_config

QUOTA_MESSAGES_PER_S = 2000
VALUES = 3
TIMES = 10
GREEDY = "greedy"
STEADY_S = 3.0
PHASES = {"alone": 0.0, "within_quota": 0.95, "over_quota": float(TIMES)}
"""What the other tenant sends, as a share of its quota."""
BACKLOG_GB = 0.02
CONNECT_AT_ONCE = 50


async def _overload(folder: Path, options: Options) -> dict[str, object]:
    """Offer ten times what the tenant may store, with little disk for what waits; count every reading at the end."""
    rate_per_s = options.rate_per_s or TIMES * QUOTA_MESSAGES_PER_S
    changes = options.changes(tenant_values_per_s=str(rate_per_s / TIMES * VALUES), tenant_disk_gb=str(BACKLOG_GB))
    config = prepare(folder, names(DEVICES), changes)
    async with running(config) as arena, AsyncExitStack() as stack:
        devices = [await numbered(config, name, stack) for name in names(DEVICES)]
        before = cpu_s_of(arena)
        began_s = time.monotonic()
        async with watched(arena, min(1.0, options.seconds / 10)) as lag:
            await publish_for(devices, options.seconds, rate_per_s)
            await arena.drained()
        seconds = time.monotonic() - began_s
        result: dict[str, object] = {
            "offered_per_s": rate_per_s,
            "may_store_per_s": rate_per_s / TIMES,
            "most_waiting": max(lag, default=0),
        }
        result |= {"cut_off": sum(device.client.connections - 1 for device in devices)} | used(arena, before)
    account = Account()
    for device in devices:
        account.add(np.array(device.acknowledged, np.int64), *stored_times(config, device.name))
    return {
        "acknowledged": account.acknowledged,
        "stored": account.stored,
        "lost": account.lost,
        "duplicated": account.duplicated,
        "messages_per_s": round(account.stored / seconds),
        **result,
    }


async def _tenants(folder: Path, options: Options) -> dict[str, object]:
    """Measure the latencies of a tenant alone, beside one within its quota, and beside the same at ten times of it.

    Each tenant's devices are a process and a session of their own, since in reality they are other machines; those of
    the other tenant give way to everybody else (nice 19). Every acknowledgement of the neighbour is timed.
    """
    quota_per_s = (options.rate_per_s or TIMES * QUOTA_MESSAGES_PER_S) / TIMES
    changes = options.changes(tenant_values_per_s=str(quota_per_s * VALUES), tenants=f'["{TENANT}", "{GREEDY}"]')
    config = prepare(folder, names(DEVICES), changes)
    file = config.folder / CONFIGURATION
    async with running(config) as arena, AsyncExitStack() as stack:
        await warm_up(config, arena)
        probe = await numbered(config, names(1)[0], stack)
        loop = asyncio.get_running_loop()
        own, other = (
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _elsewhere, (nice,))) for nice in (0, 19)
        )
        phase_s = STEADY_S + options.seconds
        neighbour = loop.run_in_executor(own, _neighbour, file, len(PHASES) * phase_s, quota_per_s / 2)
        floods, found, spans = [], {}, {}
        for phase, share in PHASES.items():
            began_s = time.monotonic()
            if share:
                floods.append(loop.run_in_executor(other, _flood, file, phase_s, share * quota_per_s))
            await asyncio.sleep(STEADY_S)
            steady_s = time.monotonic()
            found[phase] = await probed(arena, probe, options.seconds)
            spans[phase] = (began_s, steady_s, time.monotonic())
        waits = np.array(await neighbour)
        flooded = [await flood for flood in floods]
        await arena.drained()
        arena.note_memory()
    account = Account()
    for name in names(DEVICES):
        acknowledged = np.concatenate([times_ms[name] for times_ms, _ in flooded])
        account.add(acknowledged, *stored_times(config, name, GREEDY))
    phases: dict[str, object] = {
        phase: found[phase]
        | _waits_between(waits, steady_s, ends_s)
        | {"first_seconds": _waits_between(waits, began_s, steady_s)}
        for phase, (began_s, steady_s, ends_s) in spans.items()
    }
    return phases | {
        "greedy": {
            "may_store_per_s": quota_per_s,
            "offered_per_s": [share * quota_per_s for share in PHASES.values() if share],
            "cut_off": [cut_off for _, cut_off in flooded],
            "acknowledged": account.acknowledged,
            "lost": account.lost,
            "duplicated": account.duplicated,
        },
        "peak_rss_mb": {process: round(rss) for process, rss in arena.peak_rss_mb.items()},
    }


def _waits_between(waits_s: NDArray[np.float64], from_s: float, until_s: float) -> dict[str, object]:
    """Return the acknowledgement times of what was published in a span of time."""
    chosen = waits_s[(waits_s[:, 0] >= from_s) & (waits_s[:, 0] < until_s), 1]
    return {"puback_ms": milliseconds(chosen), "acknowledgements": int(chosen.size)}


def _elsewhere(nice: int) -> None:
    """Be as far as possible from the other processes: Linux weighs sessions against each other, nice ones included.

    A nice value alone only counts within a session.
    """
    os.setsid()
    os.nice(nice)
    with contextlib.suppress(OSError):  # a kernel without
        Path("/proc/self/autogroup").write_text(str(nice))


def _neighbour(file: Path, seconds: float, rate_per_s: float) -> list[tuple[float, float]]:
    """Be the devices of the tenant that keeps within its quota; return when each message went out and its wait [s]."""
    import uvloop  # noqa: PLC0415  (only here)

    async def main() -> list[tuple[float, float]]:
        config = read_config(file)
        async with AsyncExitStack() as stack:
            devices = [await timed(config, name, stack) for name in names(DEVICES // 2)[1:]]
            await publish_for(devices, seconds, rate_per_s)
            return [wait for device in devices for wait in device.waits_s]

    return uvloop.run(main())


def _flood(file: Path, seconds: float, rate_per_s: float) -> tuple[dict[str, NDArray[np.int64]], int]:
    """Be the other tenant's devices; return the acknowledged times [ms] of each, and how often they were cut off."""
    import uvloop  # noqa: PLC0415  (only here)

    async def main() -> tuple[dict[str, NDArray[np.int64]], int]:
        config = read_config(file)
        async with AsyncExitStack() as stack:
            devices = [await numbered(config, name, stack, GREEDY) for name in names(DEVICES)]
            await publish_for(devices, seconds, rate_per_s)
            cut_off = sum(device.client.connections - 1 for device in devices)
            return {device.name: np.array(device.acknowledged, np.int64) for device in devices}, cut_off

    logging.disable(logging.WARNING)  # being cut off is part of it
    return uvloop.run(main())


async def _connections(folder: Path, options: Options) -> dict[str, object]:
    """Measure memory per connected client, and how long all take to come back after the broker was killed."""
    config = prepare(folder, names(options.clients), options.changes())
    async with running(config) as arena, AsyncExitStack() as stack:
        empty = psutil.Process(arena.pid("broker")).memory_info().rss
        clients = [device_client(config, TENANT, name, patience_s=30) for name in names(options.clients)]
        began_s = time.monotonic()
        for start in range(0, len(clients), CONNECT_AT_ONCE):
            some = clients[start : start + CONNECT_AT_ONCE]
            await asyncio.gather(*(stack.enter_async_context(one) for one in some))
        connected_s = time.monotonic() - began_s
        full = psutil.Process(arena.pid("broker")).memory_info().rss
        os.kill(arena.pid("broker"), signal.SIGKILL)
        began_s = time.monotonic()
        while not all(one.connections > 1 and one.connected for one in clients):
            await asyncio.sleep(0.05)
        back_s = time.monotonic() - began_s
        arena.note_memory()
        return {
            "connections": len(clients),
            "kb_per_connection": round((full - empty) / len(clients) / 1000, 1),
            "connect_s": round(connected_s, 1),
            "back_after_kill_s": round(back_s, 1),
            "peak_rss_mb": {process: round(rss) for process, rss in arena.peak_rss_mb.items()},
        }


async def _start(folder: Path, options: Options) -> dict[str, object]:
    """Measure `flexmeter init` and `flexmeter up` from nothing to the first reading that a query finds."""
    del options
    began_s = time.monotonic()
    command = [sys.executable, "-m", "flexmeter", "init", str(folder), "--tenant", TENANT]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    made_s = time.monotonic() - began_s
    config = change(folder / "flexmeter.toml", {})
    add_devices(config, TENANT, names(1))
    async with running(config) as arena, AsyncExitStack() as stack:
        ready_s = time.monotonic() - began_s
        device: Numbered = await numbered(config, names(1)[0], stack)
        await device.publish()
        async with arena.api() as client:
            await until_queried(client, device)
        first_s = time.monotonic() - began_s
        return {"init_s": round(made_s, 2), "ready_s": round(ready_s, 2), "first_reading_s": round(first_s, 2)} | {
            "memory_mb": _memory_mb(arena)
        }


def _memory_mb(arena: Arena) -> dict[str, int]:
    """Return the memory of the platform's processes: what each holds alone plus its share of common pages."""
    up = psutil.Process(arena.up.pid)
    sizes = {
        " ".join(one.cmdline()[-3:])[:40]: one.memory_full_info().pss for one in [up, *up.children(recursive=True)]
    }
    return {name: round(size / 1e6) for name, size in sizes.items()} | {"all": round(sum(sizes.values()) / 1e6)}


STRESS_CASES: dict[str, Measure] = {
    "overload": _overload,
    "tenants": _tenants,
    "connections": _connections,
    "start": _start,
}
