"""An area at work: gather the inputs of an interval, estimate, publish with the timing, wait for nothing for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from flexmeter.messages.codec import decode_estimate, encode_estimate
from flexmeter.messages.estimate import EstimateLevel, Head
from flexmeter.messages.events import Timing
from flexmeter.messages.readings import Clock
from flexmeter.services.areas import AreaResult, estimate_message
from flexmeter.services.collect import Collector, Interval, Item
from flexmeter.services.link import Link, now_ms

log = logging.getLogger(__name__)
Input_co = TypeVar("Input_co", covariant=True)


@dataclass(frozen=True)
class Received(Generic[Input_co]):
    """An input: the instant [ms UTC] and the source it speaks of, its clock, and how long decoding took [s]."""

    time_ms: int
    source: str
    item: Input_co
    clock: Clock
    decoding_s: float


@dataclass(frozen=True)
class Answer:
    """An estimate ready to be published: its instant [ms UTC], its bytes, and how long it took [ms]."""

    time_ms: int
    payload: bytes
    elapsed_ms: float


@dataclass(frozen=True)
class Sender:
    """What every estimate of a service says of it: its name, its run, the grid it serves."""

    source: str
    boot: int
    grid: str


def received_summary(payload: bytes) -> Received[Head] | None:
    """Return the summary in an estimate from below; None if it has none to offer."""
    began = time.perf_counter()
    estimate = decode_estimate(payload)
    if estimate.head is None or estimate.status == "not_converged":
        return None
    return Received(estimate.time_ms, estimate.area, estimate.head, estimate.clock, time.perf_counter() - began)


class Desk(Generic[Item]):
    """One area at work.

    Parameters
    ----------
    level, area, topic : of its estimates
    expected : the sources an interval waits for
    estimate : from an instant and the inputs by source to the result and the version of the topology it holds under
    sender : who publishes
    """

    def __init__(
        self,
        level: EstimateLevel,
        area: str,
        topic: str,
        expected: Iterable[str],
        *,
        estimate: Callable[[int, Mapping[str, Item]], tuple[AreaResult, int]],
        sender: Sender,
    ) -> None:
        self.level, self.area, self.topic = level, area, topic
        self._collector: Collector[Received[Item]] = Collector(expected)
        self._estimate = estimate
        self._sender = sender
        self._seq = 0

    @property
    def waiting(self) -> tuple[int, ...]:
        """The instants that wait for more inputs."""
        return self._collector.waiting

    def take(self, received: Received[Item]) -> list[Answer]:
        """Take an input; return the estimates that are ready."""
        return [self._answer(one) for one in self._collector.add(received.time_ms, received.source, received)]

    def warm(self) -> None:
        """Estimate once with nothing known: what is loaded or compiled at first use is there before the first input."""
        self._estimate(0, {})

    def release(self, until_ms: int) -> list[Answer]:
        """Estimate what waits up to an instant with what there is."""
        return [self._answer(interval) for interval in self._collector.release(until_ms)]

    def _answer(self, interval: Interval[Received[Item]]) -> Answer:
        began = time.perf_counter()
        if interval.missing:
            log.warning("event=missing level=%s area=%s count=%d", self.level, self.area, len(interval.missing))
        inputs = interval.items.values()
        result, topology = self._estimate(interval.time_ms, {one.source: one.item for one in inputs})
        self._seq += 1
        message = estimate_message(
            result,
            source=self._sender.source,
            boot=self._sender.boot,
            seq=self._seq,
            grid=self._sender.grid,
            time_ms=interval.time_ms,
            clock=next(iter(inputs)).clock,
            topology=topology,
        )
        payload = encode_estimate(message)
        decoding_s = sum(one.decoding_s for one in inputs)
        return Answer(interval.time_ms, payload, 1e3 * (decoding_s + time.perf_counter() - began))


async def publish(link: Link, desk: Desk[Item], answers: Iterable[Answer]) -> None:
    """Publish estimates, each followed by an event that says how long it took."""
    for answer in answers:
        await link.publish(desk.topic, answer.payload)
        timing = Timing(
            level=desk.level,
            time_ms=answer.time_ms,
            elapsed_ms=(answer.elapsed_ms,),
            began_ms=now_ms() - answer.elapsed_ms,
            published=link.published,
        )
        await link.tell(timing)


async def release_overdue(link: Link, desks: Iterable[Desk[Item]], deadline_s: float) -> None:
    """Let intervals go that have waited longer than the deadline, with what they have; until cancelled."""
    seen: dict[tuple[str, int], float] = {}
    desks = tuple(desks)
    while True:
        await asyncio.sleep(deadline_s / 4)
        now = time.monotonic()
        seen = {(desk.topic, t): seen.get((desk.topic, t), now) for desk in desks for t in desk.waiting}
        for desk in desks:
            overdue = [t for t in desk.waiting if now - seen[desk.topic, t] > deadline_s]
            if overdue:
                await publish(link, desk, desk.release(max(overdue)))
