"""The step from Event Source to store over a durable stream: writers on other machines, replay, long outages.

    StreamWriter.commit -> packed window on the JetStream stream INGEST -> StreamConsumer -> Batcher -> store

A window is safe once the stream has it. The stream delivers a window again if its writer dies; the store knows what it
has. Windows stay for `KEEP_S` after they were stored, so that they can be replayed into another database.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import nats
import nats.errors
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import Error as JetStreamError

from flexmeter.errors import BrokerError, MessageError, StorageError
from flexmeter.pipeline.check import Checked
from flexmeter.pipeline.counters import Counters
from flexmeter.pipeline.packing import pack, split, unpack
from flexmeter.pipeline.writer import Batcher, Outcome
from flexmeter.storage.base import Store

log = logging.getLogger(__name__)

STREAM = "INGEST"
SUBJECT = "ingest.windows"
KEEP_S = 86_400.0
MAX_ROWS = 60_000
ACK_WAIT_S = 10.0
_PUBLISH_S = 10.0
_FETCH = 8


@asynccontextmanager
async def connected(host: str, port: int, tls: ssl.SSLContext, name: str) -> AsyncIterator[Nats]:
    """Connect to the broker's client port; reconnects for ever. Raises `BrokerError` if it cannot be reached now."""
    try:
        client = await nats.connect(
            f"tls://{host}:{port}",
            tls=tls,
            tls_hostname=host,
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BrokerError(f"broker {host}:{port}: {error or type(error).__name__}") from error
    try:
        yield client
    finally:
        await client.close()


async def ensure_stream(client: Nats, replicas: int = 1, keep_s: float = KEEP_S) -> JetStreamContext:
    """Make the stream of windows if it is not there."""
    jetstream = client.jetstream()
    config = StreamConfig(name=STREAM, subjects=["ingest.>"], max_age=keep_s, num_replicas=replicas)
    try:
        await jetstream.add_stream(config)
    except (JetStreamError, nats.errors.Error) as error:
        raise BrokerError(f"stream {STREAM}: {error}") from error
    return jetstream


class StreamWriter:
    """A `writer.Writer` onto the stream; `stored` in its outcome means safe on the stream."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream

    async def commit(self, window: Sequence[Checked]) -> Outcome:
        """Put the window on the stream, in parts of at most `MAX_ROWS` rows; return when all are acknowledged."""
        parts = [pack(part) for part in split(window, MAX_ROWS)]
        try:
            sends = [self._jetstream.publish(SUBJECT, part, timeout=_PUBLISH_S) for part in parts]
            await asyncio.gather(*sends)
        except (JetStreamError, nats.errors.Error, OSError, TimeoutError) as error:
            raise StorageError(f"stream {STREAM}: {error or type(error).__name__}") from error
        return Outcome([True] * len(window), sum(one.values.size for one in window), 0, 0)

    def close(self) -> None:
        """Release nothing: the connection is its owner's."""


class StreamConsumer:
    """Writes windows from the stream to a store; several may share one durable consumer, each with its own store.

    Parameters
    ----------
    durable : name of the consumer; a new name starts at the beginning of the stream, which is a replay.
    """

    def __init__(self, jetstream: JetStreamContext, store: Store, durable: str = "writer") -> None:
        self.counters = Counters()
        self.store_error = ""
        self._jetstream = jetstream
        self._batcher = Batcher(store)
        self._durable = durable
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"stream-{store.tenant}")

    async def run(self) -> None:
        """Consume until cancelled."""
        config = ConsumerConfig(
            durable_name=self._durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            deliver_policy=DeliverPolicy.ALL,
            max_ack_pending=64,
        )
        try:
            subscription = await self._jetstream.pull_subscribe(
                SUBJECT, durable=self._durable, stream=STREAM, config=config
            )
            while True:
                try:
                    messages = await subscription.fetch(_FETCH, timeout=1.0)
                except (TimeoutError, nats.errors.Error):
                    continue
                for message in messages:
                    await self._write(message)
        finally:
            self._thread.shutdown()

    async def _write(self, message: Msg) -> None:
        """Commit a window and acknowledge it; after a failure the stream delivers it again."""
        try:
            window = unpack(message.data)
        except MessageError as error:
            log.error("event=window_refused error=%s bytes=%d", error, len(message.data))
            await message.term()
            return
        counters = self.counters
        counters.received += len(window)
        counters.queued += len(window)
        try:
            loop = asyncio.get_running_loop()
            outcome = await loop.run_in_executor(self._thread, self._batcher.write, window)
        except StorageError as error:
            counters.received -= len(window)
            counters.queued -= len(window)
            self.store_error = str(error)
            log.error("event=commit_failed error=%s", error)
            await message.nak(delay=1.0)
            return
        self.store_error = ""
        new = sum(outcome.new)
        counters.queued -= len(window)
        counters.stored += new
        counters.duplicate += len(window) - new
        counters.values_stored += outcome.stored
        counters.values_duplicate += outcome.duplicate
        counters.values_conflict += outcome.conflict
        counters.commits += 1
        await message.ack()
