"""Event Source (paper section 3.2): the MQTT subscriber of one tenant that feeds its Inbound Pipeline.

    broker session (durable) -> MqttClient -> InboundPipeline -> commit -> acknowledge

The session at the broker is the durable inbound buffer: while the store is away or slow, it grows and nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from flexmeter.errors import MessageError
from flexmeter.messages import encode_notice, topics
from flexmeter.messages.notices import Rejection
from flexmeter.messages.topics import PREFIX
from flexmeter.messaging.client import Client, Message, Session
from flexmeter.pipeline.check import Limits
from flexmeter.pipeline.deadletters import DeadLetters
from flexmeter.pipeline.inbound import Gathering, InboundPipeline
from flexmeter.pipeline.quota import Quota
from flexmeter.pipeline.writer import Writer

log = logging.getLogger(__name__)

_MAX_ERROR_NOTES = 10_000


class EventSource:
    """An async context manager; while it is open the tenant's readings and estimates are stored.

    Parameters
    ----------
    tenant : the tenant.
    client : an MQTT client of the tenant's platform identity with `clean=False`, or a `shared.SharedSession`; not yet
        connected.
    notes : connected client for the error notes, None = `client`. A broker that takes no more of the tenant cuts off
        whoever publishes; the session that empties its backlog should not be among them.
    writer, dead_letters, now_ms, limits, gathering, quota : see `InboundPipeline`.
    """

    def __init__(
        self,
        tenant: str,
        client: Session,
        writer: Writer,
        dead_letters: DeadLetters,
        *,
        now_ms: Callable[[], int],
        limits: Limits | None = None,
        gathering: Gathering | None = None,
        quota: Quota | None = None,
        notes: Client | None = None,
    ) -> None:
        self.tenant = tenant
        self.pipeline = InboundPipeline(
            tenant,
            writer,
            dead_letters,
            now_ms=now_ms,
            settled=self._settle,
            limits=limits,
            gathering=gathering,
            quota=quota,
        )
        self._client = client
        self._teller = notes or client
        self._notes: asyncio.Queue[Rejection] = asyncio.Queue(_MAX_ERROR_NOTES)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect, subscribe, start."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.pipeline)
            self._client.receiver = self._receive
            await stack.enter_async_context(self._client)
            teller = asyncio.create_task(self._tell(), name=f"error notes {self.tenant}")
            stack.push_async_callback(_end, teller)
            await self._client.subscribe(f"{PREFIX}/{self.tenant}/+/roster", qos=0)
            await self._client.subscribe(*stored_filters(self.tenant))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading, commit what was read, acknowledge it, disconnect."""
        self._client.pause()
        await self.pipeline.__aexit__(kind, error, trace)
        await self._stack.__aexit__(kind, error, trace)

    def _receive(self, messages: list[Message]) -> None:
        self.pipeline.take(messages)
        self.pipeline.counters.held_again = self._client.redelivered
        if self.pipeline.full or self.pipeline.held_back:
            self._client.pause()  # until something is settled: few large reads cost less than many small ones

    def _settle(self, messages: Sequence[Message], rejections: Sequence[Rejection]) -> None:
        self._client.acknowledge(messages)
        if not self.pipeline.full:
            self._client.resume()
        for rejection in rejections:
            with contextlib.suppress(asyncio.QueueFull):
                self._notes.put_nowait(rejection)

    async def _tell(self) -> None:
        """Tell devices why their messages were refused; the dead letters hold everything in any case."""
        while True:
            rejection = await self._notes.get()
            log.warning(
                "event=rejected tenant=%s topic=%s reason=%s detail=%s",
                self.tenant,
                rejection.topic[:200],
                rejection.reason,
                rejection.detail,
            )
            with contextlib.suppress(MessageError):
                device = topics.parse(rejection.topic).device or rejection.source
                await self._teller.send(topics.error(self.tenant, device), encode_notice(rejection))


def stored_filters(tenant: str) -> tuple[str, str]:
    """Return the filters of what is stored: readings and estimates."""
    return f"{PREFIX}/{tenant}/+/readings", f"{PREFIX}/{tenant}/se/+/+"


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
