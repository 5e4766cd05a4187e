"""The day through the whole chain: field, broker with TLS, platform, estimators, topology service, reconfiguration.

Every part is a process of its own that meets the others over MQTT and REST only. This one supervises them, watches over
MQTT, and in the end puts what it heard beside the truth.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil

from flexmeter.app.addresses import api_address
from flexmeter.errors import ServiceError
from flexmeter.scenario.assemble import assemble
from flexmeter.scenario.display import Display
from flexmeter.scenario.field import Field
from flexmeter.scenario.monitor import Monitor, probe
from flexmeter.scenario.options import DayOptions
from flexmeter.scenario.partial import unmonitored
from flexmeter.scenario.record import Counts, Timing
from flexmeter.scenario.results import Run, prepare_folder
from flexmeter.scenario.stage import TENANT, Stage
from flexmeter.services.mv import MvArea

DRAIN_S = 120.0
SILENCE_S = 150.0
METRIC = re.compile(r"^flexmeter_(\w+)\{([^}]*)\} (\d+)", re.MULTILINE)


def run_demo(options: DayOptions, out: Path, *, speed: float | None = None, quiet: bool = False) -> Run:
    """Play the day; `speed` is a factor of real time, None = as fast as the machine allows."""
    prepare_folder(out)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=out))
    try:
        return asyncio.run(_play(options, folder, 0.0 if speed is None else 60.0 / speed, quiet))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # told to end by SIGTERM, which is as orderly as Ctrl-C
    except ServiceError as error:
        kept = out / "logs"
        _keep_logs(folder, kept)
        raise ServiceError(f"{error} (logs of all processes: {kept})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(folder: Path, kept: Path) -> None:
    """Copy the logs, which hold no secrets, out of the folder that will be removed."""
    kept.mkdir(exist_ok=True)
    for log in folder.rglob("*.log"):
        shutil.copy(log, kept / log.name)


async def _play(options: DayOptions, folder: Path, minute_s: float, quiet: bool) -> Run:
    began = time.perf_counter()
    playing = asyncio.current_task()
    assert playing is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    field = Field(options, TENANT, estimating=False)
    mv = MvArea(field.grid)
    monitor = Monitor(field.grid, TENANT, options.minutes, mv.lv_areas)
    memory: dict[str, float] = {}
    with Display("demo", options.minutes, quiet=quiet) as display:
        async with AsyncExitStack() as stack:
            devices = tuple(device.name for device in field.devices)
            stage = Stage(folder, field.grid, options, devices, minute_s)
            display.say(f"grid {field.grid.id}: {len(field.grid.buses):,} buses, {len(devices)} devices; starting")
            await stage.enter(stack)
            listener = await stack.enter_async_context(stage.client("monitor"))
            prober = await stack.enter_async_context(stage.client("probe"))
            await monitor.subscribe(listener)
            watching = asyncio.create_task(_watch_memory(stage, memory))
            stack.callback(watching.cancel)
            listening = asyncio.create_task(monitor.listen(listener, display))
            stack.callback(listening.cancel)
            await _until_online(monitor, {*stage.services, "field"})
            display.say(f"all processes ready after {time.perf_counter() - began:.1f} s; playing")
            await stage.start_day()
            probing = asyncio.create_task(probe(prober, TENANT, "probe", monitor.timings))
            stack.callback(probing.cancel)
            await _until_played(listening, monitor, stage)
            probing.cancel()
            counts, rows = await _drain(stage, monitor)
    latencies = {kind: np.array(values) for kind, values in monitor.timings.latency_ms.items() if values}
    timing = Timing(latencies, time.perf_counter() - began, 60.0 * options.minutes, memory)
    estimated = monitor.estimated()
    record = assemble(
        options,
        field.grid,
        field.truth,
        estimated,
        unmonitored=unmonitored(field, mv, estimated.vectors, monitor.summaries()),
        counts=counts,
        rows_stored=rows,
        timing=timing,
    )
    return Run(field.grid, record)


async def _until_online(monitor: Monitor, names: set[str], patience_s: float = 90.0) -> None:
    try:
        async with asyncio.timeout(patience_s):
            while not names <= monitor.online:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ServiceError(f"not ready after {patience_s:g} s: {', '.join(sorted(names - monitor.online))}") from None


async def _until_played(listening: asyncio.Task[None], monitor: Monitor, stage: Stage) -> None:
    """Return when every minute is through; fail if nothing moves any more or the field gave up."""
    last, since = -1, time.monotonic()
    while not monitor.done.is_set():
        if listening.done():
            await listening
        await asyncio.sleep(0.1)
        messages = sum(monitor.timings.published.values())
        if messages != last:
            last, since = messages, time.monotonic()
        if time.monotonic() - since > SILENCE_S + stage.minute_s:
            raise ServiceError(f"no message for {SILENCE_S:g} s")
        restarted = [name for name, child in stage.supervisor.children.items() if name == "field" and child.restarts]
        if restarted:
            raise ServiceError("the simulated field ended before the day did")


async def _drain(stage: Stage, monitor: Monitor) -> tuple[Counts, int]:
    """Wait until the platform has stored everything that was published; return the counts and the rows."""
    token = (stage.folder / "monitor.token").read_text()
    headers = {"Authorization": f"Bearer {token}"}
    url = api_address(stage.config).url
    counts, rows = Counts(), 0
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=stage.trust, trust_env=False) as client:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while True:
                    counts, rows = _counts((await client.get("/metrics")).text, monitor)
                    if counts.queued == 0 and counts.received >= counts.published:
                        break
                    await asyncio.sleep(0.1)
    return counts, rows


def _counts(text: str, monitor: Monitor) -> tuple[Counts, int]:
    """Return the counts in a metrics text, beside what the publishers say."""
    found = {(name, labels): int(value) for name, labels, value in METRIC.findall(text)}

    def metric(name: str, state: str = "") -> int:
        label = f'state="{state}"'
        return sum(v for (n, labels), v in found.items() if n == name and (not state or label in labels))

    counts = Counts(
        published=sum(monitor.timings.published.values()),
        received=metric("messages_received_total"),
        stored=metric("messages_total", "stored"),
        duplicate=metric("messages_total", "duplicate"),
        rejected=metric("messages_total", "rejected"),
        queued=metric("messages_queued"),
    )
    return counts, metric("values_total", "stored")


async def _watch_memory(stage: Stage, memory: dict[str, float]) -> None:
    """Note the largest resident memory [MB] of every process, until cancelled."""
    while True:
        for name, pid in stage.pids.items():
            with suppress(psutil.Error):
                memory[name] = max(memory.get(name, 0.0), psutil.Process(pid).memory_info().rss / 2**20)
        await asyncio.sleep(0.5)
