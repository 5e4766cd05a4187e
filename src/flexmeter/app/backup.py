"""Consistent copies of everything a platform keeps, also while it runs, and the way back.

A copy lists its files with their checksums (`backup.json`), so that `restore` can tell whether it is whole. One process
owns the databases, so a command leaves a request beside the data (`run/backup.request`); the store process finds it
within a second, copies, and answers in `run/backup.answer`. If none runs, the command copies.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import sqlite3
from pathlib import Path

import msgspec

from flexmeter.app.addresses import api_address
from flexmeter.config import Config, read_config
from flexmeter.errors import FlexmeterError, InputError, ServiceError
from flexmeter.storage import Retention, Selection, Span, TenantStores
from flexmeter.storage.duckdb import DuckdbOptions, open_duckdb_stores

PATIENCE_S = 600.0
MANIFEST = "backup.json"
CONFIGURATION = "flexmeter.toml"
DATA = "data"
_FOLDER_LINE = re.compile(r"^folder *=.*$", re.MULTILINE)


class _Answer(msgspec.Struct):
    error: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a copy consists of: the SHA-256 of every file, by its path in the copy."""

    version: int
    files: dict[str, str]


async def back_up(config: Config, config_file: Path, target: Path) -> list[str]:
    """Write a copy into a folder that is empty or absent; return the names of its files."""
    _make_empty(target)
    try:
        text = _FOLDER_LINE.sub(f'folder = "{DATA}"', config_file.read_text(), count=1)
        (target / CONFIGURATION).write_text(text)
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
    return await asyncio.to_thread(_write_manifest, target)


def restore(copy: Path, folder: Path) -> dict[str, int]:
    """Make a platform's folder, which is empty or absent, from a copy; return the number of readings per tenant.

    The copy is checked first, file by file; at the end the databases are opened and their readings counted.
    """
    manifest = _checked_manifest(copy)
    _make_empty(folder)
    try:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copy(copy / name, folder / name)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error
    config = read_config(folder / CONFIGURATION)
    stores = open_stores(config)
    try:
        return {tenant: _count_readings(stores, tenant) for tenant in config.tenants}
    finally:
        stores.close()


def open_stores(config: Config) -> TenantStores:
    """Return the stores of a platform; only one process may do so at a time."""
    options = DuckdbOptions(memory_mb=config.data.memory_mb)
    retention = Retention(rows_days=config.data.raw_days)
    return open_duckdb_stores(config.data_folder / "stores", options=options, retention=retention)


def copy_all(config: Config, stores: TenantStores, target: Path) -> None:
    """Copy databases, registry, dead letters and certificates, laid out as in the data folder."""
    data = target / DATA
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


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder}: expected an empty folder")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error


def _write_manifest(target: Path) -> list[str]:
    names = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    manifest = Manifest(1, {name: _checksum(target / name) for name in names})
    (target / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return names


def _checked_manifest(copy: Path) -> Manifest:
    """Return what a copy consists of; raise `InputError` naming every file that is missing or damaged."""
    try:
        manifest = msgspec.json.decode((copy / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise InputError(f"{copy}: expected a folder made by `flexmeter backup`, with {MANIFEST}: {error}") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"{copy / MANIFEST}: {error}") from None
    if CONFIGURATION not in manifest.files or any(".." in Path(name).parts for name in manifest.files):
        raise InputError(f"{copy / MANIFEST}: expected {CONFIGURATION} and files within the folder")
    wrong = [name for name, checksum in manifest.files.items() if _checksum(copy / name) != checksum]
    if wrong:
        raise InputError(f"{copy}: missing or damaged: {', '.join(wrong)}")
    return manifest


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file, empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _count_readings(stores: TenantStores, tenant: str) -> int:
    return sum(batch.num_rows for batch in stores.store(tenant).readings(Selection(), Span(0, 2**62)))


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
