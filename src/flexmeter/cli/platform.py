"""`flexmeter init`, `up`, `run`, `backup` and what belongs to a running platform."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer

from flexmeter.cli import doctor, letters, proof, talk
from flexmeter.cli.shared import CONFIG, JSON
from flexmeter.errors import InputError

FIRST_DEVICE = "meter-1"


def init(
    folder: Path = typer.Argument(Path(), help="Folder to put flexmeter.toml and the data into."),
    tenant: str = typer.Option("main", "--tenant", help="Name of the first tenant."),
    as_json: bool = JSON,
) -> None:
    """Make a platform: configuration, certificate authority, first tenant, first device, an API token.

    Example: flexmeter init house && flexmeter up --config house/flexmeter.toml
    """
    from flexmeter.app.setup import set_up

    made = set_up(folder, tenant, FIRST_DEVICE)
    if as_json:
        print(json.dumps({key: str(value) for key, value in made.items()}))
        return
    for what, path in made.items():
        print(f"{what:12} {path}")
    print(f"Next: flexmeter up --config {made['configuration']}")


def up(config: Path = CONFIG) -> None:
    """Run the platform: broker, Event Sources, database, REST API; Ctrl-C stops it in order.

    Example: flexmeter up --config house/flexmeter.toml
    """
    from flexmeter.app.house import run_house
    from flexmeter.app.process import run_until_stopped
    from flexmeter.config import read_config

    def announce(url: str) -> None:
        print(f"ready: {url} (docs at {url}/docs)", flush=True)

    run_until_stopped(run_house(read_config(config), config.resolve(), announce))


def run(
    service: str = typer.Argument(help="platform, source, broker, topology, lv, mv or reconfiguration."),
    config: Path = CONFIG,
    settings: Path | None = typer.Option(None, "--settings", help="TOML file of a grid service."),
    number: int = typer.Option(1, "--number", min=1, help="Which of several sources, with ingest.mode = stream."),
) -> None:
    """Run one process alone, on this or another machine.

    Example: flexmeter run platform --config house/flexmeter.toml
    """
    from flexmeter.app.process import run_until_stopped

    if service in ("platform", "source", "broker"):
        from flexmeter.app.node import run_node
        from flexmeter.app.store import run_sources, run_store
        from flexmeter.config import read_config

        platform = read_config(config)
        if service == "platform":
            run_until_stopped(run_store(platform))
        else:
            run_until_stopped(run_sources(platform, number) if service == "source" else run_node(platform))
        return
    from flexmeter.app.services import SERVICES, run_service
    from flexmeter.app.topology import TopologySettings, run_topology
    from flexmeter.services.settings import read_settings, read_toml

    if service != "topology" and service not in SERVICES:
        raise InputError(f"service {service!r}: expected platform, source, broker, topology, {', '.join(SERVICES)}")
    if settings is None:
        raise InputError(f"service {service}: expected --settings FILE")
    if service == "topology":
        run_until_stopped(run_topology(read_toml(settings, TopologySettings)))
    else:
        run_until_stopped(run_service(read_settings(settings)))


def backup(
    target: Path = typer.Argument(help="Folder to write to; it must be empty or absent."),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Write a consistent copy of databases, registry, dead letters and certificates, also while running.

    Example: flexmeter backup /mnt/backup/monday
    """
    import asyncio

    from flexmeter.app.backup import back_up
    from flexmeter.config import read_config

    files = asyncio.run(back_up(read_config(config), config, target))
    if as_json:
        json.dump({"target": str(target), "files": files}, sys.stdout)
    else:
        print(f"{len(files)} files in {target}; `flexmeter restore {target} FOLDER` makes a platform of it")


def restore(
    copy: Path = typer.Argument(help="Folder that `flexmeter backup` wrote."),
    folder: Path = typer.Argument(help="Folder of the new platform; it must be empty or absent."),
    as_json: bool = JSON,
) -> None:
    """Make a platform from a backup: check every file, copy, open the databases, count the readings.

    Example: flexmeter restore /mnt/backup/monday house
    """
    from flexmeter.app.backup import restore as restore_copy

    readings = restore_copy(copy, folder)
    if as_json:
        json.dump({"folder": str(folder), "readings": readings}, sys.stdout)
        return
    for tenant, count in readings.items():
        print(f"{tenant}: {count} readings")
    print(f"Next: flexmeter up --config {folder / 'flexmeter.toml'}")


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for command in (init, up, run, backup, restore):
        app.command()(command)
    for family in (talk, doctor, letters, proof):
        family.register(app)
