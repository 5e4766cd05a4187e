import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import pytest

from flexmeter.errors import AccessError, BrokerError
from flexmeter.messaging import packets
from flexmeter.messaging.mqtt import Endpoint, MqttClient
from flexmeter.messaging.packets import Publish


@dataclass
class FakeBroker:
    """What it received, and how it behaves; use as an async context manager."""

    connack_code: int = 0
    suback_code: int = 1
    acknowledge: bool = True
    received: list[Publish] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    subscribed: list[str] = field(default_factory=list)
    connects: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1], None)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self.writers:
            writer.close()
        await self._server.wait_closed()

    def send(self, message):
        self.writers[-1].write(packets.publish(message))

    async def cut(self):
        self.writers[-1].close()
        with contextlib.suppress(ConnectionError):
            await self.writers[-1].wait_closed()

    async def _serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = await _read_packet(reader)
                self._answer(head, body, writer)

    def _answer(self, head, body, writer):
        match head >> 4:
            case 1:
                self.connects.append(body)
                writer.write(bytes([0x20, 2, 0, self.connack_code]))
            case 3:
                (message,) = packets.Parser().feed(packets._packet(head, body))
                self.received.append(message)
                if message.qos and self.acknowledge:
                    writer.write(packets.pubacks([message.packet_id]))
            case 4:
                self.acknowledged.append(int.from_bytes(body))
            case 8:
                at, codes = 2, bytearray()
                while at < len(body):
                    length = int.from_bytes(body[at : at + 2])
                    self.subscribed.append(body[at + 2 : at + 2 + length].decode())
                    at += length + 3
                    codes.append(self.suback_code)
                writer.write(bytes([0x90, 2 + len(codes)]) + body[:2] + codes)
            case 12:
                writer.write(b"\xd0\x00")


async def _read_packet(reader):
    head = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return head, await reader.readexactly(length)


async def until(condition):
    """Wait until a condition holds; the test's time limit is the limit."""
    while not condition():
        await asyncio.sleep(0.005)


def client(broker, **options):
    return MqttClient(broker.endpoint, "me", rng=random.Random(1), **options)


def run(test):
    async def main():
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())


def test_publishes_and_waits_for_the_acknowledgement():
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            await mqtt.publish("a/b", b"1", retain=True)
            await mqtt.publish("a/b", b"2", qos=0)
            await mqtt.publish("a/b", b"3")
            assert [(m.payload, m.qos, m.retain) for m in broker.received] == [
                (b"1", 1, True),
                (b"2", 0, False),
                (b"3", 1, False),
            ]

    run(test)


def test_unacknowledged_messages_are_sent_again_after_a_reconnection():
    async def test():
        async with FakeBroker(acknowledge=False) as broker, client(broker) as mqtt:
            done = [await mqtt.send("a", bytes([n])) for n in range(3)]
            await until(lambda: len(broker.received) == 3)
            broker.acknowledge = True
            await broker.cut()
            await asyncio.gather(*done)
            assert [(m.payload, m.duplicate) for m in broker.received[3:]] == [(bytes([n]), True) for n in range(3)]
            assert mqtt.connections == 2

    run(test)


def test_a_publish_while_disconnected_goes_out_on_the_next_connection():
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            await broker.cut()
            await until(lambda: not mqtt.connected)
            await mqtt.publish("a", b"late")
            assert [m.payload for m in broker.received] == [b"late"]

    run(test)


def test_subscriptions_are_renewed_after_a_reconnection():
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            await mqtt.subscribe("a/+", "b")
            await broker.cut()
            await until(lambda: len(broker.subscribed) == 4)
            assert broker.subscribed[2:] == ["a/+", "b"]

    run(test)


def test_the_window_bounds_what_is_under_way():
    async def test():
        async with FakeBroker(acknowledge=False) as broker, client(broker, window=2) as mqtt:
            for n in range(2):
                await mqtt.send("a", bytes([n]))
            third = asyncio.create_task(mqtt.send("a", b"x"))
            await until(lambda: len(broker.received) == 2)
            assert not third.done()
            broker.writers[-1].write(b"\x40\x02\x00\x01")
            await third

    run(test)


@pytest.mark.parametrize(("under_way", "sent_first"), [(5, 2), (0, 5)])
def test_only_a_connection_after_one_cut_off_with_publishes_under_way_is_careful(under_way, sent_first):
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            broker.acknowledge = False
            kept = [await mqtt.send("a", b"%d" % number) for number in range(under_way)]
            await until(lambda: len(broker.received) == under_way)
            broker.received.clear()
            await broker.cut()
            await until(lambda: mqtt.connections == 2 and mqtt.connected)
            kept += [await mqtt.send("a", b"%d" % number) for number in range(under_way, 5)]
            await mqtt.send("a", b"", qos=0)  # behind all that may be sent
            await until(lambda: broker.received and broker.received[-1].qos == 0)
            assert len(broker.received) == sent_first + 1
            broker.acknowledge = True
            broker.writers[-1].write(packets.pubacks([one.packet_id for one in broker.received if one.qos]))
            await asyncio.gather(*kept)
            assert {one.payload for one in broker.received if one.qos} == {b"%d" % number for number in range(5)}

    run(test)


def test_messages_are_acknowledged_when_the_next_is_asked_for():
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            broker.send(Publish("t", b"1", 1, packet_id=7))
            broker.send(Publish("t", b"2", 1, packet_id=8))
            stream = mqtt.messages()
            assert (await anext(stream)).payload == b"1"
            assert broker.acknowledged == []
            assert (await anext(stream)).payload == b"2"
            await until(lambda: broker.acknowledged == [7])

    run(test)


def test_a_message_held_already_is_dropped():
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            got = []
            mqtt.receiver = got.extend
            broker.send(Publish("t", b"1", 1, packet_id=7))
            broker.send(Publish("t", b"1", 1, duplicate=True, packet_id=7))
            broker.send(Publish("t", b"2", 1, packet_id=8))
            await until(lambda: len(got) == 2)
            assert mqtt.redelivered == 1
            mqtt.acknowledge(got)
            await until(lambda: broker.acknowledged == [7, 8])

    run(test)


def test_a_message_of_an_earlier_connection_is_never_acknowledged():
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            old, new = [], []
            mqtt.receiver = old.extend
            broker.send(Publish("t", b"old", 1, packet_id=7))
            await until(lambda: old)
            mqtt.receiver = new.extend
            await broker.cut()
            await until(lambda: mqtt.connections == 2 and mqtt.connected)
            broker.send(Publish("t", b"another", 1, packet_id=7))
            await until(lambda: new)
            mqtt.acknowledge(old)
            mqtt.acknowledge(old + new)
            await until(lambda: broker.acknowledged)
            assert broker.acknowledged == [7]

    run(test)


def test_messages_right_behind_connack_belong_to_the_new_connection():
    async def test():
        async with FakeBroker() as broker:
            mqtt = client(broker)
            got = []
            mqtt.receiver = got.extend
            original = broker._answer

            def with_message(head, body, writer):
                original(head, body, writer)
                if head == 0x10:
                    broker.send(Publish("t", b"first", 1, packet_id=3))

            broker._answer = with_message
            async with mqtt:
                await until(lambda: got)
                mqtt.acknowledge(got)
                await until(lambda: broker.acknowledged == [3])

    run(test)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 77])
def test_a_refusing_broker_is_one_clear_error(code):
    async def test():
        async with FakeBroker(connack_code=code) as broker:
            with pytest.raises(BrokerError, match=r"broker 127\.0\.0\.1:\d+ "):
                async with client(broker):
                    pass

    run(test)


def test_an_absent_broker_is_one_clear_error():
    async def test():
        async with FakeBroker() as broker:
            port = broker.endpoint.port
        with pytest.raises(BrokerError, match=str(port)):
            async with MqttClient(Endpoint("127.0.0.1", port, None), "me"):
                pass

    run(test)


def test_patience_waits_for_a_broker_that_starts_later():
    async def test():
        async with FakeBroker() as broker:
            endpoint = broker.endpoint
        mqtt = MqttClient(endpoint, "me", patience_s=30)
        waiting = asyncio.create_task(mqtt.__aenter__())
        await asyncio.sleep(0)
        late = FakeBroker()
        late._server = await asyncio.start_server(late._serve, "127.0.0.1", endpoint.port)
        await waiting
        assert mqtt.connected
        await mqtt.__aexit__(None, None, None)
        await late.__aexit__()

    run(test)


def test_a_refused_subscription_is_an_error():
    async def test():
        async with FakeBroker(suback_code=0x80) as broker, client(broker) as mqtt:
            with pytest.raises(AccessError, match="secret"):
                await mqtt.subscribe("secret")

    run(test)


@pytest.mark.parametrize("topic", ["", "a b", "a/+", "#"])
def test_topics_that_would_cost_the_connection_are_refused(topic):
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            with pytest.raises(BrokerError, match="topic"):
                await mqtt.send(topic, b"")

    run(test)


def test_a_forbidden_topic_is_refused_before_the_broker_drops_it():
    async def test():
        async with FakeBroker() as broker, client(broker, may_publish=("a/+/x",)) as mqtt:
            await mqtt.publish("a/1/x", b"")
            with pytest.raises(AccessError, match="a/1/y"):
                await mqtt.publish("a/1/y", b"")

    run(test)


def test_nonsense_from_the_broker_ends_the_connection_and_a_new_one_is_made():
    async def test():
        async with FakeBroker() as broker, client(broker) as mqtt:
            broker.writers[-1].write(b"\xf0\x00")
            await until(lambda: mqtt.connections == 2)

    run(test)


def test_leaving_fails_what_nobody_acknowledged():
    async def test():
        async with FakeBroker(acknowledge=False) as broker:
            async with client(broker) as mqtt:
                done = await mqtt.send("a", b"")
            with pytest.raises(BrokerError, match="before the broker acknowledged"):
                await done

    run(test)
