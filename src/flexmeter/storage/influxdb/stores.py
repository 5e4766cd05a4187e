"""Stores of all tenants on one InfluxDB server, each in a database of its own."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import httpx

from flexmeter.storage.influxdb.client import TIMEOUT_S, InfluxClient
from flexmeter.storage.influxdb.engine import InfluxEngine
from flexmeter.storage.rollups import Retention
from flexmeter.storage.store import TenantStore, wall_clock_ms
from flexmeter.storage.tenants import TenantStores, check_tenant


def open_influxdb_stores(
    url: str,
    *,
    user: str = "",
    password: str = "",
    tls: ssl.SSLContext | None = None,
    prefix: str = "flexmeter_",
    retention: Retention | None = None,
    clock: Callable[[], int] = wall_clock_ms,
) -> TenantStores:
    """Return stores in databases `{prefix}{tenant}`; those that are missing are created."""

    def open_store(tenant: str) -> TenantStore:
        check_tenant(tenant)
        http = httpx.Client(
            base_url=url,
            auth=(user, password) if user else None,
            verify=tls or True,
            timeout=TIMEOUT_S,
            trust_env=False,
        )
        engine = InfluxEngine.open(InfluxClient(http, prefix + tenant))
        return TenantStore(tenant, engine, clock=clock, retention=retention)

    return TenantStores(open_store)
