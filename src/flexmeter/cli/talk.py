"""`flexmeter send` and `tail`: publish a reading by hand, and watch what goes over the broker."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flexmeter.cli.shared import CONFIG, JSON, TENANT
from flexmeter.errors import InputError, MessageError

if TYPE_CHECKING:
    from flexmeter.config import Config
    from flexmeter.messages import Column
    from flexmeter.messaging import Message, MqttClient


def send(
    values: list[str] = typer.Argument(help="Values in SI units, e.g. voltage.a=230.4 active_power.a=512"),
    device: str = typer.Option("meter-1", "--device", help="The publishing device."),
    meter: str = typer.Option("", "--meter", help="The meter; the device itself if left out."),
    tenant: str = TENANT,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Publish one reading and wait until the broker has it safe.

    Example: flexmeter send voltage.a=230.4 active_power.a=512
    """
    from flexmeter.config import read_config

    took_ms = asyncio.run(_send(read_config(config), tenant, device, meter or device, _parse(values)))
    if as_json:
        print(json.dumps({"device": device, "values": len(values), "acknowledged_ms": round(took_ms, 3)}))
    else:
        print(f"acknowledged after {took_ms:.1f} ms")


def tail(
    topic: str = typer.Argument("#", help="Filter below fm/v1/TENANT/, e.g. +/readings or se/#"),
    tenant: str = TENANT,
    config: Path = CONFIG,
    count: int = typer.Option(0, "--count", "-n", min=0, help="Stop after so many messages; 0 = never."),
    as_json: bool = JSON,
) -> None:
    """Show the messages of a tenant as they go over the broker.

    Example: flexmeter tail +/error
    """
    from flexmeter.app.process import run_until_stopped
    from flexmeter.config import read_config

    run_until_stopped(_tail(read_config(config), tenant, topic, count, as_json))


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(send)
    app.command()(tail)


def _parse(values: list[str]) -> dict[Column, float]:
    from flexmeter.messages import COLUMNS

    parsed = {}
    for text in values:
        name, _, number = text.partition("=")
        if name not in COLUMNS:
            raise InputError(f"{text!r}: unknown quantity, expected e.g. voltage.a=230.4 or frequency=50")
        try:
            parsed[COLUMNS[name]] = float(number)
        except ValueError:
            raise InputError(f"{text!r}: expected a number behind =") from None
    return parsed


def _client(config: Config, tenant: str, name: str, role: str) -> MqttClient:
    from flexmeter.app.addresses import broker_address
    from flexmeter.messaging import Credential, Endpoint, MqttClient, identity, may_publish

    who = identity(tenant or config.tenants[0], name, role)
    folder = config.data_folder / "certificates"
    credential = Credential(folder / f"{who.file_name}.crt", folder / f"{who.file_name}.key", folder / "ca.crt")
    if not credential.certificate.exists():
        known = sorted(path.stem.split(".")[2] for path in folder.glob(f"{who.tenant}.{role}.*.crt"))
        raise InputError(f"{role} {name!r} of tenant {who.tenant} has no certificate; there are: {', '.join(known)}")
    address = broker_address(config)
    endpoint = Endpoint(address.host, address.port, credential.client_context())
    client_id = name if role == "device" else f"{name}-{time.time_ns():x}"
    return MqttClient(endpoint, client_id, may_publish=may_publish(who))


async def _send(config: Config, tenant: str, device: str, meter: str, values: dict[Column, float]) -> float:
    import numpy as np

    from flexmeter.messages import Readings, encode_readings, topics

    now_ms = time.time_ns() // 1_000_000
    column = np.array(list(values.values()), dtype=np.float64).reshape(-1, 1)
    readings = Readings(device, now_ms // 1000, 0, now_ms, tuple(values), column, meters=(meter,))
    client = _client(config, tenant, device, "device")
    topic = topics.readings(tenant or config.tenants[0], device)
    async with client:
        begun = time.perf_counter()
        await client.publish(topic, encode_readings(readings, "json"))
        return (time.perf_counter() - begun) * 1000


async def _tail(config: Config, tenant: str, topic: str, count: int, as_json: bool) -> None:
    from flexmeter.app.identities import OPERATOR
    from flexmeter.messages.topics import PREFIX

    seen = 0
    async with _client(config, tenant, OPERATOR, "service") as client:
        await client.subscribe(f"{PREFIX}/{tenant or config.tenants[0]}/{topic}", qos=0)
        async for message in client.messages():
            print(_shown(message, as_json), flush=True)
            seen += 1
            if seen == count:
                return


def _shown(message: Message, as_json: bool) -> str:
    payload: object
    try:
        payload = json.loads(_as_json(message))
    except (MessageError, ValueError):
        payload = message.payload.decode(errors="replace")
    if as_json:
        return json.dumps({"topic": message.topic, "bytes": len(message.payload), "payload": payload})
    text = payload if isinstance(payload, str) else json.dumps(payload)
    width = 200 if sys.stdout.isatty() else 2000
    return f"{message.topic} {len(message.payload)} B {text[:width]}"


def _as_json(message: Message) -> bytes:
    from flexmeter.messages import decode_estimate, decode_readings, encode_estimate, encode_readings, topics

    kind = topics.parse(message.topic).kind
    if kind == "readings":
        return encode_readings(decode_readings(message.payload), "json")
    if kind == "estimate":
        return encode_estimate(decode_estimate(message.payload), "json")
    return message.payload
