"""The real broker: TLS, identities, permissions, tenants, persistence, and paho as a second opinion on MQTT."""

import asyncio
import contextlib
import os
import signal
import ssl

import paho.mqtt.client as paho
import pytest

from flexmeter.errors import AccessError, BrokerError
from flexmeter.messages import topics
from flexmeter.messaging import Broker, BrokerSettings, Identity, MqttClient, Publish, identity, open_authority
from flexmeter.messaging.mqtt import Endpoint
from flexmeter.supervision import Supervisor

DEVICE = identity("acme", "con-1", "device")
SERVICE = identity("acme", "lv", "service")
PLATFORM = identity("acme", "platform", "platform")
OTHER = identity("other", "platform", "platform")


def run(test, tmp_path, identities=(DEVICE, SERVICE, PLATFORM, OTHER)):
    async def main():
        async with asyncio.timeout(90), Supervisor() as supervisor:
            settings = BrokerSettings(tmp_path / "broker", port=0, sync_interval="2m")
            async with Broker(settings, open_authority(tmp_path / "ca"), supervisor, identities) as broker:
                await test(broker)

    asyncio.run(main())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def collect(client):
    got = []

    def receive(messages):
        got.extend(messages)
        client.acknowledge(messages)

    client.receiver = receive
    return got


def test_tenants_do_not_see_each_other(tmp_path):
    async def test(broker):
        async with broker.client(PLATFORM) as mine, broker.client(OTHER) as theirs, broker.client(DEVICE) as device:
            got, foreign = collect(mine), collect(theirs)
            await mine.subscribe("fm/v1/acme/#")
            await theirs.subscribe("#")
            await device.publish(topics.readings("acme", "con-1"), b"x")
            await theirs.publish("fm/v1/other/d/event", b"y")
            await until(lambda: got and foreign)
            assert [m.payload for m in got] == [b"x"]
            assert [m.payload for m in foreign] == [b"y"]

    run(test, tmp_path)


def test_a_device_keeps_to_its_own_topics(tmp_path):
    async def test(broker):
        async with broker.client(PLATFORM) as platform, broker.client(DEVICE) as device:
            got = collect(platform)
            await platform.subscribe("fm/v1/acme/#")
            with pytest.raises(AccessError):
                await device.publish(topics.readings("acme", "con-2"), b"")
            for topic in ("fm/v1/acme/+/readings", "#", "$MQTT/#", "fm/v1/acme/con-2/error"):
                with pytest.raises(AccessError):
                    await device.subscribe(topic)
            await device.subscribe(topics.error("acme", "con-1"), "fm/v1/acme/con-1/cmd/+/+", "fm/v1/acme/topology/+")
            careless = MqttClient(broker.endpoint(DEVICE), "careless")
            async with careless:
                await careless.publish(topics.readings("acme", "con-2"), b"forbidden: acknowledged and dropped")
            await device.publish(topics.readings("acme", "con-1"), b"allowed")
            await until(lambda: got)
            assert [m.payload for m in got] == [b"allowed"]

    run(test, tmp_path)


def test_without_a_certificate_there_is_no_connection(tmp_path):
    async def test(broker):
        bare = ssl.create_default_context(cafile=str(broker.authority.certificate_file))
        with pytest.raises(BrokerError):
            async with MqttClient(Endpoint("127.0.0.1", broker.port, bare), "nobody"):
                pass

    run(test, tmp_path)


def test_a_certificate_of_another_authority_is_refused(tmp_path):
    async def test(broker):
        stranger = open_authority(tmp_path / "other-ca").client(DEVICE)
        context = stranger.client_context()
        context.load_verify_locations(broker.authority.certificate_file)
        with pytest.raises(BrokerError):
            async with MqttClient(Endpoint("127.0.0.1", broker.port, context), "stranger"):
                pass

    run(test, tmp_path)


def test_an_identity_is_refused_until_it_is_admitted(tmp_path):
    late = identity("acme", "con-2", "device")

    async def test(broker):
        with pytest.raises(BrokerError):
            async with broker.client(late):
                pass
        await broker.admit([late])
        client = MqttClient(broker.endpoint(late), "con-2", patience_s=20)
        async with client:
            await client.publish(topics.readings("acme", "con-2"), b"")

    run(test, tmp_path)


def test_a_session_keeps_messages_while_its_client_is_away_and_the_broker_is_killed(tmp_path):
    async def test(broker):
        async with broker.client(PLATFORM, clean=False) as platform:
            await platform.subscribe("fm/v1/acme/+/readings")
        async with broker.client(DEVICE) as device:
            for n in range(50):
                await device.publish(topics.readings("acme", "con-1"), b"%d" % n)
            before = broker.pid
            os.kill(before, signal.SIGKILL)
            for n in range(50, 100):
                await device.publish(topics.readings("acme", "con-1"), b"%d" % n)
            assert broker.pid not in (0, before)
        back = broker.client(PLATFORM, clean=False)
        got = collect(back)
        async with back:
            await until(lambda: len({m.payload for m in got}) == 100)

    run(test, tmp_path)


def test_the_last_will_tells_that_a_client_is_gone(tmp_path):
    async def test(broker):
        state = topics.state("acme", "con-1")
        async with broker.client(SERVICE) as service:
            got = collect(service)
            await service.subscribe(state)
            device = broker.client(DEVICE, will=Publish(state, b"gone", 1, True))
            async with device:
                device._connection.abort()
                await until(lambda: got)
                assert got[0].payload == b"gone"

    run(test, tmp_path)


def test_paho_and_the_own_client_understand_each_other(tmp_path):
    payloads = [b"", b"x", bytes(127), bytes(128), bytes(16_383), bytes(16_384), os.urandom(300_000)]

    async def test(broker):
        loop = asyncio.get_running_loop()
        other, subscribed = [], asyncio.Event()
        peer = paho.Client(paho.CallbackAPIVersion.VERSION2, "peer", protocol=paho.MQTTv311)
        credential = broker.authority.client(SERVICE)
        peer.tls_set(str(credential.authority), str(credential.certificate), str(credential.key))
        peer.on_message = lambda _c, _u, message: other.append(message)
        peer.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)
        await asyncio.to_thread(peer.connect, "127.0.0.1", broker.port)
        peer.loop_start()
        try:
            async with broker.client(PLATFORM) as mine:
                got = collect(mine)
                await mine.subscribe("fm/v1/acme/se/+/+")
                peer.subscribe("fm/v1/acme/+/event", 1)
                await subscribed.wait()
                for payload in payloads:
                    await mine.publish("fm/v1/acme/d/event", payload)
                    peer.publish("fm/v1/acme/se/lv/a", payload, qos=1)
                await until(lambda: len(got) == len(other) == len(payloads))
                assert [m.payload for m in got] == payloads
                assert [m.payload for m in other] == payloads
                assert {m.qos for m in got} == {m.qos for m in other} == {1}
        finally:
            peer.disconnect()
            await asyncio.to_thread(peer.loop_stop)

    run(test, tmp_path)


def test_an_address_of_another_machine_is_one_clear_error(tmp_path):
    settings = BrokerSettings(tmp_path / "broker", port=0, host="192.0.2.1")  # RFC 5737: nobody's
    broker = Broker(settings, open_authority(tmp_path / "ca"), Supervisor())
    with pytest.raises(BrokerError, match=r"192\.0\.2\.1: Cannot assign requested address"):
        broker.choose_ports()


def test_a_port_in_use_is_one_clear_error(tmp_path):
    async def test(broker):
        settings = BrokerSettings(tmp_path / "second", port=broker.port)
        with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{broker.port}: Address already in use"):
            async with Broker(settings, broker.authority, broker.supervisor, [DEVICE]):
                pass

    run(test, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    file = tmp_path / "file"
    file.touch()

    async def test():
        authority = open_authority(tmp_path / "ca")
        async with Supervisor() as supervisor:
            with pytest.raises(BrokerError, match="broker folder"):
                async with Broker(BrokerSettings(file / "broker", port=0), authority, supervisor, [DEVICE]):
                    pass

    asyncio.run(test())


def test_many_clients_connect_and_publish(tmp_path):
    devices = [Identity("acme", f"con-{n}", "device") for n in range(60)]

    async def test(broker):
        async with contextlib.AsyncExitStack() as stack:
            platform = await stack.enter_async_context(broker.client(PLATFORM))
            got = collect(platform)
            await platform.subscribe("fm/v1/acme/+/readings")
            clients = [broker.client(who) for who in devices]
            await asyncio.gather(*(stack.enter_async_context(client) for client in clients))
            sends = [
                client.publish(topics.readings("acme", who.name), b"x")
                for who, client in zip(devices, clients, strict=True)
                for _ in range(5)
            ]
            await asyncio.gather(*sends)
            await until(lambda: len(got) == len(sends))

    run(test, tmp_path, identities=[PLATFORM, *devices])
