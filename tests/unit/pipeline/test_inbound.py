import asyncio
import json
import random

import msgspec
import numpy as np
import pytest

from flexmeter.errors import StorageError
from flexmeter.messages import COLUMNS, Readings, Roster, RosterEntry, encode_notice, encode_readings, topics
from flexmeter.messaging.client import Message
from flexmeter.pipeline import DeadLetters, Gathering, InboundPipeline, Outcome, Quota, Refused

NOW_MS = 1_763_834_400_000


def message(seq, value=230.0, source="con-1", time_ms=NOW_MS, roster=""):
    readings = Readings(
        source,
        1,
        seq,
        time_ms + seq,
        (COLUMNS["voltage.a"],),
        np.array([[value]]),
        meters=() if roster else ("m1",),
        roster=roster,
    )
    return Message(topics.readings("acme", source), encode_readings(readings), 1, packet_id=seq + 1)


class MemoryWriter:
    """Keeps the first value of every (source, time); may fail, wait or forget."""

    def __init__(self):
        self.values = {}
        self.failures = 0
        self.windows = []
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, window):
        self.asked += 1
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise StorageError("the store is away")
        self.windows.append(len(window))
        new = [self.values.setdefault((one.source, one.time_ms), one) is one for one in window]
        return Outcome(new, sum(new), len(new) - sum(new), 0)


class Harness:
    def __init__(self, tmp_path, **options):
        self.writer = MemoryWriter()
        self.letters = DeadLetters(tmp_path / "letters.sqlite")
        self.settled = []
        self.rejections = []
        gathering = options.pop("gathering", Gathering(window_s=0.001))
        self.pipeline = InboundPipeline(
            "acme",
            self.writer,
            self.letters,
            now_ms=lambda: NOW_MS,
            settled=self._settle,
            gathering=gathering,
            quota=options.pop("quota", None),
        )

    def _settle(self, messages, rejections):
        self.settled += messages
        self.rejections += rejections

    @property
    def counters(self):
        return self.pipeline.counters

    async def drained(self):
        while self.counters.queued:
            assert self.counters.reconciled
            await asyncio.sleep(0.001)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def run(test):
    async def main():
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())


def test_messages_are_settled_only_after_the_commit(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        harness.writer.gate.clear()
        async with harness.pipeline as pipeline:
            pipeline.take([message(n) for n in range(3)])
            await asyncio.sleep(0.02)
            assert (harness.settled, harness.counters.queued) == ([], 3)
            harness.writer.gate.set()
            await harness.drained()
        assert len(harness.settled) == 3
        assert harness.counters.stored == 3

    run(test)


def test_the_counters_reconcile_whatever_comes(tmp_path):
    async def test():
        rng = random.Random(4)
        harness = Harness(tmp_path)
        async with harness.pipeline as pipeline:
            for _ in range(60):
                kinds = [
                    message(rng.randrange(40)),
                    message(rng.randrange(40), value=-1.0),
                    Message(topics.readings("acme", "con-1"), rng.randbytes(20), 1),
                    Message("elsewhere", b"", 1),
                    Message(topics.event("acme", "con-1"), b"{}", 1),
                ]
                harness.writer.failures = rng.choice([0, 0, 0, 0, 0, 0, 0, 0, 1])
                pipeline.take(rng.choices(kinds, k=5))
                assert harness.counters.reconciled
                await asyncio.sleep(0)
            await harness.drained()
        counters = harness.counters
        assert counters.received == 300
        assert counters.reconciled
        assert counters.stored == len(harness.writer.values)
        assert counters.rejected == sum(harness.letters.counts().values()) == len(harness.rejections)
        assert len(harness.settled) == 300

    run(test)


def mutant(rng, payload):
    """Return a message with some bytes changed, dropped, doubled or put in, as a bad link or program would."""
    data = bytearray(payload)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 9)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 9)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 5))
        if not data:
            break
    return bytes(data)


@pytest.mark.parametrize("encoding", ["json", "cbor"])
def test_mutants_are_stored_or_refused_and_disturb_nothing(tmp_path, encoding):
    async def test():
        rng = random.Random(5)
        harness = Harness(tmp_path, gathering=Gathering(window_s=0.001, roster_wait_s=0.05))
        readings = Readings(
            "con-1", 1, 7, NOW_MS, (COLUMNS["voltage.a"], COLUMNS["active_power.a"]), np.ones((2, 3)), ("a", "b", "c")
        )
        good = encode_readings(readings, encoding)
        async with harness.pipeline as pipeline:
            for number in range(500):
                bad = Message(topics.readings("acme", "con-1"), mutant(rng, good), 1)
                pipeline.take([bad, message(number, source="con-2")])
                await asyncio.sleep(0)
            await harness.drained()
        counters = harness.counters
        assert counters.received == 1000
        assert counters.reconciled
        assert sum(source == "con-2" for source, _ in harness.writer.values) == 500
        assert counters.rejected == sum(harness.letters.counts().values()) == len(harness.rejections)
        assert counters.rejected > 300
        assert all(one.reason and one.detail for one in harness.rejections)
        assert len(harness.settled) == 1000

    run(test)


def test_what_a_quota_holds_back_goes_in_windows_and_not_message_by_message(tmp_path):
    async def test():
        harness = Harness(tmp_path, gathering=Gathering(window_s=0.001), quota=Quota(values_per_s=100.0))
        began_s = asyncio.get_running_loop().time()
        async with harness.pipeline as pipeline:
            pipeline.take([message(number) for number in range(140)])  # a second's worth at once, then the rest
            await harness.drained()
        seconds = asyncio.get_running_loop().time() - began_s
        assert len(harness.writer.windows) <= 2 + seconds / 0.25

    run(test)


def test_what_a_quota_holds_back_is_settled_bit_by_bit_after_its_commit(tmp_path):
    async def test():
        harness = Harness(tmp_path, quota=Quota(values_per_s=100.0))
        sizes = []
        settle = harness._settle

        def noted(messages, rejections):
            sizes.append(len(messages))
            settle(messages, rejections)

        harness.pipeline._settled = noted
        async with harness.pipeline as pipeline:
            pipeline.take([message(number) for number in range(160)])
            await until(lambda: harness.counters.stored == 100)
            assert pipeline.held_back
            await harness.drained()
        assert sizes[0] < 50
        assert [one.packet_id for one in harness.settled] == list(range(1, 161))

    run(test)


def test_what_is_durable_is_settled_when_the_pipeline_is_left_early(tmp_path):
    async def test():
        harness = Harness(tmp_path, quota=Quota(values_per_s=100.0))
        pipeline = await harness.pipeline.__aenter__()
        pipeline.take([message(number) for number in range(160)])
        await until(lambda: harness.settled)
        await pipeline.__aexit__(RuntimeError, RuntimeError(), None)
        assert len(harness.settled) == harness.counters.stored >= 100

    run(test)


@pytest.mark.parametrize(
    ("bounds", "backlog"),
    [({}, 0.4), ({"max_waiting_messages": 160}, 0.5), ({"max_waiting_bytes": 350 * len(message(99).payload)}, 0.8)],
    ids=["seconds", "messages", "bytes"],
)
def test_the_backlog_is_the_largest_share_of_what_a_quota_may_leave_waiting(tmp_path, bounds, backlog):
    """40 of 140 wait: for 0.4 s of the quota, as half of half the messages; all 140 are held, of half of 350."""

    async def test():
        gathering = Gathering(window_s=0.001, **bounds)
        harness = Harness(tmp_path, gathering=gathering, quota=Quota(values_per_s=100.0))
        harness.writer.gate.clear()
        async with harness.pipeline as pipeline:
            pipeline.take([message(number) for number in range(140)])
            await until(lambda: pipeline.backlog)  # a second's worth went at once
            assert pipeline.backlog == pytest.approx(backlog, rel=0.02)
            harness.writer.gate.set()
            await harness.drained()
            assert pipeline.backlog == 0.0

    run(test)


def test_what_waits_for_a_store_that_is_away_is_no_backlog_of_the_quota(tmp_path):
    async def test():
        harness = Harness(tmp_path, quota=Quota(values_per_s=100.0))
        harness.writer.gate.clear()
        async with harness.pipeline as pipeline:
            pipeline.take([message(0)])
            await until(lambda: harness.writer.asked)
            pipeline.take([message(number) for number in range(1, 300)])
            assert (pipeline.backlog, pipeline.counters.queued) == (0.0, 300)

    run(test)


def test_a_store_that_goes_away_while_a_quota_holds_back_ends_the_backlog(tmp_path):
    async def test():
        harness = Harness(tmp_path, quota=Quota(values_per_s=100.0))
        harness.writer.failures = 1
        harness.writer.gate.clear()
        async with harness.pipeline as pipeline:
            pipeline.take([message(number) for number in range(140)])
            await until(lambda: pipeline.backlog)
            harness.writer.gate.set()
            await until(lambda: pipeline.store_error)
            assert (pipeline.backlog, pipeline.counters.queued) == (0.0, 140)

    run(test)


def test_a_store_that_is_away_is_tried_again_and_nothing_is_settled_before(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        harness.writer.failures = 2
        async with harness.pipeline as pipeline:
            pipeline.take([message(1)])
            while not pipeline.store_error:
                await asyncio.sleep(0.001)
            assert harness.settled == []
            await harness.drained()
            assert pipeline.store_error == ""
        assert [m.packet_id for m in harness.settled] == [2]

    run(test)


def test_while_a_commit_runs_the_next_window_gathers(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        harness.writer.gate.clear()
        async with harness.pipeline as pipeline:
            pipeline.take([message(0)])
            await asyncio.sleep(0.02)
            for n in range(1, 50):
                pipeline.take([message(n)])
            harness.writer.gate.set()
            await harness.drained()
        assert harness.writer.windows == [1, 49]

    run(test)


def test_a_window_has_no_more_rows_than_allowed(tmp_path):
    async def test():
        harness = Harness(tmp_path, gathering=Gathering(window_s=0.0, max_rows=10))
        harness.writer.gate.clear()
        async with harness.pipeline as pipeline:
            pipeline.take([message(n) for n in range(35)])
            harness.writer.gate.set()
            await harness.drained()
        assert max(harness.writer.windows) == 10
        assert sum(harness.writer.windows) == 35

    run(test)


def test_it_says_when_too_many_bytes_wait(tmp_path):
    async def test():
        harness = Harness(tmp_path, gathering=Gathering(window_s=0.0, max_waiting_bytes=500))
        harness.writer.gate.clear()
        async with harness.pipeline as pipeline:
            pipeline.take([message(n) for n in range(20)])
            assert pipeline.full
            harness.writer.gate.set()
            await harness.drained()
            assert not pipeline.full
            assert pipeline.waiting_bytes == 0

    run(test)


def test_refused_messages_are_in_the_dead_letters_with_their_reason(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        async with harness.pipeline as pipeline:
            pipeline.take([message(1, value=-5.0), message(2)])
            await harness.drained()
        (letter,) = harness.letters.find()
        assert letter.reason == "range"
        assert "voltage.a -5" in letter.detail
        assert letter.payload == message(1, value=-5.0).payload
        (rejection,) = harness.rejections
        assert (rejection.reason, rejection.source, rejection.seq) == ("range", "con-1", 1)
        assert harness.counters.stored == 1

    run(test)


def test_a_batch_waits_for_its_roster(tmp_path):
    async def test():
        roster = Roster(source="con-1", entries=(RosterEntry(meter="m1", phase="b"),))
        harness = Harness(tmp_path)
        async with harness.pipeline as pipeline:
            pipeline.take([message(1, roster=roster.hash)])
            await asyncio.sleep(0.02)
            assert harness.counters.queued == 1
            pipeline.take([Message(topics.roster("acme", "con-1"), encode_notice(roster))])
            await harness.drained()
        (stored,) = harness.writer.values.values()
        assert stored.layout.phases == ("b",)

    run(test)


def test_a_batch_whose_roster_never_comes_is_refused(tmp_path):
    async def test():
        harness = Harness(tmp_path, gathering=Gathering(window_s=0.0, roster_wait_s=0.02))
        async with harness.pipeline as pipeline:
            pipeline.take([message(1, roster="0" * 16)])
            await harness.drained()
        assert [r.reason for r in harness.rejections] == ["roster"]
        assert harness.counters.reconciled

    run(test)


def test_a_posted_batch_is_answered_after_its_commit(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        async with harness.pipeline as pipeline:
            result = await pipeline.submit(message(1).payload)
            assert (result.stored, result.duplicate) == (1, 0)
            result = await pipeline.submit(message(1).payload)
            assert (result.stored, result.duplicate) == (0, 1)
            with pytest.raises(Refused, match="voltage"):
                await pipeline.submit(message(2, value=-1.0).payload)
            harness.writer.failures = 1
            with pytest.raises(StorageError):
                await pipeline.submit(message(3).payload)
            assert harness.counters.reconciled
        assert (harness.counters.received, harness.counters.rejected) == (3, 1)
        assert harness.letters.counts() == {"range": 1}

    run(test)


def test_missing_sequence_numbers_are_counted_until_they_come(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        async with harness.pipeline as pipeline:
            pipeline.take([message(1), message(4)])
            assert pipeline.sequences.missing == 2
            pipeline.take([message(2), message(3), message(3)])
            assert pipeline.sequences.missing == 0
            await harness.drained()

    run(test)


def test_a_failure_nobody_expected_is_visible(tmp_path):
    async def test():
        harness = Harness(tmp_path)

        async def broken(window):
            raise ValueError("a bug")

        harness.writer.commit = broken
        async with harness.pipeline as pipeline:
            pipeline.take([message(1)])
            while pipeline.failure is None:
                await asyncio.sleep(0.001)
            assert "a bug" in str(pipeline.failure)

    run(test)


@pytest.mark.parametrize("unit", ["kV", 3])
def test_a_unit_of_its_own_is_refused(tmp_path, unit):
    async def test():
        harness = Harness(tmp_path)
        content = {
            "version": 1,
            "source": "con-1",
            "boot": 1,
            "seq": 1,
            "time_ms": NOW_MS,
            "columns": ["voltage.a"],
            "values": [[0.23]],
            "meters": ["m1"],
            "unit": unit,
        }
        async with harness.pipeline as pipeline:
            pipeline.take([Message(topics.readings("acme", "con-1"), json.dumps(content).encode(), 1)])
            await harness.drained()
        assert [(r.reason, "unit" in r.detail) for r in harness.rejections] == [("format", True)]
        assert msgspec.json.encode(harness.rejections[0])

    run(test)
