"""The simulated field as a process: every concentrator and plant with its own certificate and connection.

In lock-step with the decisions, whatever the speed: minute t + 1 is published once the reconfiguration has answered
minute t (or, without switches, once the MV estimate of t is there). Some minutes are computed ahead while t is on its
way, under the vector in force; if the vector changes, they are computed again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from flexmeter.app.services import rest_session
from flexmeter.errors import MessageError, ServiceError
from flexmeter.messages import topics
from flexmeter.messages.codec import encode_notice
from flexmeter.messages.events import Decision, Timing, decode_event
from flexmeter.messages.notices import State
from flexmeter.messaging.authority import Credential
from flexmeter.messaging.identity import Identity, may_publish
from flexmeter.messaging.mqtt import Endpoint, MqttClient
from flexmeter.messaging.packets import Publish
from flexmeter.scenario.field import Device, Field, Minute
from flexmeter.scenario.nodes import levels
from flexmeter.scenario.options import DayOptions, instant_ms, minute_of
from flexmeter.services.link import Link, now_ms
from flexmeter.services.settings import Api, Broker

PATIENCE_S = 60.0
START = "start"
AHEAD_MINUTES = 8
ANSWER_S = 120.0
"""How long the field waits for the answer to a minute before it gives up."""


class FieldSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the field; `credentials` holds the devices' certificates, `minute_s` the shortest time per minute."""

    tenant: str
    name: str
    day: DayOptions
    broker: Broker
    api: Api
    credentials: Path
    reconfiguration: str
    minute_s: float = 0.0


async def run_field(settings: FieldSettings) -> None:
    """Publish the day, then stay connected until cancelled."""
    field = Field(settings.day, settings.tenant)
    async with AsyncExitStack() as stack:
        clients = await _connect(stack, settings, field.devices)
        broker = settings.broker
        own = Credential(broker.certificate, broker.key, broker.authority).client_context()
        mqtt = await stack.enter_async_context(
            MqttClient(Endpoint(broker.host, broker.port, own), settings.name, patience_s=PATIENCE_S)
        )
        rest = await stack.enter_async_context(rest_session(settings.api))
        link = Link(settings.tenant, settings.name, mqtt, rest, boot=1)
        pace = _Pace(link, field, settings.reconfiguration)
        await pace.subscribe()
        listening = asyncio.create_task(pace.listen())
        stack.callback(listening.cancel)
        for device in field.devices:
            roster = encode_notice(device.roster)
            await clients[device.name].publish(topics.roster(settings.tenant, device.name), roster, retain=True)
        started = topics.command(settings.tenant, settings.name, START, "1")
        await mqtt.subscribe(started)
        await link.online()
        await pace.until_started()
        await _play(link, settings, field, clients, pace)
        await asyncio.Event().wait()


async def _connect(
    stack: AsyncExitStack, settings: FieldSettings, devices: tuple[Device, ...]
) -> dict[str, MqttClient]:
    """Connect every device; its last will says that it is offline."""
    clients = {}
    gone = encode_notice(State(online=False, time_ms=now_ms()))
    for device in devices:
        who = Identity(settings.tenant, device.name, "device")
        base = settings.credentials / who.file_name
        files = Credential(
            base.with_name(base.name + ".crt"), base.with_name(base.name + ".key"), settings.broker.authority
        )
        clients[device.name] = MqttClient(
            Endpoint(settings.broker.host, settings.broker.port, files.client_context()),
            device.name,
            will=Publish(topics.state(settings.tenant, device.name), gone, qos=1, retain=True),
            keepalive_s=600,
            patience_s=PATIENCE_S,
            may_publish=may_publish(who),
        )
    await asyncio.gather(*(stack.enter_async_context(client) for client in clients.values()))
    return clients


class _Pace:
    """Learns which minute was answered last, and the switch vector in force after it."""

    def __init__(self, link: Link, field: Field, reconfiguration: str) -> None:
        self.vector = field.grid.switch_vector
        self._link = link
        self._grid = field.grid
        self._decisions = topics.event(link.tenant, reconfiguration)
        self._estimates = topics.estimate(link.tenant, "mv", levels(field.grid).mv_area)
        self._answered = 0
        self._started = asyncio.Event()
        self._news = asyncio.Event()
        self._failure: BaseException | None = None

    async def subscribe(self) -> None:
        """Hear the decisions, or the MV estimates of a grid without switches."""
        await self._link.mqtt.subscribe(self._decisions if self._grid.switches else self._estimates)

    async def listen(self) -> None:
        """Take the answers until cancelled."""
        try:
            async for message in self._link.mqtt.messages():
                await self._hear(message.topic, message.payload)
                self._news.set()
        except Exception as error:
            self._failure = error
            self._news.set()
            raise

    async def _hear(self, topic: str, payload: bytes) -> None:
        if topics.parse(topic).kind == "command":
            self._started.set()
            return
        if topic == self._estimates:
            self._answered += 1
            return
        try:
            event = decode_event(payload)
        except MessageError:
            return
        if isinstance(event, Decision):
            if event.changed:
                self.vector = (await self._link.rest.topology(self._grid.id)).closed
            self._answered = minute_of(event.time_ms)

    async def until_started(self) -> None:
        """Return when the command to start has come: only then is everybody there to hear the first minute."""
        await self._started.wait()

    async def until_answered(self, minute: int) -> None:
        """Return when a minute was answered."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while self._answered < minute:
                    if self._failure is not None:
                        raise self._failure
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise ServiceError(f"field: minute {minute} was not answered within {ANSWER_S:g} s") from None


async def _play(link: Link, settings: FieldSettings, field: Field, clients: dict[str, MqttClient], pace: _Pace) -> None:
    upcoming: deque[Minute] = deque()
    last = settings.day.minutes
    for minute in range(1, last + 1):
        began = time.monotonic()
        if not upcoming or upcoming[0].vector != pace.vector:
            upcoming = _simulate(field, minute, last, pace)
        await _publish_minute(link, clients, upcoming.popleft())
        if not upcoming and minute < last:
            upcoming = _simulate(field, minute + 1, last, pace)
        await pace.until_answered(minute)
        await asyncio.sleep(max(0.0, settings.minute_s - (time.monotonic() - began)))


def _simulate(field: Field, first: int, last: int, pace: _Pace) -> deque[Minute]:
    """Compute some minutes ahead; if the vector changes, they are thrown away."""
    return deque(field.minutes(range(first, min(first + AHEAD_MINUTES, last + 1)), pace.vector))


async def _publish_minute(link: Link, clients: dict[str, MqttClient], minute: Minute) -> None:
    began_ms = 1e3 * time.time()
    sent = [await clients[one.device].send(one.topic, one.payload) for one in minute.messages]
    await asyncio.gather(*sent)
    link.published += len(sent)
    timing = Timing(
        level="concentrator",
        time_ms=instant_ms(minute.minute),
        elapsed_ms=minute.elapsed_ms,
        began_ms=began_ms,
        published=link.published,
    )
    await link.tell(timing)
