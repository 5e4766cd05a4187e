"""Everything the registry keeps, over one database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flexmeter.registry.database import Database
from flexmeter.registry.devices import Devices
from flexmeter.registry.grids import Grids
from flexmeter.registry.recommendations import Recommendations
from flexmeter.registry.tenants import Tenants
from flexmeter.registry.tokens import Tokens
from flexmeter.registry.topology import Topologies


@dataclass(frozen=True, slots=True)
class Registry:
    """Tenants, tokens, devices, grids, topologies and recommendations of a platform."""

    database: Database
    tenants: Tenants
    tokens: Tokens
    devices: Devices
    grids: Grids
    topologies: Topologies
    recommendations: Recommendations

    def close(self) -> None:
        """Release the database."""
        self.database.close()


def open_registry(path: Path, *, clock: Callable[[], int] | None = None) -> Registry:
    """Open or create the registry in a SQLite file; `clock` gives the time [ms UTC]."""
    clock = clock or _wall_clock_ms
    database = Database.open(path)
    tenants = Tenants(database, clock)
    return Registry(
        database=database,
        tenants=tenants,
        tokens=Tokens(database, tenants, clock),
        devices=Devices(database, tenants, clock),
        grids=Grids(database, tenants, clock),
        topologies=Topologies(database, clock),
        recommendations=Recommendations(database, clock),
    )


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
