import asyncio

import numpy as np
import pytest

from flexmeter.devices import Edge, Measured, Outbox
from flexmeter.devices.lines import parse_line
from flexmeter.errors import InputError
from flexmeter.messages import COLUMNS, Quality, Roster, RosterEntry, decode_notice, decode_readings, topics
from flexmeter.messages.events import decode_event

COLUMN = (COLUMNS["voltage.a"],)


class FakePublisher:
    """Acknowledges at once while connected, keeps what is under way for the next connection otherwise."""

    def __init__(self):
        self.connected = True
        self.connections = 1
        self.acknowledge = True
        self.sent = []
        self.flying = []

    async def send(self, topic, payload, *, qos=1, retain=False):
        done = asyncio.get_running_loop().create_future()
        self.sent.append((topic, payload))
        if self.acknowledge:
            done.set_result(None)
        else:
            self.flying.append(done)
        return done

    def reconnect(self):
        self.connected = self.acknowledge = True
        self.connections += 1
        for done in self.flying:
            done.set_result(None)
        self.flying = []

    def batches(self):
        return [decode_readings(payload) for topic, payload in self.sent if topic.endswith("/readings")]


class ListAdapter:
    def __init__(self, roster=None):
        self.roster = roster
        self.queue = asyncio.Queue()

    async def measurements(self):
        while (value := await self.queue.get()) is not None:
            meters = () if self.roster else ("m1",)
            yield Measured(1_763_834_400_000 + value, COLUMN, np.array([[float(value)]]), meters)


class Harness:
    def __init__(self, tmp_path, roster=None, **outbox):
        self.now_ms = 1_763_834_400_000
        self.adapter = ListAdapter(roster)
        self.publisher = FakePublisher()
        self.outbox = Outbox(tmp_path / "outbox.sqlite", "con-1", **outbox)
        self.edge = Edge(
            "acme", "con-1", self.adapter, self.outbox, self.publisher, now_ms=lambda: self.now_ms, backfill_per_s=1e6
        )

    async def read(self, *values):
        before = self.outbox.last_id
        for value in values:
            self.adapter.queue.put_nowait(value)
        while self.outbox.last_id < before + len(values):
            await asyncio.sleep(0.001)

    async def drained(self):
        while self.outbox.count:
            await asyncio.sleep(0.001)


def run(test):
    async def main():
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())


def test_batches_are_numbered_published_and_deleted_when_acknowledged(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        task = asyncio.create_task(harness.edge.run())
        await harness.read(1, 2, 3)
        harness.adapter.queue.put_nowait(None)
        await task
        assert [(one.seq, one.values[0, 0]) for one in harness.publisher.batches()] == [(0, 1), (1, 2), (2, 3)]
        assert harness.edge.acknowledged == 3

    run(test)


def test_what_was_read_during_an_outage_follows_late_and_behind_live_data(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        publisher = harness.publisher
        task = asyncio.create_task(harness.edge.run())
        publisher.connected = False
        await harness.read(1, 2)
        harness.now_ms += 600_000
        harness.edge._backfill_per_s = 0.0
        publisher.reconnect()
        while harness.edge._connection != 2:
            await asyncio.sleep(0.001)
        await harness.read(3)
        while not publisher.batches():
            await asyncio.sleep(0.001)
        harness.edge._backfill_per_s = 1e6
        await harness.drained()
        harness.adapter.queue.put_nowait(None)
        await task
        late = [int(one.quality()[0, 0]) == Quality.LATE for one in publisher.batches()]
        assert [one.seq for one in publisher.batches()] == [2, 0, 1]
        assert late == [False, True, True]

    run(test)


def test_what_is_under_way_is_not_sent_twice_by_the_outbox(tmp_path):
    async def test():
        harness = Harness(tmp_path)
        publisher = harness.publisher
        publisher.acknowledge = False
        task = asyncio.create_task(harness.edge.run())
        await harness.read(1, 2)
        while len(publisher.batches()) < 2:
            await asyncio.sleep(0.001)
        publisher.connected = False
        await harness.read(3)
        publisher.reconnect()
        await harness.drained()
        harness.adapter.queue.put_nowait(None)
        await task
        assert [one.seq for one in publisher.batches()] == [0, 1, 2]

    run(test)


def test_a_restart_sends_what_the_last_run_left(tmp_path):
    async def test():
        first = Harness(tmp_path)
        first.publisher.connected = False
        task = asyncio.create_task(first.edge.run())
        await first.read(1, 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        first.outbox.close()
        second = Harness(tmp_path)
        second.adapter.queue.put_nowait(None)
        await second.edge.run()
        batches = second.publisher.batches()
        assert [one.values[0, 0] for one in batches] == [1, 2]
        assert len({one.boot for one in batches}) == 1
        assert second.edge._boot > batches[0].boot

    run(test)


def test_what_had_to_be_dropped_is_reported_as_a_gap(tmp_path):
    async def test():
        harness = Harness(tmp_path, max_bytes=300)
        harness.publisher.connected = False
        task = asyncio.create_task(harness.edge.run())
        await harness.read(*range(10))
        harness.publisher.reconnect()
        await harness.drained()
        harness.adapter.queue.put_nowait(None)
        await task
        events = [decode_event(p) for topic, p in harness.publisher.sent if topic == topics.event("acme", "con-1")]
        kept = len(harness.publisher.batches())
        assert sum(event.gap.messages for event in events) == 10 - kept
        assert 0 < kept < 10
        assert harness.outbox.gaps() == []

    run(test)


def test_the_roster_goes_out_before_the_first_batch(tmp_path):
    async def test():
        roster = Roster(source="con-1", entries=(RosterEntry(meter="m1", phase="a"),))
        harness = Harness(tmp_path, roster)
        task = asyncio.create_task(harness.edge.run())
        await harness.read(1)
        harness.adapter.queue.put_nowait(None)
        await task
        assert decode_notice(harness.publisher.sent[0][1], Roster) == roster
        assert harness.publisher.batches()[0].roster == roster.hash

    run(test)


def test_a_line_becomes_a_reading():
    measured = parse_line(b'{"time_ms": 5, "meter": "m2", "voltage.a": 230.5, "frequency": 50}', 1, "con-1", 9)
    assert (measured.time_ms, measured.meters) == (5, ("m2",))
    assert [column.name for column in measured.columns] == ["voltage.a", "frequency"]
    np.testing.assert_array_equal(measured.values, [[230.5], [50.0]])
    assert parse_line(b'{"frequency": 50}', 1, "con-1", 9).meters == ("con-1",)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b'{"volts": 1}',
        b'{"voltage.a": "1"}',
        b'{"voltage.a": true}',
        b'{"time_ms": 1.5, "frequency": 50}',
    ],
)
def test_a_line_that_makes_no_sense_is_named(line):
    with pytest.raises(InputError, match="line 7"):
        parse_line(line, 7, "con-1", 0)
