"""The Network Topology Service as a process (paper section 4.3).

Switch vectors and recommendations over REST, alerts and verdicts over MQTT.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec
from fastapi import APIRouter, FastAPI

from flexmeter.api import (
    problems,
    recommendations_router,
    repeat_alerts,
    repeat_verdicts,
    serve,
    topology_router,
)
from flexmeter.messages import topics
from flexmeter.messages.codec import encode_notice
from flexmeter.messages.notices import State, TopologyAlert
from flexmeter.messaging.authority import Credential
from flexmeter.messaging.client import Client
from flexmeter.messaging.identity import Identity, may_publish
from flexmeter.messaging.mqtt import Endpoint, MqttClient
from flexmeter.registry import Topology, open_registry
from flexmeter.services.link import now_ms
from flexmeter.services.settings import Broker

PATIENCE_S = 20.0


class TopologySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the topology service of one tenant; `registry` is its own SQLite file with its own tokens."""

    tenant: str
    name: str
    registry: Path
    broker: Broker
    host: str
    port: int
    certificate: Path
    key: Path


@dataclass
class Alerts:
    """Publishes that a switch vector changed, retained, so that who comes later learns of it as well."""

    mqtt: Client

    async def __call__(self, tenant: str, topology: Topology) -> None:
        """Return when the broker has taken the alert."""
        alert = TopologyAlert(
            grid=topology.grid, topology=topology.version, switches=topology.closed, time_ms=topology.time_ms
        )
        await self.mqtt.publish(topics.topology(tenant, topology.grid), encode_notice(alert), retain=True)


@dataclass
class Commands:
    """Sends verdicts on recommendations to the service that made them."""

    mqtt: Client

    async def __call__(self, tenant: str, device: str, name: str, id: str) -> None:
        """Return when the broker has taken the command."""
        await self.mqtt.publish(topics.command(tenant, device, name, id), b"{}")


async def _ready() -> dict[str, str]:
    """The service answers; it only does once it is connected."""
    return {"status": "ready"}


async def run_topology(settings: TopologySettings) -> None:
    """Serve until cancelled; alerts that a crash kept back go out first."""
    broker = settings.broker
    tls = Credential(broker.certificate, broker.key, broker.authority).client_context()
    who = Identity(settings.tenant, settings.name, "topology")
    mqtt = MqttClient(
        Endpoint(broker.host, broker.port, tls), who.name, patience_s=PATIENCE_S, may_publish=may_publish(who)
    )
    registry = open_registry(settings.registry)
    try:
        async with mqtt:
            alerts, commands = Alerts(mqtt), Commands(mqtt)
            await repeat_alerts(registry, alerts)
            await repeat_verdicts(registry, commands)
            app = FastAPI(title="Flexmeter Network Topology Service")
            problems.install(app)
            app.add_api_route("/readyz", _ready)
            api = APIRouter(prefix="/api/v1")
            api.include_router(topology_router(registry, alerts))
            api.include_router(recommendations_router(registry, commands))
            app.include_router(api)
            async with serve(
                app, host=settings.host, port=settings.port, certificate=settings.certificate, key=settings.key
            ):
                state = encode_notice(State(online=True, time_ms=now_ms()))
                await mqtt.publish(topics.state(who.tenant, who.name), state, retain=True)
                await asyncio.Event().wait()
    finally:
        registry.close()
