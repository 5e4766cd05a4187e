"""What ties a grid service to the platform: one MQTT session, one REST session, its names."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from flexmeter.messages import topics
from flexmeter.messages.events import Event, encode_event
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
    """

    tenant: str
    name: str
    mqtt: Client
    rest: Rest
    boot: int = field(default_factory=lambda: int(time.time()))

    async def tell(self, event: Event) -> None:
        """Publish an event about the service's own work (QoS 0: it may be lost)."""
        await self.mqtt.publish(topics.event(self.tenant, self.name), encode_event(event), qos=0)
