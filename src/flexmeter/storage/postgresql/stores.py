"""Stores of all tenants on one PostgreSQL server, each in a database of its own."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from flexmeter.errors import StorageError
from flexmeter.storage.postgresql.engine import PostgresqlEngine
from flexmeter.storage.rollups import Retention
from flexmeter.storage.store import TenantStore, wall_clock_ms
from flexmeter.storage.tenants import TenantStores, check_tenant


def open_postgresql_stores(
    conninfo: str,
    *,
    prefix: str = "flexmeter_",
    retention: Retention | None = None,
    clock: Callable[[], int] = wall_clock_ms,
) -> TenantStores:
    """Return stores in databases `{prefix}{tenant}`; those that are missing are created."""

    def open_store(tenant: str) -> TenantStore:
        check_tenant(tenant)
        name = prefix + tenant
        _create_database(conninfo, name)
        engine = PostgresqlEngine.open(make_conninfo(conninfo, dbname=name))
        return TenantStore(tenant, engine, clock=clock, retention=retention)

    return TenantStores(open_store)


def _create_database(conninfo: str, name: str) -> None:
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            if connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise StorageError(f"PostgreSQL: {str(error).strip().splitlines()[0]}") from error
