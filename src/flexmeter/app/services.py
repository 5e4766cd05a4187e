"""Run a grid service: its MQTT session with certificate and last will, its REST session, its loop."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

from flexmeter.errors import InputError
from flexmeter.messages import topics
from flexmeter.messages.codec import encode_notice
from flexmeter.messages.notices import State
from flexmeter.messaging.authority import Credential
from flexmeter.messaging.identity import Identity, may_publish
from flexmeter.messaging.mqtt import Endpoint, MqttClient
from flexmeter.messaging.packets import Publish
from flexmeter.services import lv, mv, reconfiguration
from flexmeter.services.link import Link, now_ms
from flexmeter.services.rest import Rest
from flexmeter.services.settings import Api, ServiceSettings

PATIENCE_S = 20.0
Serve = Callable[[Link, ServiceSettings], Awaitable[None]]


SERVICES: dict[str, Serve] = {"lv": lv.serve, "mv": mv.serve, "reconfiguration": reconfiguration.serve}


async def run_service(settings: ServiceSettings) -> None:
    """Run a service until it is cancelled."""
    async with mqtt_client(settings) as mqtt, rest_session(settings.api) as rest:
        await SERVICES[settings.service](Link(settings.tenant, settings.name, mqtt, rest), settings)


def mqtt_client(settings: ServiceSettings) -> MqttClient:
    """Return the service's MQTT client; its last will says that it is gone."""
    broker = settings.broker
    tls = Credential(broker.certificate, broker.key, broker.authority).client_context()
    gone = encode_notice(State(online=False, time_ms=now_ms()))
    return MqttClient(
        Endpoint(broker.host, broker.port, tls),
        settings.name,
        will=Publish(topics.state(settings.tenant, settings.name), gone, qos=1, retain=True),
        patience_s=PATIENCE_S,
        may_publish=may_publish(Identity(settings.tenant, settings.name, "service")),
    )


def rest_session(api: Api) -> Rest:
    """Return a REST session; the token comes from its file."""
    try:
        token = api.token_file.read_text().strip()
        tls = ssl.create_default_context(cafile=str(api.authority))
    except OSError as error:
        raise InputError(f"{error.filename or api.authority}: cannot be read: {error.strerror or error}") from error
    return Rest(api.url, token, tls)
