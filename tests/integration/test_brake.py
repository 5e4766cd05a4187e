"""The brake of a tenant over its quota, on the real broker: no acknowledgement, nothing lost, others untouched."""

import asyncio
import contextlib
import os
import signal
from types import SimpleNamespace

import nats.errors
from nats.js.api import DiscardPolicy
from nats.js.errors import Error as JetStreamError

from flexmeter.messages import topics
from flexmeter.messaging import Broker, BrokerSettings, identity, open_authority
from flexmeter.pipeline.brake import Brake
from flexmeter.pipeline.shared import STREAM
from flexmeter.pipeline.stream import connected
from flexmeter.supervision import Supervisor

GREEDY = [identity("greedy", "platform", "platform"), identity("greedy", "con-1", "device")]
OTHER = [identity("other", "platform", "platform"), identity("other", "con-1", "device")]
BEFORE, DURING = 50, 20


def run(test, tmp_path):
    async def main():
        async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
            supervisor = await stack.enter_async_context(Supervisor())
            authority = open_authority(tmp_path / "ca")
            settings = BrokerSettings(tmp_path / "broker", port=0, sync_interval="2m")
            broker = await stack.enter_async_context(Broker(settings, authority, supervisor, GREEDY + OTHER))
            tls = authority.client(GREEDY[0]).client_context()
            client = await stack.enter_async_context(connected("127.0.0.1", broker.client_port, tls, "brake"))
            await test(broker, client.jetstream(), stack)

    asyncio.run(main())


async def subscribed(broker, who, stack):
    """Return the platform's session of a tenant and what it gets; nothing is acknowledged yet."""
    session = broker.client(who, clean=False)
    got = []
    session.receiver = got.extend
    await stack.enter_async_context(session)
    await session.subscribe(f"fm/v1/{who.tenant}/+/readings")
    return session, got


async def publish(device, tenant, numbers):
    return [await device.send(topics.readings(tenant, "con-1"), b"%d" % number) for number in numbers]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_a_closed_brake_acknowledges_only_what_finds_a_place_and_loses_nothing(tmp_path):
    async def test(broker, jetstream, stack):
        session, got = await subscribed(broker, GREEDY[0], stack)
        _, others = await subscribed(broker, OTHER[0], stack)
        device = await stack.enter_async_context(broker.client(GREEDY[1]))
        neighbour = await stack.enter_async_context(broker.client(OTHER[1]))
        backlog = SimpleNamespace(backlog=1.01)
        brake = Brake("greedy", jetstream, backlog)
        await asyncio.gather(*await publish(device, "greedy", range(BEFORE)))
        await brake.follow()
        late = await publish(device, "greedy", range(BEFORE, BEFORE + DURING))
        await until(lambda: device.connections > 1)
        await asyncio.gather(*await publish(neighbour, "other", range(5)))
        assert not any(one.done() for one in late), "no place, no acknowledgement"
        await until(lambda: len(got) == BEFORE and len(others) == 5)
        session.acknowledge(got)
        await asyncio.gather(*late)
        await until(lambda: len({message.payload for message in got}) == BEFORE + DURING)
        info = await jetstream.stream_info(STREAM)
        assert info.config.max_msgs == BEFORE, "still closed: they found places"
        backlog.backlog = 0.0
        await brake.follow()
        assert (await jetstream.stream_info(STREAM)).config.max_msgs == -1

    run(test, tmp_path)


def test_a_closed_brake_survives_a_kill_of_the_broker_and_nothing_is_lost(tmp_path):
    async def test(broker, jetstream, stack):
        session, got = await subscribed(broker, GREEDY[0], stack)
        device = await stack.enter_async_context(broker.client(GREEDY[1]))
        backlog = SimpleNamespace(backlog=1.01)
        brake = Brake("greedy", jetstream, backlog)
        await asyncio.gather(*await publish(device, "greedy", range(BEFORE)))
        await brake.follow()
        late = await publish(device, "greedy", range(BEFORE, BEFORE + DURING))
        pid = broker.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: broker.pid not in (0, pid))
        while True:
            with contextlib.suppress(JetStreamError, nats.errors.Error):
                assert (await jetstream.stream_info(STREAM)).config.max_msgs == BEFORE
                break
            await asyncio.sleep(0.05)
        session.receiver = lambda messages: (got.extend(messages), session.acknowledge(messages))
        session.acknowledge(got)
        await asyncio.gather(*late)
        await until(lambda: len({message.payload for message in got}) == BEFORE + DURING)

    run(test, tmp_path)


def test_a_brake_that_closed_on_too_much_lets_it_drain_to_what_may_wait(tmp_path):
    async def test(broker, jetstream, stack):
        session, got = await subscribed(broker, GREEDY[0], stack)
        device = await stack.enter_async_context(broker.client(GREEDY[1]))
        await asyncio.gather(*await publish(device, "greedy", range(BEFORE)))
        backlog = SimpleNamespace(backlog=1.01)
        brake = Brake("greedy", jetstream, backlog)
        for share, limit in [(1.01, BEFORE), (1.5, BEFORE), (5.0, BEFORE // 5)]:
            backlog.backlog = share
            await brake.follow()
            info = await jetstream.stream_info(STREAM)
            assert (info.config.max_msgs, info.state.messages) == (limit, BEFORE)
        await until(lambda: len(got) == BEFORE)
        session.acknowledge(got)
        await asyncio.gather(*await publish(device, "greedy", range(BEFORE // 5)))

    run(test, tmp_path)


def test_of_two_sources_the_one_that_is_over_its_quota_decides(tmp_path):
    async def test(broker, jetstream, stack):
        await subscribed(broker, GREEDY[0], stack)
        backlogs = [SimpleNamespace(backlog=1.01), SimpleNamespace(backlog=1.01)]
        over, other = (Brake("greedy", jetstream, backlog) for backlog in backlogs)
        await over.follow()
        await other.follow()
        backlogs[1].backlog = 0.0
        await other.follow()
        await over.follow()
        assert (await jetstream.stream_info(STREAM)).config.max_msgs == 1

    run(test, tmp_path)


def test_a_limit_below_what_waits_deletes_nothing(tmp_path):
    async def test(broker, jetstream, stack):
        await subscribed(broker, GREEDY[0], stack)
        device = await stack.enter_async_context(broker.client(GREEDY[1]))
        await asyncio.gather(*await publish(device, "greedy", range(BEFORE)))
        info = await jetstream.stream_info(STREAM)
        await jetstream.update_stream(info.config, max_msgs=BEFORE // 2, discard=DiscardPolicy.NEW)
        assert (await jetstream.stream_info(STREAM)).state.messages == BEFORE

    run(test, tmp_path)


def test_a_brake_left_closed_is_opened_by_the_next_process(tmp_path):
    async def test(broker, jetstream, stack):
        await subscribed(broker, GREEDY[0], stack)
        await Brake("greedy", jetstream, SimpleNamespace(backlog=1.01)).follow()
        assert (await jetstream.stream_info(STREAM)).config.max_msgs == 1
        async with Brake("greedy", jetstream, SimpleNamespace(backlog=0.0)):
            while (await jetstream.stream_info(STREAM)).config.max_msgs != -1:
                await asyncio.sleep(0.01)

    run(test, tmp_path)


def test_a_broker_that_cannot_be_asked_is_said_once_and_asked_again(caplog):
    class Away:
        asked = 0

        async def stream_info(self, _stream):
            self.asked += 1
            raise nats.errors.TimeoutError

    async def main():
        away = Away()
        async with asyncio.timeout(10), Brake("greedy", away, SimpleNamespace(backlog=2.0)):
            await until(lambda: away.asked >= 3)

    asyncio.run(main())
    assert sum("event=brake_failed" in record.message for record in caplog.records) == 1
