"""What a service process needs to know: addresses, a credential, a grid. Read from one TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from flexmeter.errors import InputError

ServiceName = Literal["lv", "mv", "topology", "reconfiguration"]


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the broker listens for MQTT over TLS, and the client certificate to meet it with (PEM files)."""

    host: str
    port: int
    certificate: Path
    key: Path
    authority: Path


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the REST API is, and the file that holds the token (a file, so that no process list shows it)."""

    url: str
    token_file: Path
    authority: Path


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one service process; `name` is what its certificate says."""

    service: ServiceName
    tenant: str
    name: str
    grid: str
    broker: Broker
    api: Api
    interval_s: int = 60
    threshold_percent: float = 5.0
    hold_intervals: int = 5
    handover: Literal["joint", "diagonal"] = "joint"
    deadline_s: float = 30.0


def read_settings(path: Path) -> ServiceSettings:
    """Return the settings in a TOML file; `InputError` names file, field and what was expected."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=ServiceSettings)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {error}") from error
