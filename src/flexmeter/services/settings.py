"""What a service process needs to know: addresses, a credential, a grid. Read from one TOML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from flexmeter.errors import InputError

S = TypeVar("S", bound=msgspec.Struct)
ServiceName = Literal["lv", "mv", "reconfiguration"]


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
    """Settings of one service process; `name` is what its certificate says.

    Of the reconfiguration: `threshold_percent` and `hold_intervals` are the paper's, `mode` what it may do by itself,
    `method` the paper's greedy tree or the exchange search, `state_file` what outlives a restart. A proposal must keep
    the voltage band on every phase, be a gain with `least_probability` and break a limit with at most `largest_risk`;
    over `horizon_h` it must save `least_energy_kwh` and, where `least_profit` is set, earn it at `price_per_kwh` less
    the `operation_cost` of every switch. An approval counts for `approval_intervals`.
    """

    service: ServiceName
    tenant: str
    name: str
    grid: str
    broker: Broker
    api: Api
    interval_s: int = 60
    threshold_percent: float = 5.0
    hold_intervals: int = 5
    mode: Literal["advise", "approve", "automatic"] = "automatic"
    method: Literal["greedy", "search"] = "greedy"
    state_file: Path | None = None
    v_min_pu: float = 0.9
    v_max_pu: float = 1.1
    least_probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    largest_risk: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    least_energy_kwh: float = 0.0
    least_profit: float | None = None
    price_per_kwh: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    operation_cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    horizon_h: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    approval_intervals: Annotated[int, msgspec.Meta(ge=1)] = 60
    handover: Literal["joint", "diagonal"] = "joint"
    deadline_s: float = 30.0


def read_settings(path: Path) -> ServiceSettings:
    """Return the settings of a service in a TOML file."""
    return read_toml(path, ServiceSettings)


def read_toml(path: Path, kind: type[S]) -> S:
    """Return a TOML file as settings; `InputError` names file, field and what was expected."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind, dec_hook=_as_path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {error}") from error


def _as_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{kind} from {type(value)}")


def write_toml(settings: msgspec.Struct, path: Path) -> None:
    """Write settings as a TOML file that `read_toml` reads."""
    plain = {name: value for name, value in _fields(settings) if not isinstance(value, msgspec.Struct)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items() if value is not None]
    for name, table in _fields(settings):
        if isinstance(table, msgspec.Struct):
            lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in _fields(table))]
    path.write_text("\n".join(lines) + "\n")


def _fields(settings: msgspec.Struct) -> list[tuple[str, object]]:
    values = ((name, getattr(settings, name)) for name in settings.__struct_fields__)
    return [(name, str(value) if isinstance(value, Path) else value) for name, value in values]
