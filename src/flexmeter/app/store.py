"""The store process of a platform: Event Sources, stores and REST API of all tenants in one event loop.

    broker -> EventSource -> DirectWriter -> DuckDB        HTTPS -> API -> the same stores

One process owns the database files; everybody else asks the API.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from flexmeter.api import Platform, create_app, serve
from flexmeter.app.addresses import ApiAddress, write_address
from flexmeter.app.backup import open_stores, serve_request
from flexmeter.app.tenants import TenantIngest, direct_ingest, run_source, stream_ingest
from flexmeter.config import Config
from flexmeter.errors import AccessError, InputError, ServiceError
from flexmeter.messages.rows import WriteResult
from flexmeter.messaging import open_authority
from flexmeter.pipeline import metrics_text
from flexmeter.registry import open_registry
from flexmeter.storage import TenantStores

log = logging.getLogger(__name__)

MAINTAIN_S = 60.0
SWITCH_S = 0.0005
"""How long a thread that writes may keep the loop waiting; Python's 5 ms are a quarter of a window."""


@dataclass
class Sources:
    """The ways into the stores of all tenants: what the API needs of them."""

    by_tenant: dict[str, TenantIngest] = field(default_factory=dict)

    async def ingest(self, tenant: str, payload: bytes) -> WriteResult:
        """Store a batch that came by HTTP; return after the commit."""
        if tenant not in self.by_tenant:
            raise AccessError(f"tenant {tenant}: not served by this platform")
        return await self.by_tenant[tenant].submit(payload)

    def metrics(self) -> str:
        """Return the counters in the Prometheus text format."""
        return metrics_text(self.by_tenant.values())

    def not_ready(self) -> list[str]:
        """Return why readings cannot be taken now, if they cannot."""
        reasons = []
        for tenant, one in self.by_tenant.items():
            if not one.connected():
                reasons.append(f"{tenant}: not connected to the broker")
            if one.store_error:
                reasons.append(f"{tenant}: {one.store_error}")
        return reasons

    def check(self) -> None:
        """Raise the error of a pipeline that ended; the supervisor starts this process anew."""
        for tenant, one in self.by_tenant.items():
            if one.failure is not None:
                raise ServiceError(f"pipeline of {tenant} failed: {one.failure!r}")


async def run_store(config: Config) -> None:
    """Store and serve until cancelled; what was received is committed before the end."""
    sys.setswitchinterval(SWITCH_S)
    authority = open_authority(config.data_folder / "certificates")
    async with AsyncExitStack() as stack:
        stores = open_stores(config)
        stack.callback(stores.close)
        registry = open_registry(config.data_folder / "registry.sqlite")
        stack.callback(registry.close)
        sources = Sources()
        way_in = direct_ingest if config.ingest.mode == "direct" else stream_ingest
        for tenant in config.tenants:
            ingest = way_in(config, authority, stores.store(tenant))
            sources.by_tenant[tenant] = await stack.enter_async_context(ingest)
        platform = Platform(
            stores=stores,
            registry=registry,
            ingest=sources.ingest,
            alert=None,
            metrics=sources.metrics,
            not_ready=sources.not_ready,
        )
        server = authority.server(("localhost", "127.0.0.1", config.api.host), "api")
        served = await stack.enter_async_context(
            serve(
                create_app(platform),
                host=config.api.host,
                port=config.api.port,
                certificate=server.certificate,
                key=server.key,
            )
        )
        write_address(config, ApiAddress(served.url, os.getpid()))
        log.info("event=ready url=%s tenants=%s", served.url, ",".join(config.tenants))
        await _look_after(config, sources, stores)


async def run_sources(config: Config, number: int) -> None:
    """Be Event Source `number` of every tenant, until cancelled."""
    if config.ingest.mode != "stream":
        raise InputError('run source: expected ingest.mode = "stream" in the configuration')
    authority = open_authority(config.data_folder / "certificates")
    await asyncio.gather(*(run_source(config, authority, tenant, number) for tenant in config.tenants))


async def _look_after(config: Config, sources: Sources, stores: TenantStores) -> None:
    """Keep roll-ups and retention up to date, and fail loudly with a pipeline that failed."""
    maintained_s = 0.0
    while True:
        await asyncio.sleep(1.0)
        sources.check()
        await asyncio.to_thread(serve_request, config, stores)
        if time.monotonic() - maintained_s > MAINTAIN_S:
            maintained_s = time.monotonic()
            for store in stores.opened():
                await asyncio.to_thread(store.maintain)
