"""The Inbound Pipeline (paper section 3.2) of one tenant: gathers messages to windows and commits them.

    take() -> integrity check -> window (20 ms, bounded) -> Writer.commit -> dead letters, error topic -> settled()

Nothing is acknowledged before it is durable, and everything taken is acknowledged once it is: `settled` gets every
message exactly once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec

from flexmeter.errors import MessageError, StorageError
from flexmeter.messages import topics
from flexmeter.messages.notices import Rejection
from flexmeter.messages.rows import WriteResult
from flexmeter.messaging.broker import MAX_UNACKNOWLEDGED
from flexmeter.messaging.client import Message
from flexmeter.pipeline.check import Checked, IntegrityCheck, Limits, Refused, UnknownRoster
from flexmeter.pipeline.counters import Counters
from flexmeter.pipeline.deadletters import DeadLetter, DeadLetters
from flexmeter.pipeline.quota import Bucket, DeviceQuota, Quota
from flexmeter.pipeline.rosters import Rosters
from flexmeter.pipeline.sequences import Sequences
from flexmeter.pipeline.writer import Outcome, Writer

log = logging.getLogger(__name__)

_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 5.0
_MAX_TOPICS = 200_000
_HELD_BACK_WINDOW_S = 0.25
"""What a quota holds back waits longer than that anyway; fewer commits of it leave more to the other tenants."""
_SETTLE_S = 0.02
"""What was held back is settled bit by bit, this often: places that get free all at once are filled by a burst."""
_BACKLOG_S, _BACKLOG_SHARE = 1.0, 0.5
"""What a quota may leave waiting: what it lets through in that time, at most that share of all that may wait.

It is stored before the broker would deliver it again (5 s), and there is room for what comes until a brake holds."""

Settled = Callable[[Sequence[Message], Sequence[Rejection]], None]


class Gathering(msgspec.Struct, frozen=True):
    """Bounds of a window and of all that waits: time to gather [s], rows in a commit, bytes and messages waiting."""

    window_s: float = 0.02
    max_rows: int = 300_000
    max_waiting_bytes: int = 128 * 2**20
    max_waiting_messages: int = MAX_UNACKNOWLEDGED
    roster_wait_s: float = 10.0


class _Entry(msgspec.Struct, eq=False):
    """A message on its way: checked, refused, or (neither) waiting for its roster."""

    message: Message
    arrived_s: float
    checked: Checked | None = None
    rejection: Rejection | None = None

    @property
    def values(self) -> int:
        """How many values it brings to the store."""
        return int(self.checked.values.size) if self.checked is not None else 0


class InboundPipeline:
    """Use as an async context manager; leaving it commits what was taken.

    Parameters
    ----------
    tenant : whose messages these are.
    writer : makes windows durable.
    dead_letters : keeps what the check refuses.
    now_ms : the platform's clock [ms UTC].
    settled : is told what is durable now: the messages and, of these, the rejections.
    limits, gathering, quota : bounds of messages, windows and rates.
    """

    def __init__(
        self,
        tenant: str,
        writer: Writer,
        dead_letters: DeadLetters,
        *,
        now_ms: Callable[[], int],
        settled: Settled,
        limits: Limits | None = None,
        gathering: Gathering | None = None,
        quota: Quota | None = None,
    ) -> None:
        self._quota = quota = quota or Quota()
        self.tenant = tenant
        self.counters = Counters()
        self.sequences = Sequences()
        self.rosters = Rosters()
        self.store_error = ""
        self.waiting_bytes = 0
        self._writer = writer
        self._dead_letters = dead_letters
        self._now_ms = now_ms
        self._settled = settled
        self._gathering = gathering or Gathering()
        self._check = IntegrityCheck(tenant, limits or Limits(), self.rosters.find)
        self._device_quota = DeviceQuota(quota.device_messages_per_s)
        self._values = Bucket(quota.values_per_s, quota.values_per_s) if quota.values_per_s else None
        self._topics: dict[str, topics.Topic] = {}
        self._waiting: deque[_Entry] = deque()
        self._waiting_values = 0
        self._held_back = False
        self._settling: deque[_Entry] = deque()  # durable
        self._for_roster: list[_Entry] = []
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start committing."""
        self._task = asyncio.create_task(self._run(), name=f"inbound {self.tenant}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what was taken if the store lets us within two seconds; the broker keeps the rest."""
        if self._task is None:
            return
        if kind is None and not self._task.done():
            try:
                async with asyncio.timeout(2):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("event=left_behind tenant=%s queued=%d", self.tenant, self.counters.queued)
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._settle(len(self._settling))

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the pipeline, which never should; None while it works."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    @property
    def full(self) -> bool:
        """Whether as many bytes wait as may."""
        return self.waiting_bytes > self._gathering.max_waiting_bytes

    @property
    def held_back(self) -> bool:
        """Whether more waits than the quota let through at last; something will be settled then."""
        return self._held_back

    @property
    def backlog(self) -> float:
        """What waits as a share of what a quota may leave waiting; 0 if it is not the quota that it waits for."""
        if not self._held_back or self.store_error:
            return 0.0
        bounds = self._gathering
        return max(
            self._waiting_values / (_BACKLOG_S * self._quota.values_per_s),
            len(self._waiting) / (_BACKLOG_SHARE * bounds.max_waiting_messages),
            self.waiting_bytes / (_BACKLOG_SHARE * bounds.max_waiting_bytes),
        )

    def take(self, messages: Sequence[Message]) -> None:
        """Take readings and estimates; they are settled later. Rosters are learnt and settled with the next commit."""
        loop_s = asyncio.get_running_loop().time()
        now_ms = self._now_ms()
        for message in messages:
            topic = self._topics.get(message.topic) or self._parse(message.topic)
            if topic is not None and topic.kind == "roster":
                self._learn(topic, message)
                continue
            self.counters.received += 1
            self.counters.queued += 1
            self.waiting_bytes += len(message.payload)
            entry = _Entry(message, loop_s)
            if topic is not None and not self._device_quota.allows(topic.device, loop_s):
                refused = Refused("quota", f"more messages per second than {topic.device} may send", topic.device)
                entry.rejection = self._rejection(entry, refused, now_ms)
                self._line_up(entry)
            elif self._examine(topic, entry, now_ms):
                self._line_up(entry)
            else:
                self._for_roster.append(entry)
        if self._waiting:
            self._idle.clear()
            self._arrived.set()
        if self._for_roster:
            self._idle.clear()
            asyncio.get_running_loop().call_later(self._gathering.roster_wait_s, self._give_up_rosters)

    async def submit(self, payload: bytes) -> WriteResult:
        """Take one batch of readings that came by HTTP; return when it is committed.

        Raises `Refused` (it is in the dead letters then) or `StorageError` (nothing was taken, try again).
        """
        now_ms = self._now_ms()
        topic = topics.Topic("readings", self.tenant)
        entry = _Entry(Message(f"{topics.PREFIX}/{self.tenant}/http/readings", payload), 0.0)
        try:
            checked = self._check(topic, payload, now_ms)
        except UnknownRoster:
            error = Refused("roster", "the roster that the batch refers to is not known; list the meters instead")
        except Refused as refused:
            error = refused
        else:
            outcome = await self._writer.commit([checked])
            self.sequences.see(checked.kind, checked.source, checked.boot, checked.seq)
            self.counters.received += 1
            self.counters.queued += 1
            self._count(outcome, 1)
            return WriteResult(outcome.stored, outcome.duplicate, outcome.conflict)
        entry.rejection = self._rejection(entry, error, now_ms)
        await asyncio.to_thread(self._dead_letters.add, [_letter(entry)])
        self.counters.received += 1
        self.counters.rejected += 1
        raise error

    def _parse(self, name: str) -> topics.Topic | None:
        try:
            topic = topics.parse(name)
        except MessageError:
            return None
        if len(self._topics) >= _MAX_TOPICS:
            self._topics.clear()
        self._topics[name] = topic
        return topic

    def _examine(self, topic: topics.Topic | None, entry: _Entry, now_ms: int) -> bool:
        """Check a message; return False if it has to wait for its roster."""
        try:
            if topic is None or topic.kind not in ("readings", "estimate"):
                raise Refused("topic", f"topic {entry.message.topic[:200]}: nothing that can be stored")
            checked = self._check(topic, entry.message.payload, now_ms)
        except UnknownRoster:
            return False
        except Refused as refused:
            entry.rejection = self._rejection(entry, refused, now_ms)
            return True
        entry.checked = checked
        if self.sequences.see(checked.kind, checked.source, checked.boot, checked.seq):
            log.warning("event=gap tenant=%s source=%s before_seq=%d", self.tenant, checked.source, checked.seq)
        return True

    def _rejection(self, entry: _Entry, refused: Refused, now_ms: int) -> Rejection:
        message = entry.message
        return Rejection(
            reason=refused.reason,
            detail=str(refused)[:500],
            topic=message.topic,
            time_ms=now_ms,
            source=refused.source,
            boot=refused.boot,
            seq=refused.seq,
            bytes=len(message.payload),
        )

    def _learn(self, topic: topics.Topic, message: Message) -> None:
        try:
            self.rosters.add(topic, message.payload)
        except MessageError as error:
            log.warning("event=roster_refused tenant=%s device=%s error=%s", self.tenant, topic.device, error)
        self._settled([message], [])
        if self._for_roster:
            self._retry_rosters(give_up_before_s=-1.0)

    def _line_up(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._waiting_values += entry.values

    def _give_up_rosters(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._retry_rosters(give_up_before_s=now_s - self._gathering.roster_wait_s + 0.001)

    def _retry_rosters(self, give_up_before_s: float) -> None:
        """Examine again what waits for a roster; refuse what has waited too long."""
        entries, self._for_roster = self._for_roster, []
        now_ms = self._now_ms()
        for entry in entries:
            if self._examine(self._parse(entry.message.topic), entry, now_ms):
                self._line_up(entry)
            elif entry.arrived_s <= give_up_before_s:
                refused = Refused("roster", "the roster that the batch refers to is not known")
                entry.rejection = self._rejection(entry, refused, now_ms)
                self._line_up(entry)
            else:
                self._for_roster.append(entry)
        if self._waiting:
            self._arrived.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        taken_s = 0.0
        while True:
            await self._arrived.wait()
            # What a quota held back has waited long enough, but must not go in a commit for every few messages.
            since_s = max(self._waiting[0].arrived_s, taken_s)
            window_s = _HELD_BACK_WINDOW_S if self._held_back else self._gathering.window_s
            delay_s = since_s + window_s - loop.time()
            if self._values is not None:
                delay_s = max(delay_s, self._values.wait_s(loop.time()))
            await self._settle_within(delay_s)
            window = self._take_window()
            taken_s = loop.time()
            await self._commit(window)
            if not self._waiting:
                self._arrived.clear()
                if not self._for_roster:
                    self._idle.set()

    def _take_window(self) -> list[_Entry]:
        window: list[_Entry] = []
        rows = 0
        most = self._gathering.max_rows
        if self._values is not None:
            most = min(most, max(1, int(self._values.level(asyncio.get_running_loop().time()))))
        while self._waiting and rows < most:
            entry = self._waiting.popleft()
            window.append(entry)
            rows += entry.values
        self._waiting_values -= rows
        if self._values is not None:
            self._values.take(rows)
            self._held_back = bool(self._waiting) and rows < self._gathering.max_rows
        return window

    async def _commit(self, window: list[_Entry]) -> None:
        """Commit a window, again and again until it is durable."""
        accepted = [entry.checked for entry in window if entry.checked is not None]
        rejections = [entry for entry in window if entry.rejection is not None]
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                if rejections:
                    await asyncio.to_thread(self._dead_letters.add, [_letter(entry) for entry in rejections])
                    rejected, rejections = len(rejections), []
                    self.counters.rejected += rejected
                    self.counters.queued -= rejected
                if accepted:
                    self._count(await self._writer.commit(accepted), len(accepted))
                break
            except StorageError as error:
                self.store_error = str(error)
                log.error("event=commit_failed tenant=%s again_in_s=%.1f error=%s", self.tenant, delay_s, error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LAST_DELAY_S)
        self.store_error = ""
        self.waiting_bytes -= sum(len(entry.message.payload) for entry in window)
        self._settling.extend(window)
        if not self._held_back:
            self._settle(len(self._settling))

    async def _settle_within(self, seconds: float) -> None:
        """Settle what is durable, evenly over a time."""
        if seconds > 0:
            bits = math.ceil(seconds / _SETTLE_S) if self._settling else 1
            for left in range(bits, 0, -1):
                self._settle(math.ceil(len(self._settling) / left))
                await asyncio.sleep(seconds / bits)
        self._settle(len(self._settling))

    def _settle(self, count: int) -> None:
        if not count:
            return
        entries = [self._settling.popleft() for _ in range(count)]
        refused = [entry.rejection for entry in entries if entry.rejection is not None]
        self._settled([entry.message for entry in entries], refused)

    def _count(self, outcome: Outcome, messages: int) -> None:
        counters = self.counters
        new = sum(outcome.new)
        counters.stored += new
        counters.duplicate += messages - new
        counters.queued -= messages
        counters.values_stored += outcome.stored
        counters.values_duplicate += outcome.duplicate
        counters.values_conflict += outcome.conflict
        counters.commits += 1


def _letter(entry: _Entry) -> DeadLetter:
    assert entry.rejection is not None
    rejection, message = entry.rejection, entry.message
    return DeadLetter(
        rejection.time_ms, message.topic, rejection.reason, rejection.detail, len(message.payload), message.payload
    )
