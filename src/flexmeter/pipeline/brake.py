"""A brake for a tenant over its quota: the broker takes only as much of it as leaves for the store.

    InboundPipeline.backlog too large -> the tenant's message stream takes no more than may wait
    the publishers get no acknowledgement, are cut off, keep their messages and come back -> as places get free

Without it the broker would take the whole flood, at the cost of the processor time of all tenants, only to let it
wait on its disk. The limit refuses new messages and never deletes one.
"""

from __future__ import annotations

import asyncio
import logging
import math
from types import TracebackType
from typing import Self

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy
from nats.js.errors import Error as JetStreamError

from flexmeter.pipeline.inbound import InboundPipeline
from flexmeter.pipeline.shared import STREAM

log = logging.getLogger(__name__)

CLOSE, OPEN = 1.0, 0.25
"""The backlog from where on the brake closes, and below which it opens."""
_CHECK_S = 0.1
_NO_LIMIT = -1


class Brake:
    """An async context manager; while it is open, the tenant's broker side follows the pipeline's backlog.

    Several Event Sources of a tenant each have one; the one with the largest backlog decides.

    Parameters
    ----------
    tenant : whose messages, for the log.
    jetstream : of a connection of the tenant's platform identity.
    pipeline : of the same tenant, over the tenant's MQTT session, which exists already.
    """

    def __init__(self, tenant: str, jetstream: JetStreamContext, pipeline: InboundPipeline) -> None:
        self._tenant = tenant
        self._jetstream = jetstream
        self._pipeline = pipeline
        self._closed: bool | None = None  # None = unknown: an earlier process may have left it closed
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start watching."""
        self._task = asyncio.create_task(self._run(), name=f"brake {self._tenant}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; a limit that is set stays until the next process has looked at the backlog."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def follow(self) -> None:
        """Close or open if the backlog asks for it."""
        backlog = self._pipeline.backlog
        if backlog > CLOSE:
            await self._close(backlog)  # even if it was closed: another Event Source of the tenant may have opened it
        elif self._closed is not False and backlog < OPEN:
            await self._open()

    async def _run(self) -> None:
        while True:
            try:
                await self.follow()
                self._failing = False
            except (JetStreamError, nats.errors.Error, OSError, TimeoutError) as error:  # tried again
                if not self._failing:  # said once, not ten times a second while a broker restarts
                    log.warning("event=brake_failed tenant=%s error=%r", self._tenant, error)
                self._failing = True
            await asyncio.sleep(_CHECK_S)

    async def _close(self, backlog: float) -> None:
        """Limit the stream to what may wait; what there is above it stays, since new messages are discarded, not old.

        The pipeline does not see all of a flood at first: the limit is lowered until it is right within a factor of 2.
        """
        info = await self._jetstream.stream_info(STREAM)
        set_before = info.config.max_msgs or _NO_LIMIT
        limit = max(1, math.ceil(info.state.messages / backlog))
        if set_before == _NO_LIMIT or limit < set_before / 2:
            await self._jetstream.update_stream(info.config, max_msgs=limit, discard=DiscardPolicy.NEW)
        if not self._closed:
            log.warning("event=over_quota tenant=%s", self._tenant)
        self._closed = True

    async def _open(self) -> None:
        info = await self._jetstream.stream_info(STREAM)
        if info.config.max_msgs != _NO_LIMIT:
            await self._jetstream.update_stream(info.config, max_msgs=_NO_LIMIT)
        if self._closed:
            log.warning("event=within_quota_again tenant=%s", self._tenant)
        self._closed = False
