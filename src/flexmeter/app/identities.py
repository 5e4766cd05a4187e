"""Who may connect to a platform's broker: its own processes and operators, and the devices in the registry."""

from __future__ import annotations

from flexmeter.config import Config
from flexmeter.messaging.identity import Identity
from flexmeter.registry import Registry

PLATFORM = "platform"
OPERATOR = "operator"


def identities(config: Config, registry: Registry) -> list[Identity]:
    """Return all identities of all tenants."""
    known: list[Identity] = []
    for tenant in config.tenants:
        known += [Identity(tenant, PLATFORM, "platform"), Identity(tenant, OPERATOR, "service")]
        known += [Identity(tenant, device.name, "device") for device in registry.devices.all(tenant)]
    return known
