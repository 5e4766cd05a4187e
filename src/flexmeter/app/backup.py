"""Consistent copies of everything a platform keeps, also while it runs.

One process owns the databases, so a command leaves a request beside the data (`run/backup.request`); the store
process finds it within a second, copies, and answers in `run/backup.answer`. If none runs, the command copies.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import msgspec

from flexmeter.app.addresses import api_address
from flexmeter.config import Config
from flexmeter.errors import FlexmeterError, InputError, ServiceError
from flexmeter.storage import Retention, TenantStores
from flexmeter.storage.duckdb import DuckdbOptions, open_duckdb_stores

PATIENCE_S = 600.0


class _Answer(msgspec.Struct):
    error: str = ""


async def back_up(config: Config, config_file: Path, target: Path) -> list[str]:
    """Write a copy into a folder that is empty or absent; return the names of its files."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise InputError(f"{target}: expected an empty folder")
        shutil.copy(config_file, target / "flexmeter.toml")
    except OSError as error:
        raise InputError(f"{target}: {error.strerror or error}") from error
    if _is_running(config):
        await _ask(config, target)
    else:
        stores = open_stores(config)
        try:
            await asyncio.to_thread(copy_all, config, stores, target)
        finally:
            stores.close()
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())


def open_stores(config: Config) -> TenantStores:
    """Return the stores of a platform; only one process may do so at a time."""
    options = DuckdbOptions(memory_mb=config.data.memory_mb)
    retention = Retention(rows_days=config.data.raw_days)
    return open_duckdb_stores(config.data_folder / "stores", options=options, retention=retention)


def copy_all(config: Config, stores: TenantStores, target: Path) -> None:
    """Copy databases, registry, dead letters and certificates, laid out as in the data folder."""
    data = target / config.data.folder
    for tenant in config.tenants:
        copy = data / "stores.copy" / tenant
        stores.store(tenant).backup(copy)
        (data / "stores").mkdir(parents=True, exist_ok=True)
        for file in copy.iterdir():
            file.rename(data / "stores" / file.name)
    shutil.rmtree(data / "stores.copy")
    for file in [config.data_folder / "registry.sqlite", *(config.data_folder / "letters").glob("*.sqlite")]:
        _copy_sqlite(file, data / file.relative_to(config.data_folder))
    shutil.copytree(config.data_folder / "certificates", data / "certificates")
    for token in config.data_folder.glob("*.token"):
        shutil.copy(token, data / token.name)


def serve_request(config: Config, stores: TenantStores) -> None:
    """Do the backup that a command asked for, if one did."""
    request, answer = _files(config)
    if not request.exists():
        return
    target = Path(request.read_text())
    request.unlink()
    try:
        copy_all(config, stores, target)
        text = ""
    except (FlexmeterError, OSError, sqlite3.Error) as error:
        text = str(error)
    partial = answer.with_suffix(".part")
    partial.write_bytes(msgspec.json.encode(_Answer(text)))
    partial.replace(answer)


async def _ask(config: Config, target: Path) -> None:
    request, answer = _files(config)
    answer.unlink(missing_ok=True)
    partial = request.with_suffix(".part")
    partial.write_text(str(target.resolve()))
    partial.replace(request)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not answer.exists():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise ServiceError("the platform does not answer the request for a backup") from None
    error = msgspec.json.decode(answer.read_bytes(), type=_Answer).error
    if error:
        raise ServiceError(f"backup: {error}")


def _copy_sqlite(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    first, second = sqlite3.connect(source), sqlite3.connect(target)
    try:
        first.backup(second)
    finally:
        first.close()
        second.close()
    target.chmod(0o600)


def _is_running(config: Config) -> bool:
    try:
        return Path(f"/proc/{api_address(config).pid}").exists()
    except ServiceError:
        return False


def _files(config: Config) -> tuple[Path, Path]:
    folder = config.data_folder / "run"
    return folder / "backup.request", folder / "backup.answer"
