"""How the readings of one tenant reach its store: directly, or over a durable stream.

direct   MQTT session -> EventSource -> DirectWriter -> store             all in the store process
stream   shared MQTT messages -> EventSource -> StreamWriter -> stream    in each `flexmeter run source`
         stream -> StreamConsumer -> store                                in the store process
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from flexmeter.app.addresses import broker_address
from flexmeter.app.identities import PLATFORM
from flexmeter.config import Config
from flexmeter.messages.rows import WriteResult
from flexmeter.messaging import Authority, Endpoint, Identity, MqttClient, may_publish
from flexmeter.messaging.broker import MAX_UNACKNOWLEDGED
from flexmeter.pipeline import (
    Counters,
    DeadLetters,
    DirectWriter,
    EventSource,
    Gathering,
    InboundPipeline,
    Limits,
    Quota,
)
from flexmeter.pipeline.brake import Brake
from flexmeter.pipeline.sequences import Sequences
from flexmeter.pipeline.shared import SharedSession, ensure_consumer
from flexmeter.pipeline.source import stored_filters
from flexmeter.pipeline.stream import StreamConsumer, StreamWriter, connected, ensure_stream
from flexmeter.storage import Store

PATIENCE_S = 20.0
CLUSTER_REPLICAS = 3


@dataclass
class TenantIngest:
    """One tenant's way into the store, as the API and the metrics see it.

    Attributes
    ----------
    pipeline : checks what comes over MQTT (direct) or HTTP (stream).
    consumer : writes what comes over the stream, None when direct.
    connected : whether the broker can be reached now.
    work : ends only by failing; None when direct.
    """

    tenant: str
    pipeline: InboundPipeline
    consumer: StreamConsumer | None
    connected: Callable[[], bool]
    work: asyncio.Task[None] | None = None

    @property
    def counters(self) -> Counters:
        """The account of this process; over a stream refused HTTP batches are counted with what was consumed."""
        if self.consumer is None:
            return self.pipeline.counters
        refused = self.pipeline.counters.rejected
        return self.consumer.counters + Counters(received=refused, rejected=refused)

    @property
    def sequences(self) -> Sequences:
        """Numbers that are missing."""
        return self.pipeline.sequences

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for their commit."""
        return self.pipeline.waiting_bytes

    @property
    def store_error(self) -> str:
        """Why the store does not commit now, empty while it does."""
        return self.pipeline.store_error or (self.consumer.store_error if self.consumer else "")

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the work, which never should."""
        if self.work is not None and self.work.done() and not self.work.cancelled():
            return self.work.exception()
        return self.pipeline.failure

    async def submit(self, payload: bytes) -> WriteResult:
        """Take one batch that came by HTTP."""
        return await self.pipeline.submit(payload)


@asynccontextmanager
async def direct_ingest(config: Config, authority: Authority, store: Store) -> AsyncIterator[TenantIngest]:
    """Read the tenant's session and write to the store, in this process."""
    tenant = store.tenant
    address = broker_address(config)
    tls = authority.client(Identity(tenant, PLATFORM, "platform")).client_context()
    client = _mqtt(config, authority, tenant, PLATFORM, clean=False)
    notes = _mqtt(config, authority, tenant, "notes")
    writer = DirectWriter(store)
    source = EventSource(tenant, client, writer, letters(config, tenant), notes=notes, **bounds(config))
    try:
        async with (
            notes,
            source,
            connected(address.host, address.client_port, tls, "brake") as nats,
            Brake(tenant, nats.jetstream(), source.pipeline),
        ):
            yield TenantIngest(tenant, source.pipeline, None, lambda: client.connected)
    finally:
        writer.close()


@asynccontextmanager
async def stream_ingest(config: Config, authority: Authority, store: Store) -> AsyncIterator[TenantIngest]:
    """Write what the Event Sources put on the stream to the store; HTTP goes over the stream as well."""
    tenant = store.tenant
    address = broker_address(config)
    tls = authority.client(Identity(tenant, PLATFORM, "platform")).client_context()
    async with connected(address.host, address.client_port, tls, "store") as client:
        jetstream = await ensure_stream(client, _replicas(config))
        async with _mqtt(config, authority, tenant, "store"):  # the first session makes the tenant's MQTT streams
            for pattern in stored_filters(tenant):
                await ensure_consumer(jetstream, pattern)
        async with _mqtt(config, authority, tenant, PLATFORM):  # ends a session left from direct ingest
            pass
        consumer = StreamConsumer(jetstream, store)
        work = asyncio.create_task(consumer.run(), name=f"consume {tenant}")
        pipeline = InboundPipeline(
            tenant, StreamWriter(jetstream), letters(config, tenant), settled=lambda *_: None, **bounds(config)
        )
        try:
            async with pipeline:
                yield TenantIngest(tenant, pipeline, consumer, lambda: client.is_connected, work)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def run_source(config: Config, authority: Authority, tenant: str, number: int) -> None:
    """Be one of several Event Sources of a tenant, until cancelled."""
    address = broker_address(config)
    tls = authority.client(Identity(tenant, PLATFORM, "platform")).client_context()
    async with connected(address.host, address.client_port, tls, f"source {number}") as client:
        jetstream = await ensure_stream(client, _replicas(config))
        session = SharedSession(_mqtt(config, authority, tenant, f"source-{number}"), jetstream)
        notes = _mqtt(config, authority, tenant, f"notes-{number}")
        writer = StreamWriter(jetstream)
        source = EventSource(tenant, session, writer, letters(config, tenant), notes=notes, **bounds(config))
        async with notes, source, Brake(tenant, jetstream, source.pipeline):
            while source.pipeline.failure is None:
                await asyncio.sleep(1.0)
            raise source.pipeline.failure


def letters_path(config: Config, tenant: str) -> Path:
    """Return where the dead letters of a tenant are."""
    return config.data_folder / "letters" / f"{tenant}.sqlite"


def letters(config: Config, tenant: str) -> DeadLetters:
    """Return the dead letters of a tenant."""
    return DeadLetters(letters_path(config, tenant), max_bytes=config.ingest.dead_letters_mb * 2**20)


def now_ms() -> int:
    """Return the present time [ms UTC]."""
    return time.time_ns() // 1_000_000


class Bounds(TypedDict):
    """What an Event Source is made with."""

    now_ms: Callable[[], int]
    limits: Limits
    gathering: Gathering
    quota: Quota


def bounds(config: Config) -> Bounds:
    """Return the bounds of one of a tenant's Event Sources: several have equal parts of what the tenant may."""
    ingest = config.ingest
    return {
        "now_ms": now_ms,
        "limits": Limits(ingest.max_message_kb * 1024, ingest.future_s, past_days=ingest.past_days),
        "gathering": Gathering(
            ingest.window_ms / 1000,
            max_waiting_bytes=ingest.max_waiting_mb * 2**20,
            max_waiting_messages=MAX_UNACKNOWLEDGED // ingest.sources,
        ),
        "quota": Quota(config.quota.tenant_values_per_s / ingest.sources, config.quota.device_messages_per_s),
    }


def _mqtt(config: Config, authority: Authority, tenant: str, client_id: str, *, clean: bool = True) -> MqttClient:
    who = Identity(tenant, PLATFORM, "platform")
    address = broker_address(config)
    endpoint = Endpoint(address.host, address.port, authority.client(who).client_context())
    return MqttClient(endpoint, client_id, clean=clean, patience_s=PATIENCE_S, may_publish=may_publish(who))


def _replicas(config: Config) -> int:
    return CLUSTER_REPLICAS if config.cluster is not None else 1
