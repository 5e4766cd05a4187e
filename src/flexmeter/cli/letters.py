"""`flexmeter letters`: look at refused messages and send them again."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flexmeter.cli.shared import CONFIG, JSON, TENANT
from flexmeter.errors import InputError, MessageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexmeter.config import Config
    from flexmeter.pipeline import DeadLetter, DeadLetters

letters_app = typer.Typer(help="Refused messages: look at them, send them again.", no_args_is_help=True)

REASON = typer.Option("", "--reason", help="Only letters with this reason, e.g. range or time.")
DEVICE = typer.Option("", "--device", help="Only letters of this device.")
LIMIT = typer.Option(100, "--limit", min=1, help="At most so many.")


@letters_app.command("list")
def list_letters(
    config: Path = CONFIG,
    tenant: str = TENANT,
    reason: str = REASON,
    device: str = DEVICE,
    limit: int = LIMIT,
    as_json: bool = JSON,
) -> None:
    """List refused messages, oldest first, with the reason.

    Example: flexmeter letters list --reason range
    """
    found = _open(config, tenant)[1].find(reason=reason, device=device, limit=limit)
    if as_json:
        print(json.dumps([_plain(letter) for letter in found]))
        return
    for letter in found:
        print(f"{letter.id:6} {letter.time_ms} {letter.reason:10} {letter.size:8} B {letter.topic} {letter.detail}")
    print(f"{len(found)} letters")


@letters_app.command()
def replay(
    config: Path = CONFIG,
    tenant: str = TENANT,
    reason: str = REASON,
    device: str = DEVICE,
    limit: int = LIMIT,
    as_json: bool = JSON,
) -> None:
    """Publish refused messages again, e.g. after a limit was raised; those the broker takes leave the dead letters.

    What is refused again comes back as a new letter.

    Example: flexmeter letters replay --reason time
    """
    settings, letters = _open(config, tenant)
    found = letters.find(reason=reason, device=device, limit=limit)
    whole = [letter for letter in found if letter.size == len(letter.payload)]
    sent = asyncio.run(_publish(settings, tenant, whole)) if whole else []
    letters.remove(sent)
    result = {"found": len(found), "replayed": len(sent), "skipped": len(found) - len(sent)}
    print(json.dumps(result) if as_json else f"{result['replayed']} replayed, {result['skipped']} skipped")


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.add_typer(letters_app, name="letters")


def _open(config: Path, tenant: str) -> tuple[Config, DeadLetters]:
    from flexmeter.app.tenants import letters_path
    from flexmeter.config import read_config
    from flexmeter.pipeline import DeadLetters

    settings = read_config(config)
    path = letters_path(settings, tenant or settings.tenants[0])
    if not path.exists():
        raise InputError(f"{path}: no dead letters there; was the platform ever started?")
    return settings, DeadLetters(path, max_bytes=settings.ingest.dead_letters_mb * 2**20)


def _plain(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "time_ms": letter.time_ms,
        "topic": letter.topic,
        "reason": letter.reason,
        "detail": letter.detail,
        "size": letter.size,
        "payload_base64": base64.b64encode(letter.payload).decode(),
    }


async def _publish(config: Config, tenant: str, letters: Sequence[DeadLetter]) -> list[int]:
    """Publish as the platform itself, which may use every topic of its tenant."""
    from flexmeter.app.addresses import broker_address
    from flexmeter.app.identities import PLATFORM
    from flexmeter.messages import topics
    from flexmeter.messaging import Endpoint, MqttClient, identity, may_publish, open_authority

    who = identity(tenant or config.tenants[0], PLATFORM, "platform")
    address = broker_address(config)
    context = open_authority(config.data_folder / "certificates").client(who).client_context()
    sent = []
    endpoint = Endpoint(address.host, address.port, context)
    async with MqttClient(endpoint, "replay", may_publish=may_publish(who)) as client:
        for letter in letters:
            try:
                kind = topics.parse(letter.topic).kind
            except MessageError:
                continue
            if kind in ("readings", "estimate"):
                await client.publish(letter.topic, letter.payload)
                sent.append(letter.id)
    return sent
