"""What ties a grid service to the platform: one MQTT session, one REST session, its names."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from flexmeter.messages import topics
from flexmeter.messages.codec import encode_notice
from flexmeter.messages.events import Event, encode_event
from flexmeter.messages.notices import State
from flexmeter.messaging.client import Client
from flexmeter.services.rest import Rest

log = logging.getLogger(__name__)


@dataclass
class Link:
    """Both sessions of a service, open while it runs.

    Attributes
    ----------
    tenant, name : of the service; its certificate carries the same.
    boot : start of this run [s UTC], the `boot` of its messages.
    published : readings and estimates given to the session.
    """

    tenant: str
    name: str
    mqtt: Client
    rest: Rest
    boot: int = field(default_factory=lambda: int(time.time()))
    published: int = 0

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish an estimate (QoS 1); the session sends it again until the broker has it, without waiting here."""
        await self.mqtt.send(topic, payload)
        self.published += 1

    async def tell(self, event: Event) -> None:
        """Publish an event about the service's own work."""
        await self.mqtt.send(topics.event(self.tenant, self.name), encode_event(event))

    async def online(self) -> None:
        """Publish, retained, that the service is ready; its last will says the opposite."""
        state = State(online=True, time_ms=now_ms())
        await self.mqtt.publish(topics.state(self.tenant, self.name), encode_notice(state), retain=True)


def now_ms() -> int:
    """Return the present time [ms UTC]."""
    return time.time_ns() // 1_000_000
