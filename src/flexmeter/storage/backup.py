"""Backups of all tenants while the platform runs, and putting one back.

target/manifest.json            what there is, with checksums; written last
target/{tenant}/...             what the engine's backup wrote
target/platform/{name}          other files, such as the registry's
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from flexmeter.errors import InputError, StorageError
from flexmeter.storage.base import Store

MANIFEST = "manifest.json"
PLATFORM = "platform"


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds: tenants, time [ms UTC], and SHA-256 and size of every file."""

    time_ms: int
    tenants: tuple[str, ...]
    files: dict[str, tuple[str, int]]
    version: int = 1


def back_up(
    stores: Sequence[Store], target: Path, now_ms: int, others: Mapping[str, Callable[[Path], None]] | None = None
) -> Manifest:
    """Write a backup into a new folder; each store's part is one state of it.

    `others` writes further files of the platform, by name. The folder has its name only when it is
    complete. InputError: the folder is there. StorageError: a store could not be copied.
    """
    if target.exists():
        raise InputError(f"backup: {target} is there already, expected a new folder")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / PLATFORM).mkdir(parents=True)
        for store in stores:
            store.backup(part / store.tenant)
        for name, write in (others or {}).items():
            write(part / PLATFORM / name)
        files = {str(file.relative_to(part)): _fingerprint(file) for file in _files(part)}
        manifest = Manifest(now_ms, tuple(store.tenant for store in stores), files)
        (part / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        part.rename(target)
    except OSError as error:
        raise StorageError(f"backup: {error.filename or target}: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def check_backup(source: Path) -> Manifest:
    """Return the manifest of a backup whose files are all as they were written, else InputError."""
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"backup {source}: no readable {MANIFEST}") from error
    for name, expected in manifest.files.items():
        file = source / name
        if not file.is_file() or _fingerprint(file) != expected:
            raise InputError(f"backup {source}: {name} is missing or not as it was written")
    return manifest


def restore(source: Path, folder: Path) -> Manifest:
    """Put the DuckDB files of a backup into an empty data folder, and `platform/` beside them.

    The platform must not run. InputError: a damaged backup, or the folder is not empty.
    """
    manifest = check_backup(source)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"restore: {folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    for name in manifest.files:
        file = source / name
        place = folder / (Path(name) if Path(name).parts[0] == PLATFORM else Path(name).name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
    return manifest


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fingerprint(file: Path) -> tuple[str, int]:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest(), file.stat().st_size
