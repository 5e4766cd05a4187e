"""The engines that the contract suite runs against, each with a place for its databases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from flexmeter.storage.base import Engine
from flexmeter.storage.duckdb import DuckdbEngine, DuckdbOptions


class EngineHouse(Protocol):
    """Opens engines by the name of their database, and can open a backup of one."""

    def new_database(self) -> str: ...

    def open(self, database: str) -> Engine: ...

    def open_backup(self, folder: Path) -> Engine: ...


class DuckdbHouse:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def new_database(self) -> str:
        return f"tenant{next(self._numbers)}.duckdb"

    def open(self, database: str) -> Engine:
        return DuckdbEngine.open(self._folder / database, DuckdbOptions(memory_mb=256))

    def open_backup(self, folder: Path) -> Engine:
        (file,) = folder.iterdir()
        return DuckdbEngine.open(file)


@contextmanager
def duckdb_house(folder: Path) -> Iterator[EngineHouse]:
    yield DuckdbHouse(folder)


ENGINES: dict[str, Callable[[Path], AbstractContextManager[EngineHouse]]] = {
    "duckdb": duckdb_house,
}
