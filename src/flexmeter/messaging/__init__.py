"""Message Broker of the paper's middleware (section 3.2) and the clients that talk to it (sections 3.1, 3.4).

In: identities (tenant, name, role). Out: a supervised broker with TLS, an account per tenant and permissions per
role, and an MQTT client with manual acknowledgement. Open `client.py` first, then `mqtt.py` and `broker.py`.
"""

from flexmeter.messaging.authority import Authority, Credential, open_authority
from flexmeter.messaging.broker import Broker, BrokerSettings, Cluster
from flexmeter.messaging.client import Client, Message, Receiver, Session
from flexmeter.messaging.identity import Identity, identity, may_publish, may_subscribe
from flexmeter.messaging.memory import MemoryBroker, MemoryClient
from flexmeter.messaging.mqtt import Endpoint, MqttClient
from flexmeter.messaging.packets import Publish

__all__ = [
    "Authority",
    "Broker",
    "BrokerSettings",
    "Client",
    "Cluster",
    "Credential",
    "Endpoint",
    "Identity",
    "MemoryBroker",
    "MemoryClient",
    "Message",
    "MqttClient",
    "Publish",
    "Receiver",
    "Session",
    "identity",
    "may_publish",
    "may_subscribe",
    "open_authority",
]
