"""Who a client is (its certificate says so) and what follows from it: the topics it may use."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from flexmeter.errors import InputError
from flexmeter.messages.topics import PREFIX, check_name

Role = Literal["device", "service", "topology", "platform"]
ROLES: tuple[Role, ...] = get_args(Role)


class Identity(msgspec.Struct, frozen=True, order=True):
    """A client of one tenant: a device, a grid service, the topology service or the platform itself."""

    tenant: str
    name: str
    role: Role

    @property
    def user(self) -> str:
        """The URI in the certificate by which the broker knows the client.

        By the subject it would have to search: it compares with that of every user, which at 10,000 users made
        connecting four times as slow for everybody.
        """
        return f"urn:flexmeter:{self.tenant}:{self.role}:{self.name}"

    @property
    def file_name(self) -> str:
        """Name of the certificate's files, without suffix."""
        return f"{self.tenant}.{self.role}.{self.name}"


def identity(tenant: str, name: str, role: str) -> Identity:
    """Return a checked identity; raise `MessageError` or `InputError` on names that do not fit."""
    for known in ROLES:
        if known == role:
            return Identity(check_name(tenant, "tenant"), check_name(name), known)
    raise InputError(f"role {role!r}: expected one of {', '.join(ROLES)}")


def may_publish(who: Identity) -> tuple[str, ...]:
    """Return the MQTT filters of the topics that a client may publish to."""
    base = f"{PREFIX}/{who.tenant}"
    own = f"{base}/{who.name}"
    own_topics = (f"{own}/readings", f"{own}/roster", f"{own}/event", f"{own}/state", f"{own}/cmd/+/+/ack")
    match who.role:
        case "device":
            return (*own_topics, f"{base}/se/concentrator/+")
        case "service":
            return (*own_topics, f"{base}/se/+/+", f"{base}/alert/{who.name}/+")
        case "topology":
            verdicts = (f"{base}/+/cmd/approve/+", f"{base}/+/cmd/reject/+")
            return (*own_topics, f"{base}/topology/+", f"{base}/alert/{who.name}/+", *verdicts)
        case "platform":
            return (f"{base}/#",)


def may_subscribe(who: Identity) -> tuple[str, ...]:
    """Return the MQTT filters that a client may subscribe to."""
    base = f"{PREFIX}/{who.tenant}"
    own = f"{base}/{who.name}"
    match who.role:
        case "device":
            return (f"{own}/error", f"{own}/cmd/+/+", f"{base}/topology/+")
        case "service" | "topology" | "platform":
            return (f"{base}/#",)


def to_subject(pattern: str) -> str:
    """Return the broker's subject of an MQTT filter."""
    parts = {"+": "*", "#": ">"}
    return ".".join(parts.get(part, part) for part in pattern.split("/"))
