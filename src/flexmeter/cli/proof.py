"""`flexmeter bench`, `chaos` and `edge`: load, incidents and devices, to see on one's own machine what is promised."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

import typer

from flexmeter.cli.shared import CONFIG, JSON, TENANT

bench_app = typer.Typer(help="Measure this machine; one JSON line per case.", no_args_is_help=True)


def chaos(
    kills: int = typer.Option(
        200, "--kills", min=0, help="How many processes to kill -9, all kinds in turn, shuffled."
    ),
    rate: float = typer.Option(500.0, "--rate", min=1, help="Readings per second under which this happens."),
    seed: int = typer.Option(1, "--seed", help="Seed of order and timing."),
    pause: float = typer.Option(0.0, "--pause", min=0, help="Also stop broker and platform for so many seconds each."),
    disk: bool = typer.Option(False, "--disk", help="Also let the disk fill up (takes 2 GB for some seconds)."),
    clock: bool = typer.Option(False, "--clock", help="Also let the devices' clocks jump by an hour, there and back."),
    stream: bool = typer.Option(False, "--stream", help="With two Event Sources of their own and a stream between."),
    cluster: bool = typer.Option(
        False,
        "--cluster",
        help="Three broker nodes; every kill is of the leading one. --pause, --disk, --clock not used.",
    ),
    quota: float = typer.Option(
        0.0, "--quota", min=0, help="Readings per second that may be stored; below --rate the tenant is over its quota."
    ),
    folder: Path | None = typer.Option(None, "--folder", help="Keep the platform here to look at; must be empty."),
    as_json: bool = JSON,
) -> None:
    """Kill processes of a platform under load and count every acknowledged reading at the end.

    It runs a platform of its own. Exit status 1 if a reading is lost or stored twice.

    Example: flexmeter chaos --kills 200 --pause 60 --disk --clock
    """
    from flexmeter.app.chaos import Plan, run_chaos

    plan = Plan(
        kills,
        rate,
        seed=seed,
        pause_s=pause,
        disk=disk,
        clock=clock,
        stream=stream,
        cluster=cluster,
        quota_per_s=quota,
    )
    place = folder or Path(tempfile.mkdtemp(prefix="flexmeter-chaos-"))
    try:
        result = asyncio.run(run_chaos(plan, place, lambda text: print(text, file=sys.stderr, flush=True)))
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    import msgspec

    plain = msgspec.to_builtins(result)
    if as_json:
        print(json.dumps(plain))
    else:
        for key, value in plain.items():
            print(f"{key:14} {value}")
    if result.lost or result.duplicated:
        raise typer.Exit(1)


def edge(
    device: str = typer.Option("meter-1", "--device", help="The device; it needs a certificate here."),
    tenant: str = TENANT,
    config: Path = CONFIG,
    test_rate: float | None = typer.Option(None, "--test-rate", min=0.001, help="Test readings per second, no stdin."),
) -> None:
    """Publish readings from standard input, one JSON object per line, through an outbox on disk.

    Example: echo '{"meter": "m7", "voltage.a": 230.4}' | flexmeter edge --device meter-1
    """
    from flexmeter.app.edge import run_edge
    from flexmeter.app.process import run_until_stopped
    from flexmeter.config import read_config

    settings = read_config(config)
    run_until_stopped(run_edge(settings, tenant or settings.tenants[0], device, test_rate))


@bench_app.command()
def ingest(
    seconds: float = typer.Option(10.0, "--seconds", min=1, help="Length of every case."),
    case: list[str] = typer.Option(
        [], "--case", help="single, packed, latency, overload, tenants, connections or start; all if left out."
    ),
    rate: float = typer.Option(
        0.0, "--rate", min=0, help="Messages per second; 0 = what the case is made for, or as fast as acknowledged."
    ),
    clients: int = typer.Option(1000, "--clients", min=1, max=16_000, help="How many connect in case connections."),
    sync: str = typer.Option("2m", "--sync", help="The broker's sync_interval: always, or a period."),
    as_json: bool = JSON,
) -> None:
    """Measure ingest over MQTT/TLS into the database: rates, latencies, memory. The load runs on this machine too.

    Example: flexmeter bench ingest --case single --rate 20000 --seconds 600
    """
    from flexmeter.app.bench import CASES, Options, run_case
    from flexmeter.app.stress import STRESS_CASES

    for name in case or CASES | STRESS_CASES:
        with tempfile.TemporaryDirectory(prefix="flexmeter-bench-") as folder:
            result = run_case(name, Path(folder), Options(seconds, rate, clients, sync))
        print(
            json.dumps(result) if as_json else "  ".join(f"{key}={value}" for key, value in result.items()), flush=True
        )


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(chaos)
    app.command()(edge)
    app.add_typer(bench_app, name="bench")
