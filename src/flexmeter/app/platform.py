"""The platform of one tenant as a process: Event Source, store and REST API in one event loop.

    broker -> EventSource -> DirectWriter -> DuckDB        HTTPS -> API -> the same store

One process owns the database file; everybody else asks the API.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from flexmeter.api import Platform, create_app, serve
from flexmeter.errors import StorageError
from flexmeter.messages.rows import WriteResult
from flexmeter.messaging.authority import Credential
from flexmeter.messaging.identity import Identity, may_publish
from flexmeter.messaging.mqtt import Endpoint, MqttClient
from flexmeter.pipeline import Counters, DeadLetters, DirectWriter, EventSource
from flexmeter.registry import open_registry
from flexmeter.services.link import now_ms
from flexmeter.services.settings import Broker
from flexmeter.storage.duckdb import open_duckdb_stores

PATIENCE_S = 20.0


class PlatformSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a platform process; `folder` holds the databases, `registry` is the file with tokens."""

    tenant: str
    name: str
    folder: Path
    registry: Path
    broker: Broker
    host: str
    port: int
    certificate: Path
    key: Path


async def run_platform(settings: PlatformSettings) -> None:
    """Store and serve until cancelled; what was received is committed before the end."""
    broker = settings.broker
    tls = Credential(broker.certificate, broker.key, broker.authority).client_context()
    who = Identity(settings.tenant, settings.name, "platform")
    endpoint = Endpoint(broker.host, broker.port, tls)
    mqtt = MqttClient(endpoint, who.name, clean=False, patience_s=PATIENCE_S, may_publish=may_publish(who))
    settings.folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stores = open_duckdb_stores(settings.folder)
        stack.callback(stores.close)
        registry = open_registry(settings.registry)
        stack.callback(registry.close)
        writer = DirectWriter(stores.store(settings.tenant))
        stack.callback(writer.close)
        letters = DeadLetters(settings.folder / f"{settings.tenant}.letters.sqlite")
        source = EventSource(settings.tenant, mqtt, writer, letters, now_ms=now_ms)
        await stack.enter_async_context(source)
        platform = Platform(
            stores=stores,
            registry=registry,
            ingest=_no_ingest,
            alert=None,
            metrics=lambda: metrics(settings.tenant, source.pipeline.counters),
            not_ready=lambda: [] if mqtt.connected else ["not connected to the broker"],
        )
        app = create_app(platform)
        await stack.enter_async_context(
            serve(app, host=settings.host, port=settings.port, certificate=settings.certificate, key=settings.key)
        )
        await asyncio.Event().wait()


async def _no_ingest(tenant: str, payload: bytes) -> WriteResult:
    raise StorageError(f"{tenant}: this platform takes readings over MQTT only ({len(payload)} bytes refused)")


def metrics(tenant: str, counters: Counters) -> str:
    """Return the counters in the Prometheus text format."""
    lines = []
    for name, value in msgspec.structs.asdict(counters).items():
        kind = "gauge" if name == "queued" else "counter"
        lines += [f"# TYPE flexmeter_{name} {kind}", f'flexmeter_{name}{{tenant="{tenant}"}} {value}']
    return "\n".join(lines) + "\n"
