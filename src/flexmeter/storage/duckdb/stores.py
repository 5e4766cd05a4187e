"""Stores of all tenants in one folder of DuckDB files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flexmeter.storage.archive import Archive
from flexmeter.storage.duckdb.engine import DuckdbEngine, DuckdbOptions
from flexmeter.storage.rollups import Retention
from flexmeter.storage.store import TenantStore, wall_clock_ms
from flexmeter.storage.tenants import TenantStores, check_tenant


def open_duckdb_stores(
    folder: Path,
    *,
    options: DuckdbOptions | None = None,
    retention: Retention | None = None,
    archive: Path | None = None,
    clock: Callable[[], int] = wall_clock_ms,
) -> TenantStores:
    """Return stores that lie in `folder/{tenant}.duckdb`; files are opened when first needed.

    With `archive`, what retention deletes goes to Parquet files in `archive/{tenant}/` first.
    """

    def open_store(tenant: str) -> TenantStore:
        check_tenant(tenant)
        engine = DuckdbEngine.open(folder / f"{tenant}.duckdb", options)
        days = None if archive is None else Archive(archive / tenant)
        return TenantStore(tenant, engine, clock=clock, retention=retention, archive=days)

    return TenantStores(open_store)
