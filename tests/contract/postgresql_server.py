"""A PostgreSQL server of one's own for tests, on a socket in a folder of its own."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from flexmeter.storage.base import Engine
from flexmeter.storage.postgresql import PostgresqlEngine
from flexmeter.storage.postgresql.engine import BACKUP_FILE


def programs() -> Path | None:
    """Return the folder of the newest server that is installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[4]))
    if debian:
        return debian[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


def user() -> str | None:
    """Return whom the server runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Yield how to connect to a server that lives as long as the block."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("no PostgreSQL server installed (Debian: postgresql)")
    owner = user()
    with tempfile.TemporaryDirectory(prefix="fm-pg-") as home:  # short: a socket's path is limited
        if owner is not None:
            shutil.chown(home, owner)
        data = Path(home) / "data"
        initdb = [bin_folder / "initdb", "-D", data, "-U", "flexmeter", "--auth=trust", "--encoding=UTF8"]
        subprocess.run([*initdb, "--no-locale", "--no-sync"], user=owner, check=True, capture_output=True)
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
        control = [bin_folder / "pg_ctl", "-D", data, "-w", "-s", "-l", Path(home) / "log"]
        subprocess.run([*control, "-o", options, "start"], user=owner, check=True)
        try:
            yield f"host={home} user=flexmeter dbname=postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], user=owner, check=True)


class PostgresqlHouse:
    can_backup = shutil.which("pg_dump") is not None

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._numbers = itertools.count()

    def new_database(self) -> str:
        """Return the name of a new schema, which is made much faster than a database."""
        name = f"tenant{next(self._numbers)}"
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute(f"create schema {name}".encode())
        return name

    def open(self, database: str) -> Engine:
        return PostgresqlEngine.open(f"{self._conninfo} options='-csearch_path={database}'")

    def open_backup(self, folder: Path, database: str) -> Engine:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute(f"create database copy_of_{database}".encode())
        there = f"{self._conninfo} dbname=copy_of_{database}"
        command = ["pg_restore", "--dbname", there, folder / BACKUP_FILE]
        subprocess.run(command, check=True, capture_output=True)
        return PostgresqlEngine.open(f"{there} options='-csearch_path={database}'")


@contextmanager
def postgresql_house(folder: Path) -> Iterator[PostgresqlHouse]:
    with postgresql_server() as conninfo:
        yield PostgresqlHouse(conninfo)
