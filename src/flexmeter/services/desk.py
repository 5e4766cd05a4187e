"""What an estimator does with its answers: publish them with their timing, and not wait for ever for an input."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from flexmeter.messages.events import Timing
from flexmeter.services.link import Link, now_ms


@dataclass(frozen=True)
class Answer:
    """An estimate ready to be published: its instant [ms UTC], its bytes, and how long it took [ms]."""

    time_ms: int
    payload: bytes
    elapsed_ms: float


class Desk(Protocol):
    """One area at work."""

    @property
    def topic(self) -> str:
        """Where its estimates are published, below the tenant's prefix."""

    @property
    def waiting(self) -> tuple[int, ...]:
        """The instants that wait for more inputs."""

    def release(self, until_ms: int) -> list[Answer]:
        """Estimate what waits up to an instant with what there is."""


async def publish(link: Link, level: str, topic: str, answers: Iterable[Answer]) -> None:
    """Publish estimates, each followed by an event that says how long it took."""
    for answer in answers:
        await link.publish(topic, answer.payload)
        timing = Timing(
            level=level,
            time_ms=answer.time_ms,
            elapsed_ms=(answer.elapsed_ms,),
            began_ms=now_ms() - answer.elapsed_ms,
            published=link.published,
        )
        await link.tell(timing)


async def release_overdue(link: Link, level: str, desks: Iterable[Desk], deadline_s: float) -> None:
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
                await publish(link, level, desk.topic, desk.release(max(overdue)))
