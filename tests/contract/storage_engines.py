"""The engines that the contract suite runs against, each with a place for its databases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from clickhouse_chdb import clickhouse_house
from influxdb_server import influxdb_house
from postgresql_server import postgresql_house

from flexmeter.storage.base import Engine
from flexmeter.storage.duckdb import DuckdbEngine, DuckdbOptions


class EngineHouse(Protocol):
    """Opens engines by the name of their database, and can open a backup of one."""

    can_backup: bool

    def new_database(self) -> str: ...

    def open(self, database: str) -> Engine: ...

    def open_backup(self, folder: Path, database: str) -> Engine: ...


class DuckdbHouse:
    can_backup = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def new_database(self) -> str:
        return f"tenant{next(self._numbers)}.duckdb"

    def open(self, database: str) -> Engine:
        return DuckdbEngine.open(self._folder / database, DuckdbOptions(memory_mb=256, sort_rows=20))

    def open_backup(self, folder: Path, database: str) -> Engine:
        (file,) = folder.iterdir()
        return DuckdbEngine.open(file)


@contextmanager
def duckdb_house(folder: Path) -> Iterator[EngineHouse]:
    yield DuckdbHouse(folder)


ENGINES: dict[str, Callable[[Path], AbstractContextManager[EngineHouse]]] = {
    "clickhouse": clickhouse_house,
    "duckdb": duckdb_house,
    "influxdb": influxdb_house,
    "postgresql": postgresql_house,
}
