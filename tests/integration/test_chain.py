"""The chain on the real broker: Event Source to DuckDB, direct, over a stream, shared; bad input; kills."""

import asyncio
import contextlib
import json
import os
import signal

import cbor2
import numpy as np
import pytest

from flexmeter.messages import (
    COLUMNS,
    Readings,
    Rejection,
    Roster,
    RosterEntry,
    decode_notice,
    encode_notice,
    encode_readings,
    topics,
)
from flexmeter.messaging import Broker, BrokerSettings, Cluster, MqttClient, identity, may_publish, open_authority
from flexmeter.pipeline import DeadLetters, DirectWriter, EventSource
from flexmeter.pipeline.shared import SharedSession
from flexmeter.pipeline.stream import StreamConsumer, StreamWriter, connected, ensure_stream
from flexmeter.ports import free_ports
from flexmeter.storage import Selection, Span
from flexmeter.storage.duckdb import open_duckdb_stores
from flexmeter.supervision import Supervisor

NOW_MS = 1_763_834_400_000
PLATFORM = identity("acme", "platform", "platform")
DEVICES = [identity("acme", f"con-{n}", "device") for n in range(3)]
OTHER_PLATFORM = identity("other", "platform", "platform")
OTHER = identity("other", "con-9", "device")
EVERYBODY = [PLATFORM, *DEVICES, OTHER_PLATFORM, OTHER]


def reading(device, seq, value=230.0):
    return encode_readings(
        Readings(device, 1, seq, NOW_MS + seq, (COLUMNS["voltage.a"],), np.array([[value]]), meters=("m1",)), "json"
    )


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


class Chain:
    """A broker, a DuckDB store and Event Sources, opened within the stack."""

    def __init__(self, tmp_path, stack):
        self.path = tmp_path
        self.stack = stack

    async def open(self):
        supervisor = await self.stack.enter_async_context(Supervisor())
        settings = BrokerSettings(self.path / "broker", port=0, sync_interval="2m")
        self.broker = Broker(settings, open_authority(self.path / "ca"), supervisor, EVERYBODY)
        await self.stack.enter_async_context(self.broker)
        (self.path / "stores").mkdir()
        self.stores = open_duckdb_stores(self.path / "stores")
        self.stack.callback(self.stores.close)
        return self

    def letters(self, tenant="acme"):
        return DeadLetters(self.path / f"{tenant}.letters")

    async def direct(self, tenant="acme"):
        writer = DirectWriter(self.stores.store(tenant))
        self.stack.callback(writer.close)
        who = identity(tenant, "platform", "platform")
        source = EventSource(
            tenant, self.broker.client(who, clean=False), writer, self.letters(tenant), now_ms=lambda: NOW_MS
        )
        return await self.stack.enter_async_context(source)

    async def jetstream(self):
        tls = self.broker.endpoint(PLATFORM).tls
        client = await self.stack.enter_async_context(connected("127.0.0.1", self.broker.client_port, tls, "test"))
        return await ensure_stream(client)

    async def device(self, who=DEVICES[0]):
        return await self.stack.enter_async_context(self.broker.client(who))

    def stored(self, tenant="acme"):
        batches = self.stores.store(tenant).readings(Selection(), Span(0, 2**45))
        rows = [
            (str(source), time_ms, value)
            for batch in batches
            for source, time_ms, value in zip(
                batch.column("source").to_pylist(),
                batch.column("time_ms").to_pylist(),
                batch.column("value").to_pylist(),
                strict=True,
            )
        ]
        assert len({row[:2] for row in rows}) == len(rows)
        return rows


def run(tmp_path, test):
    async def main():
        async with asyncio.timeout(120), contextlib.AsyncExitStack() as stack:
            await test(await Chain(tmp_path, stack).open())

    asyncio.run(main())


def test_a_reading_is_stored_and_accounted_for(tmp_path):
    async def test(chain):
        source = await chain.direct()
        device = await chain.device()
        for seq in [0, 1, 2, 2, 1]:
            await device.publish(topics.readings("acme", "con-0"), reading("con-0", seq))
        counters = source.pipeline.counters
        await until(lambda: counters.received == 5 and not counters.queued)
        assert (counters.stored, counters.duplicate, counters.rejected) == (3, 2, 0)
        assert chain.stored() == [("con-0", NOW_MS + seq, 230.0) for seq in range(3)]

    run(tmp_path, test)


def test_readings_by_roster_and_tenants_apart(tmp_path):
    async def test(chain):
        mine, theirs = await chain.direct(), await chain.direct("other")
        device, foreign = await chain.device(), await chain.device(OTHER)
        roster = Roster(source="con-0", entries=(RosterEntry(meter="m1", phase="b"), RosterEntry(meter="m2")))
        values = np.array([[229.0, np.nan]])
        by_roster = Readings("con-0", 1, 0, NOW_MS, (COLUMNS["voltage"],), values, roster=roster.hash)
        await device.publish(topics.readings("acme", "con-0"), encode_readings(by_roster))
        await device.publish(topics.roster("acme", "con-0"), encode_notice(roster), retain=True)
        await foreign.publish(topics.readings("other", "con-9"), reading("con-9", 7, 111.0))
        await until(lambda: mine.pipeline.counters.stored and theirs.pipeline.counters.stored)
        assert chain.stored() == [("con-0", NOW_MS, 229.0)]
        series = chain.stores.store("acme").series(Selection())
        assert series.column("phase").to_pylist()[0] == "b"
        assert chain.stored("other") == [("con-9", NOW_MS + 7, 111.0)]

    run(tmp_path, test)


PLAIN = json.loads(reading("con-0", 0))
BAD = {
    "not json": (b"{nonsense", "format"),
    "not cbor": (b"\xa1\xff", "format"),
    "neither": (b"hello", "format"),
    "unit": (json.dumps(PLAIN | {"unit": "kV"}).encode(), "format"),
    "wrong quantity": (json.dumps(PLAIN | {"columns": ["voltage_kv.a"]}).encode(), "format"),
    "json nan": (json.dumps(PLAIN | {"values": [[float("nan")]]}).encode(), "format"),
    "only nan": (cbor2.dumps(PLAIN | {"values": cbor2.CBORTag(86, np.array([np.nan]).tobytes())}), "empty"),
    "infinite": (cbor2.dumps(PLAIN | {"values": cbor2.CBORTag(86, np.array([np.inf]).tobytes())}), "range"),
    "kilovolts by far": (json.dumps(PLAIN | {"values": [[2.3e6]]}).encode(), "range"),
    "1970": (json.dumps(PLAIN | {"time_ms": 1000}).encode(), "time"),
    "2100": (json.dumps(PLAIN | {"time_ms": 4_102_444_800_001}).encode(), "time"),
    "a meter twice": (json.dumps(PLAIN | {"meters": ["m1", "m1"], "values": [[1.0, 2.0]]}).encode(), "format"),
    "a column twice": (json.dumps(PLAIN | {"columns": ["voltage.a"] * 2, "values": [[1.0]] * 2}).encode(), "format"),
    "a key twice": (reading("con-0", 0)[:-1] + b',"seq":1e3}', "format"),
    "another device": (reading("con-1", 0), "source"),
    "10 MB": (b"{" + bytes(10_000_000), "too_large"),
}


def test_every_bad_message_is_refused_with_its_reason_and_disturbs_nothing(tmp_path):
    async def test(chain):
        source = await chain.direct()
        device = await chain.device()
        told = []
        device.receiver = lambda messages: (told.extend(messages), device.acknowledge(messages))
        await device.subscribe(topics.error("acme", "con-0"))
        for number, (payload, _) in enumerate(BAD.values()):
            await device.publish(topics.readings("acme", "con-0"), payload)
            await device.publish(topics.readings("acme", "con-0"), reading("con-0", number))
        counters = source.pipeline.counters
        await until(lambda: counters.received == 2 * len(BAD) and not counters.queued and len(told) == len(BAD))
        assert (counters.stored, counters.rejected) == (len(BAD), len(BAD))
        expected = [reason for _, reason in BAD.values()]
        assert [decode_notice(one.payload, Rejection).reason for one in told] == expected
        assert [letter.reason for letter in chain.letters().find()] == expected
        assert len(chain.stored()) == len(BAD)

    run(tmp_path, test)


def test_nothing_is_lost_or_stored_twice_when_the_broker_is_killed(tmp_path):
    async def test(chain):
        await chain.direct()
        clients = [await chain.device(who) for who in DEVICES]

        async def publish(client, who):
            for seq in range(150):
                await client.publish(topics.readings("acme", who.name), reading(who.name, seq))

        work = [asyncio.create_task(publish(c, who)) for c, who in zip(clients, DEVICES, strict=True)]
        for _ in range(2):
            await asyncio.sleep(0.2)
            pid = chain.broker.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: chain.broker.pid not in (0, pid))
        await asyncio.gather(*work)
        await until(lambda: len(chain.stored()) == 450)

    run(tmp_path, test)


def test_an_event_source_that_vanishes_with_unacknowledged_messages_loses_none(tmp_path):
    async def test(chain):
        client = chain.broker.client(PLATFORM, clean=False)
        held = []
        client.receiver = held.extend
        async with client:
            await client.subscribe("fm/v1/acme/+/readings", "fm/v1/acme/se/+/+")
            device = await chain.device()
            for seq in range(20):
                await device.publish(topics.readings("acme", "con-0"), reading("con-0", seq))
            await until(lambda: len(held) == 20)
        source = await chain.direct()
        await until(lambda: source.pipeline.counters.stored == 20)
        assert len(chain.stored()) == 20

    run(tmp_path, test)


def test_over_a_stream_with_a_writer_of_its_own_and_a_replay(tmp_path):
    async def test(chain):
        jetstream = await chain.jetstream()
        source = EventSource(
            "acme",
            chain.broker.client(PLATFORM, clean=False),
            StreamWriter(jetstream),
            chain.letters(),
            now_ms=lambda: NOW_MS,
        )
        await chain.stack.enter_async_context(source)
        device = await chain.device()
        for seq in range(30):
            await device.publish(topics.readings("acme", "con-0"), reading("con-0", seq))
        await until(lambda: source.pipeline.counters.stored == 30)
        assert chain.stored() == []
        for durable, (stored, duplicate) in {"writer": (30, 0), "replay": (0, 30)}.items():
            consumer = StreamConsumer(jetstream, chain.stores.store("acme"), durable)
            task = asyncio.create_task(consumer.run())
            await until(lambda consumer=consumer: consumer.counters.received == 30 and not consumer.counters.queued)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (consumer.counters.stored, consumer.counters.duplicate) == (stored, duplicate)
        assert len(chain.stored()) == 30

    run(tmp_path, test)


def test_several_event_sources_share_the_work_of_a_tenant(tmp_path):
    async def test(chain):
        jetstream = await chain.jetstream()
        sources = []
        device = await chain.device()
        for number in range(3):
            mqtt = MqttClient(chain.broker.endpoint(PLATFORM), f"source-{number}", may_publish=may_publish(PLATFORM))
            source = EventSource(
                "acme",
                SharedSession(mqtt, jetstream),
                StreamWriter(jetstream),
                DeadLetters(tmp_path / f"letters-{number}"),
                now_ms=lambda: NOW_MS,
            )
            sources.append(await chain.stack.enter_async_context(source))
        for seq in range(300):
            await device.publish(topics.readings("acme", "con-0"), reading("con-0", seq))
        await device.publish(topics.readings("acme", "con-0"), b"nonsense")
        counters = [source.pipeline.counters for source in sources]
        await until(lambda: sum(one.stored + one.rejected for one in counters) >= 301)
        consumer = StreamConsumer(jetstream, chain.stores.store("acme"))
        task = asyncio.create_task(consumer.run())
        await until(lambda: len(chain.stored()) == 300)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sum(one.rejected for one in counters) == 1

    run(tmp_path, test)


def test_a_tenant_at_its_disk_quota_is_not_acknowledged_and_others_go_on(tmp_path):
    async def main():
        async with asyncio.timeout(120), Supervisor() as supervisor:
            settings = BrokerSettings(tmp_path / "b", port=0, sync_interval="2m", tenant_disk_bytes=2_000_000)
            authority = open_authority(tmp_path / "ca")
            async with Broker(settings, authority, supervisor, EVERYBODY) as broker:
                for who in (PLATFORM, OTHER_PLATFORM):
                    async with broker.client(who, clean=False) as platform:
                        await platform.subscribe(f"fm/v1/{who.tenant}/+/readings")
                async with broker.client(DEVICES[0]) as greedy, broker.client(OTHER) as modest:
                    acknowledged = 0
                    done = await greedy.send(topics.readings("acme", "con-0"), bytes(50_000))
                    while acknowledged < 100 and greedy.connections < 3:
                        await asyncio.wait([done], timeout=0.2)
                        if done.done():
                            acknowledged += 1
                            done = await greedy.send(topics.readings("acme", "con-0"), bytes(50_000))
                    assert acknowledged < 60
                    await modest.publish(topics.readings("other", "con-9"), b"x")
                    got = []
                    back = broker.client(PLATFORM, clean=False)
                    back.receiver = lambda messages: (got.extend(messages), back.acknowledge(messages))
                    async with back:
                        await done
                        await until(lambda: len(got) >= acknowledged + 1)

    asyncio.run(main())


@pytest.mark.slow
def test_a_cluster_of_three_survives_the_loss_of_any_node(tmp_path):
    """Every node in turn is killed in mid-stream: whichever leads is among them."""

    async def main():
        async with asyncio.timeout(240), Supervisor() as supervisor:
            authority = open_authority(tmp_path / "ca")
            ports = free_ports(12)
            routes = tuple(f"127.0.0.1:{port}" for port in ports[9:])
            nodes = []
            for number in range(3):
                mqtt, client, monitor = ports[3 * number : 3 * number + 3]
                settings = BrokerSettings(
                    tmp_path / f"node-{number}",
                    port=mqtt,
                    client_port=client,
                    monitor_port=monitor,
                    sync_interval="2m",
                    cluster=Cluster("test", ports[9 + number], routes),
                    node=f"node-{number}",
                )
                nodes.append(Broker(settings, authority, supervisor, EVERYBODY))
            async with contextlib.AsyncExitStack() as stack:
                await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))
                await survive(nodes, stack)

    async def survive(nodes, stack):
        endpoint = nodes[0].endpoint(PLATFORM)
        platform = MqttClient(endpoint, "platform", clean=False, patience_s=60)
        got = []
        platform.receiver = lambda messages: (got.extend(messages), platform.acknowledge(messages))
        await stack.enter_async_context(platform)
        await platform.subscribe("fm/v1/acme/+/readings")
        clients = [
            MqttClient(node.endpoint(DEVICES[n]), DEVICES[n].name, patience_s=60) for n, node in enumerate(nodes)
        ]
        for client in clients:
            await stack.enter_async_context(client)

        async def publish(client, who):
            for seq in range(300):
                await client.publish(topics.readings("acme", who.name), reading(who.name, seq))
                await asyncio.sleep(0.02)

        work = [asyncio.create_task(publish(c, who)) for c, who in zip(clients, DEVICES, strict=True)]
        for node in nodes:
            await asyncio.sleep(1.0)
            os.kill(node.pid, signal.SIGKILL)
            await asyncio.sleep(3.0)
        await asyncio.gather(*work)
        await until(lambda: len({m.payload for m in got}) == 900)

    asyncio.run(main())
