"""`flexmeter chaos`: kill, stop and starve a platform under load, and count every acknowledged reading at the end.

    numbered readings -> platform (`flexmeter up`) <- incidents, seeded
    at the end: acknowledged times of every device against the rows in the database

It makes a platform of its own in a folder of its own and touches no other process.
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
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from flexmeter.app.arena import AS_INSTALLED, TENANT, Account, Arena, Process, prepare, running, stored_times
from flexmeter.app.edge import TEST_START_MS, TestAdapter, device_client, outbox_path
from flexmeter.app.load import SINGLE_COLUMNS, Numbered, paced
from flexmeter.app.trio import kill_leaders
from flexmeter.config import Config
from flexmeter.devices import Edge, Outbox
from flexmeter.errors import FlexmeterError
from flexmeter.supervision import Child, Program, Supervisor

EDGE = "edge-0"
EDGE_RATE_PER_S = 20.0
HOUR_MS = 3_600_000
Victim = Process | Literal["edge"]
VICTIMS: tuple[Victim, ...] = ("broker", "platform", "edge", "supervisor")
Incident = Callable[["_Run"], Awaitable[None]]
BALLAST_MB = 2000
DRAIN_S = 600.0


class Plan(msgspec.Struct, frozen=True):
    """What is done to the platform.

    Attributes
    ----------
    kills : how many processes are killed (`kill -9`), of `victims` in turn, shuffled.
    rate_per_s, devices : readings per second of all direct devices together; the edge device adds 20.
    seed : of the order of victims and the pauses between incidents.
    pause_s : if not 0, broker and store process are each stopped (SIGSTOP) that long, once.
    disk, clock : whether the disk fills up, and whether the devices' clocks jump by an hour, there and back.
    stream : whether two Event Sources of their own feed the database over a stream; one of them is a victim as well.
    cluster : three broker nodes instead of one, a device at each, and every kill is of the leader's broker.
    quota_per_s : readings per second that may be stored, 0 = no limit; below `rate_per_s` the brake is closed. What
        waits for it counts in the recovery times.
    """

    kills: int = 200
    rate_per_s: float = 500.0
    devices: int = 8
    seed: int = 1
    pause_s: float = 0.0
    disk: bool = False
    clock: bool = False
    stream: bool = False
    cluster: bool = False
    quota_per_s: float = 0.0

    @property
    def changes(self) -> dict[str, str]:
        """The lines of the configuration that differ from what `flexmeter init` writes."""
        changes = {"mode": '"stream"', "sources": "2"} if self.stream else {}
        if self.quota_per_s:
            changes["tenant_values_per_s"] = str(self.quota_per_s * len(SINGLE_COLUMNS))
        return changes

    @property
    def victims(self) -> tuple[Victim, ...]:
        """The processes that are killed in turn."""
        return (*VICTIMS, "source") if self.stream else VICTIMS


class Result(msgspec.Struct):
    """The account of a run."""

    acknowledged: int
    stored: int
    lost: int
    duplicated: int
    kills: int
    recovery_s: dict[str, float]
    by_victim: dict[str, dict[str, float]]
    drain_s: float
    peak_rss_mb: dict[str, float]
    seconds: float


class _Run:
    """A run under way: the platform, its load, and the recovery times so far."""

    def __init__(self, arena: Arena, edge: Child, devices: list[Numbered]) -> None:
        self.arena = arena
        self.edge = edge
        self.devices = devices
        self.recoveries: dict[str, list[float]] = {}

    def pid(self, victim: Victim) -> int:
        """Return the process id of a victim, 0 = not running."""
        return self.edge.pid if victim == "edge" else self.arena.pid(victim)

    async def kill(self, victim: Victim) -> None:
        """Kill a process; note how long until it runs again, the platform is ready and takes a reading."""
        while not (pid := self.pid(victim)):
            await asyncio.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        began_s = time.monotonic()
        while self.pid(victim) in (0, pid) or not await self.arena.ready():
            await asyncio.sleep(0.01)
        await (await self.devices[0].publish())
        self.recoveries.setdefault(victim, []).append(time.monotonic() - began_s)

    async def pause(self, process: Process, pause_s: float) -> None:
        """Stop a process for a while without ending it: a broker or database that is away."""
        pid = self.arena.pid(process)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(pause_s)
        finally:
            os.kill(pid, signal.SIGCONT)
        while not await self.arena.ready():
            await asyncio.sleep(0.05)

    async def fill_disk(self) -> None:
        """Take the space that must stay free, until the broker has closed its doors; then give it back."""
        ballast = self.arena.config.folder / "ballast"
        try:
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_MB * 2**20)
            while self.arena.pid("broker"):
                await asyncio.sleep(0.05)
            await asyncio.sleep(5.0)
        finally:
            ballast.unlink()
        while not (self.arena.pid("broker") and await self.arena.ready()):
            await asyncio.sleep(0.05)

    async def shift_clocks(self, shift_ms: int) -> None:
        """Let the clock of every device jump."""
        for device in self.devices:
            device.shift_ms = shift_ms
        await asyncio.sleep(2.0)


async def run_chaos(plan: Plan, folder: Path, progress: Callable[[str], None]) -> Result:
    """Do what the plan says in a folder that is empty or absent; return the account."""
    began_s = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    if plan.cluster:
        return await _run_cluster(plan, folder, progress)
    names = [f"dev-{number}" for number in range(plan.devices)]
    changes = plan.changes
    if plan.disk:  # the limit lies where the ballast will reach it, with room for the run itself
        changes["min_free_mb"] = str((shutil.disk_usage(folder).free >> 20) - BALLAST_MB * 3 // 4)
    config = prepare(folder, [*names, EDGE], changes)
    async with running(config) as arena:
        run, drain_s = await _under_load(plan, config, arena, names, progress)
        arena.note_memory()
    account = _count(config, run)
    kills = [recovery for recoveries in run.recoveries.values() for recovery in recoveries]
    return Result(
        account.acknowledged,
        account.stored,
        account.lost,
        account.duplicated,
        len(kills),
        _spread(kills),
        {victim: {"kills": len(times), **_spread(times)} for victim, times in run.recoveries.items()},
        round(drain_s, 2),
        {process: round(rss) for process, rss in arena.peak_rss_mb.items()},
        round(time.monotonic() - began_s, 1),
    )


async def _run_cluster(plan: Plan, folder: Path, progress: Callable[[str], None]) -> Result:
    began_s = time.monotonic()
    account, times, drain_s = await kill_leaders(
        plan.kills, plan.rate_per_s, folder, seed=plan.seed, changes=plan.changes, progress=progress
    )
    return Result(
        account.acknowledged,
        account.stored,
        account.lost,
        account.duplicated,
        len(times),
        _spread(times),
        {"leader": {"kills": len(times), **_spread(times)}},
        round(drain_s, 2),
        {},
        round(time.monotonic() - began_s, 1),
    )


async def _under_load(
    plan: Plan, config: Config, arena: Arena, names: list[str], progress: Callable[[str], None]
) -> tuple[_Run, float]:
    """Let the incidents happen, then end the load and wait until nothing waits any more."""
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor())
        start_ms = time.time_ns() // 1_000_000
        devices = [
            Numbered(
                TENANT,
                name,
                await stack.enter_async_context(device_client(config, TENANT, name, patience_s=10)),
                boot=start_ms // 1000,
                start_ms=start_ms,
                clock="real",
            )
            for name in names
        ]
        run = _Run(arena, await supervisor.start(_edge_program(config)), devices)
        stop = asyncio.Event()
        load = asyncio.create_task(paced(devices, plan.rate_per_s, stop))
        pauses = random.Random(plan.seed)
        for number, (name, incident) in enumerate(_incidents(plan), 1):
            await asyncio.sleep(pauses.uniform(0.1, 0.8))
            await incident(run)
            arena.note_memory()
            progress(f"{number} {name}: {sum(len(one.acknowledged) for one in devices)} readings acknowledged")
        await asyncio.sleep(1.0)
        stop.set()
        await load
        await supervisor.stop("edge")
        drained_s = time.monotonic()
        async with asyncio.timeout(DRAIN_S):
            while any(device.client.under_way for device in devices):
                await asyncio.sleep(0.05)
            await _empty_outbox(config)
            await arena.drained()
        return run, time.monotonic() - drained_s


def _incidents(plan: Plan) -> list[tuple[str, Incident]]:
    """Return the incidents in seeded order; the jumps of the clocks come last."""
    victims = [plan.victims[number % len(plan.victims)] for number in range(plan.kills)]
    incidents: list[tuple[str, Incident]] = [(f"kill {one}", partial(_Run.kill, victim=one)) for one in victims]
    if plan.pause_s:
        for process in ("broker", "platform"):
            away = partial(_Run.pause, process=process, pause_s=plan.pause_s)
            incidents.append((f"{process} away {plan.pause_s:g} s", away))
    if plan.disk:
        incidents.append(("disk full", _Run.fill_disk))
    random.Random(plan.seed).shuffle(incidents)
    if plan.clock:
        jumps = [(f"clock {hours:+d} h", partial(_Run.shift_clocks, shift_ms=hours * HOUR_MS)) for hours in (1, -1, 0)]
        incidents += jumps
    return incidents


def _edge_program(config: Config) -> Program:
    command = [sys.executable, "-m", "flexmeter", "edge", "--config", str(config.folder / "flexmeter.toml")]
    command += ["--device", EDGE, "--test-rate", str(EDGE_RATE_PER_S)]
    return Program("edge", command, config.folder / "edge.log", environment=AS_INSTALLED)


async def _empty_outbox(config: Config) -> None:
    """Publish what the edge device had not yet got rid of."""
    outbox = Outbox(outbox_path(config, EDGE), EDGE)
    try:
        async with device_client(config, TENANT, EDGE, patience_s=30) as client:
            nothing_more = TestAdapter(outbox, EDGE, 0.0)
            clock = time.time_ns
            edge = Edge(
                TENANT, EDGE, nothing_more, outbox, client, now_ms=lambda: clock() // 1_000_000, backfill_per_s=1000
            )
            await edge.run()
    finally:
        outbox.close()


def _count(config: Config, run: _Run) -> Account:
    account = Account()
    for device in run.devices:
        account.add(np.array(device.acknowledged, np.int64), *stored_times(config, device.name))
    outbox = Outbox(outbox_path(config, EDGE), EDGE)
    try:
        if outbox.gaps() or outbox.count:
            raise FlexmeterError("the edge device's outbox is not empty: this run proves nothing about it")
        account.add(TEST_START_MS + np.arange(outbox.last_id), *stored_times(config, EDGE))
    finally:
        outbox.close()
    return account


def _spread(times: list[float]) -> dict[str, float]:
    if not times:
        return {}
    return {"p50": round(float(np.median(times)), 3), "max": round(max(times), 3)}
