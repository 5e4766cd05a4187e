"""MQTT topics: build and parse. No other module spells a topic."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from flexmeter.errors import MessageError

PREFIX = "fm/v1"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
LEVELS = ("concentrator", "lv", "mv")
Kind = Literal[
    "readings",
    "roster",
    "event",
    "state",
    "error",
    "command",
    "command_ack",
    "estimate",
    "topology",
    "alert",
]
_DEVICE_KINDS = ("readings", "roster", "event", "state", "error")
_RESERVED = ("se", "topology", "alert")


class Topic(msgspec.Struct, frozen=True):
    """A parsed topic: its kind, the tenant, and the names that the kind has.

    Attributes
    ----------
    device : publishing or addressed device; for an alert the service; empty for grid topics.
    level, area : of an estimate.
    name : the command, the grid of a topology alert, or the asset of an alert.
    id : the command's id.
    """

    kind: Kind
    tenant: str
    device: str = ""
    level: str = ""
    area: str = ""
    name: str = ""
    id: str = ""


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it may stand in a topic; raise `MessageError` otherwise."""
    if not NAME.fullmatch(name):
        raise MessageError(f"{what} {name[:80]!r}: expected 1 to 64 letters, digits, '_' or '-'")
    return name


def readings(tenant: str, device: str) -> str:
    """Return the topic on which a device publishes batches of readings."""
    return _device_topic(tenant, device, "readings")


def roster(tenant: str, device: str) -> str:
    """Return the topic of a device's retained roster."""
    return _device_topic(tenant, device, "roster")


def event(tenant: str, device: str) -> str:
    """Return the topic of a device's events (gaps among them)."""
    return _device_topic(tenant, device, "event")


def state(tenant: str, device: str) -> str:
    """Return the topic of a device's retained state, which its last will sets to offline."""
    return _device_topic(tenant, device, "state")


def error(tenant: str, device: str) -> str:
    """Return the topic on which a device reads why its messages were refused."""
    return _device_topic(tenant, device, "error")


def command(tenant: str, device: str, name: str, id: str) -> str:
    """Return the topic of one command to a device."""
    return f"{_device_topic(tenant, device, 'cmd')}/{check_name(name)}/{check_name(id, 'id')}"


def command_ack(tenant: str, device: str, name: str, id: str) -> str:
    """Return the topic on which a device answers a command."""
    return f"{command(tenant, device, name, id)}/ack"


def estimate(tenant: str, level: str, area: str) -> str:
    """Return the topic of the estimates of one area; `level` is concentrator, lv or mv."""
    if level not in LEVELS:
        raise MessageError(f"level {level!r}: expected one of {', '.join(LEVELS)}")
    return f"{PREFIX}/{check_name(tenant, 'tenant')}/se/{level}/{check_name(area, 'area')}"


def topology(tenant: str, grid: str) -> str:
    """Return the topic of the alerts that a grid's switch vector changed."""
    return f"{PREFIX}/{check_name(tenant, 'tenant')}/topology/{check_name(grid, 'grid')}"


def alert(tenant: str, service: str, asset: str) -> str:
    """Return the topic of a retained alert, kept until it is closed."""
    names = f"{check_name(service, 'service')}/{check_name(asset, 'asset')}"
    return f"{PREFIX}/{check_name(tenant, 'tenant')}/alert/{names}"


def parse(topic: str) -> Topic:
    """Return what a topic names; raise `MessageError` if it is none of this platform's."""
    parts = topic.split("/")
    if len(parts) < 5 or parts[0] + "/" + parts[1] != PREFIX:
        raise MessageError(f"topic {topic[:120]!r}: expected {PREFIX}/TENANT/DEVICE/readings or similar")
    tenant = check_name(parts[2], "tenant")
    for part in parts[3:]:
        check_name(part, "topic level")
    match parts[3:]:
        case ["se", level, area] if level in LEVELS:
            return Topic("estimate", tenant, level=level, area=area)
        case ["topology", grid]:
            return Topic("topology", tenant, name=grid)
        case ["alert", service, asset]:
            return Topic("alert", tenant, device=service, name=asset)
        case [device, kind] if kind in _DEVICE_KINDS and device not in _RESERVED:
            return Topic(kind, tenant, device=device)  # type: ignore[arg-type]
        case [device, "cmd", name, id] if device not in _RESERVED:
            return Topic("command", tenant, device=device, name=name, id=id)
        case [device, "cmd", name, id, "ack"] if device not in _RESERVED:
            return Topic("command_ack", tenant, device=device, name=name, id=id)
    raise MessageError(f"topic {topic[:120]!r}: not a topic of the data format")


def _device_topic(tenant: str, device: str, kind: str) -> str:
    if device in _RESERVED:
        raise MessageError(f"device {device!r}: the name is reserved for grid topics")
    return f"{PREFIX}/{check_name(tenant, 'tenant')}/{check_name(device, 'device')}/{kind}"
