"""The store process of a platform: Event Sources, stores and REST API of all tenants in one event loop.

    broker -> EventSource -> DirectWriter -> DuckDB        HTTPS -> API -> the same stores

One process owns the database files; everybody else asks the API.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from flexmeter.api import Platform, create_app, serve
from flexmeter.app.addresses import ApiAddress, broker_address, write_address
from flexmeter.app.backup import open_stores, serve_request
from flexmeter.app.identities import PLATFORM
from flexmeter.config import Config
from flexmeter.errors import AccessError, ServiceError
from flexmeter.messages.rows import WriteResult
from flexmeter.messaging import Endpoint, Identity, MqttClient, may_publish, open_authority
from flexmeter.pipeline import (
    DeadLetters,
    DirectWriter,
    EventSource,
    Gathering,
    Limits,
    Quota,
    metrics_text,
)
from flexmeter.registry import open_registry
from flexmeter.storage import TenantStores

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
MAINTAIN_S = 60.0


def now_ms() -> int:
    """Return the present time [ms UTC]."""
    return time.time_ns() // 1_000_000


@dataclass
class Sources:
    """The Event Sources of all tenants: what the API needs of them."""

    by_tenant: dict[str, EventSource] = field(default_factory=dict)
    clients: dict[str, MqttClient] = field(default_factory=dict)

    async def ingest(self, tenant: str, payload: bytes) -> WriteResult:
        """Store a batch that came by HTTP; return after the commit."""
        if tenant not in self.by_tenant:
            raise AccessError(f"tenant {tenant}: not served by this platform")
        return await self.by_tenant[tenant].pipeline.submit(payload)

    def metrics(self) -> str:
        """Return the counters in the Prometheus text format."""
        return metrics_text(source.pipeline for source in self.by_tenant.values())

    def not_ready(self) -> list[str]:
        """Return why readings cannot be taken now, if they cannot."""
        reasons = [
            f"{tenant}: not connected to the broker" for tenant, one in self.clients.items() if not one.connected
        ]
        for tenant, source in self.by_tenant.items():
            if source.pipeline.store_error:
                reasons.append(f"{tenant}: {source.pipeline.store_error}")
        return reasons

    def check(self) -> None:
        """Raise the error of a pipeline that ended; the supervisor starts this process anew."""
        for tenant, source in self.by_tenant.items():
            if source.pipeline.failure is not None:
                raise ServiceError(f"pipeline of {tenant} failed: {source.pipeline.failure!r}")


async def run_store(config: Config) -> None:
    """Store and serve until cancelled; what was received is committed before the end."""
    authority = open_authority(config.data_folder / "certificates")
    async with AsyncExitStack() as stack:
        stores = open_stores(config)
        stack.callback(stores.close)
        registry = open_registry(config.data_folder / "registry.sqlite")
        stack.callback(registry.close)
        sources = Sources()
        broker = broker_address(config)
        for tenant in config.tenants:
            who = Identity(tenant, PLATFORM, "platform")
            endpoint = Endpoint(broker.host, broker.port, authority.client(who).client_context())
            client = MqttClient(endpoint, who.name, clean=False, patience_s=PATIENCE_S, may_publish=may_publish(who))
            writer = DirectWriter(stores.store(tenant))
            stack.callback(writer.close)
            source = _event_source(config, tenant, client, writer)
            sources.clients[tenant] = client
            sources.by_tenant[tenant] = await stack.enter_async_context(source)
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


def _event_source(config: Config, tenant: str, client: MqttClient, writer: DirectWriter) -> EventSource:
    ingest = config.ingest
    letters = DeadLetters(letters_path(config, tenant), max_bytes=ingest.dead_letters_mb * 2**20)
    return EventSource(
        tenant,
        client,
        writer,
        letters,
        now_ms=now_ms,
        limits=Limits(ingest.max_message_kb * 1024, ingest.future_s, past_days=ingest.past_days),
        gathering=Gathering(ingest.window_ms / 1000, max_waiting_bytes=ingest.max_waiting_mb * 2**20),
        quota=Quota(config.quota.tenant_values_per_s, config.quota.device_messages_per_s),
    )


def letters_path(config: Config, tenant: str) -> Path:
    """Return where the dead letters of a tenant are."""
    return config.data_folder / "letters" / f"{tenant}.sqlite"
