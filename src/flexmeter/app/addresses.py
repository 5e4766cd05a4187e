"""Where the running parts of a platform listen: small files beside the data, so that commands find them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from flexmeter.config import Config
from flexmeter.errors import ServiceError


class BrokerAddress(msgspec.Struct, frozen=True):
    """Ports of the running broker."""

    host: str
    port: int
    client_port: int
    monitor_port: int


class ApiAddress(msgspec.Struct, frozen=True):
    """Where the running API listens, and its process."""

    url: str
    pid: int


def write_address(config: Config, address: BrokerAddress | ApiAddress) -> None:
    """Put an address down, whole or not at all."""
    path = _path(config, type(address))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_bytes(msgspec.json.encode(address))
    partial.replace(path)


Address = TypeVar("Address", BrokerAddress, ApiAddress)


def broker_address(config: Config) -> BrokerAddress:
    """Return where the broker listens; raise `ServiceError` if the platform was never started."""
    return _read(config, BrokerAddress)


def api_address(config: Config) -> ApiAddress:
    """Return where the API listens; raise `ServiceError` if the platform was never started."""
    return _read(config, ApiAddress)


def _read(config: Config, kind: type[Address]) -> Address:
    try:
        return msgspec.json.decode(_path(config, kind).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        raise ServiceError(f"the platform in {config.folder} is not running; start it with `flexmeter up`") from None


def _path(config: Config, kind: type) -> Path:
    return config.data_folder / "run" / f"{kind.__name__.removesuffix('Address').lower()}.json"
