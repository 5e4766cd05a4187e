"""The configuration of a platform: one TOML file that documents itself.

`flexmeter init` writes it, `read_config` reads it back: an unknown key, a wrong type or a value out of bounds is an
error that names file, key and what was expected. Paths are relative to the file.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from flexmeter.errors import ConfigError, Finding, InputError

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[float, Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class BrokerConfig(_Section, frozen=True):
    """`[broker]`."""

    host: str = "127.0.0.1"
    port: Port = 8883
    client_port: Port = 4222
    monitor_port: Port = 8222
    sync_interval: str = "always"
    max_disk_gb: Positive = 50.0


class ApiConfig(_Section, frozen=True):
    """`[api]`."""

    host: str = "127.0.0.1"
    port: Port = 8443


class IngestConfig(_Section, frozen=True):
    """`[ingest]`."""

    mode: Literal["direct", "stream"] = "direct"
    window_ms: Annotated[float, Meta(ge=0, le=1000)] = 20.0
    sources: Annotated[int, Meta(ge=1, le=16)] = 1
    max_message_kb: Annotated[int, Meta(ge=1, le=16_384)] = 1024
    max_waiting_mb: Annotated[int, Meta(ge=1)] = 128
    future_s: Positive = 7200.0
    past_days: Positive = 400.0
    dead_letters_mb: Annotated[int, Meta(ge=1)] = 256


class QuotaConfig(_Section, frozen=True):
    """`[quota]`."""

    tenant_values_per_s: Positive = 1e6
    device_messages_per_s: Annotated[float, Meta(ge=0)] = 0.0
    tenant_disk_gb: Positive = 10.0


class DataConfig(_Section, frozen=True):
    """`[data]`."""

    folder: str = "data"
    min_free_mb: Annotated[int, Meta(ge=0)] = 1024
    memory_mb: Annotated[int, Meta(ge=64)] = 1024
    raw_days: Annotated[int, Meta(ge=1)] = 400


class ClusterConfig(_Section, frozen=True):
    """`[cluster]`."""

    node: Name
    name: Name = "flexmeter"
    port: Port = 6222
    routes: tuple[str, ...] = ()


class Config(_Section, frozen=True):
    """The whole file. `folder` is where it lies."""

    tenants: Annotated[tuple[Name, ...], Meta(min_length=1)]
    data: DataConfig = DataConfig()
    broker: BrokerConfig = BrokerConfig()
    api: ApiConfig = ApiConfig()
    ingest: IngestConfig = IngestConfig()
    quota: QuotaConfig = QuotaConfig()
    cluster: ClusterConfig | None = None
    folder: Path = Path()

    @property
    def data_folder(self) -> Path:
        """Where databases, dead letters, registry, broker and certificates are."""
        return self.folder / self.data.folder


TEMPLATE = """\
# Configuration of a Flexmeter platform. Every key may be left out: the value shown is the default, except tenants.

# Groups of users with data of their own: each has its own broker account, streams and database.
tenants = ["{tenant}"]

[data]
folder = "data"            # databases, streams, certificates; relative to this file
min_free_mb = 1024         # below this free space the broker stops accepting; it starts again by itself
memory_mb = 1024           # memory of the database, per tenant
raw_days = 400             # readings are kept this long

[broker]
host = "127.0.0.1"         # address to listen on; every client needs a certificate of the local authority
port = 8883                # MQTT over TLS; 0 = any free port
client_port = 4222         # NATS over TLS (streams)
monitor_port = 8222        # health of the broker, plain HTTP
# When a message counts as safe and its publisher is told so. "always": it is on disk; a power cut loses nothing, the
# broker takes about 4,000 messages/s. "2m": written, and on disk within two minutes; a crash of the process still
# loses nothing, a power cut up to two minutes of readings; ten times the rate.
sync_interval = "always"
max_disk_gb = 50           # what messages that wait for the database may take, all tenants together

[api]
host = "127.0.0.1"
port = 8443                # REST over HTTPS; 0 = any free port

[ingest]
mode = "direct"            # "stream": packed on a durable stream first, for databases on other machines and replay
window_ms = 20             # readings are gathered this long before they are committed together
sources = 1                # event sources that share the work of a tenant (more than one needs mode "stream")
max_message_kb = 1024      # larger messages are refused
max_waiting_mb = 128       # memory for messages between broker and database; beyond, they stay at the broker
future_s = 7200            # a real clock may be this far ahead; more is refused (from 60 s on it is marked)
past_days = 400            # older readings are refused
dead_letters_mb = 256      # refused messages that are kept per tenant; the oldest go first

[quota]
tenant_values_per_s = 1000000   # stored values; what exceeds it waits at the broker
device_messages_per_s = 0       # of one device, bursts of ten seconds' worth; what exceeds it is refused; 0 = no limit
tenant_disk_gb = 10             # what may wait at the broker per tenant; beyond, publishing is not acknowledged

# One node of a broker cluster; the other nodes have the same section with their own node, and all list all routes.
#[cluster]
#node = "node-1"
#name = "flexmeter"
#port = 6222
#routes = ["10.0.0.1:6222", "10.0.0.2:6222", "10.0.0.3:6222"]
"""


def read_config(path: Path) -> Config:
    """Return the configuration in a file; raise `ConfigError` with every unknown key, or the first wrong value."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        hint = "; `flexmeter init` writes one" if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"{path}: cannot be read: {error.strerror or error}{hint}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    unknown = _unknown_keys(content, Config, "")
    if unknown:
        raise ConfigError(unknown, str(path))
    try:
        config = msgspec.convert(content, Config)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at ")
        raise ConfigError([Finding("key", (where.strip("`$. ") or "file",), "", text)], str(path)) from None
    if config.ingest.sources > 1 and config.ingest.mode == "direct":
        finding = Finding("key", ("ingest.sources",), "", 'more than one needs ingest.mode = "stream"')
        raise ConfigError([finding], str(path))
    return msgspec.structs.replace(config, folder=path.resolve().parent)


def write_config(path: Path, tenant: str) -> None:
    """Write a new configuration with all defaults and their meaning; raise `InputError` if the file is there."""
    text = TEMPLATE.format(tenant=tenant)
    msgspec.convert(tomllib.loads(text), Config)
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: is there already; remove it to start anew") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _unknown_keys(content: dict[str, Any], kind: Any, where: str) -> list[Finding]:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind) if field.name != "folder" or where}
    findings = []
    for key, value in content.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1, 0.5)
            hint = f"did you mean {where}{near[0]}?" if near else f"known are {', '.join(fields)}"
            findings.append(Finding("key", (where + key,), "", f"unknown; {hint}"))
        elif isinstance(value, dict) and (section := _SECTIONS.get(key)):
            findings += _unknown_keys(value, section, f"{where}{key}.")
    return findings


_SECTIONS: dict[str, Any] = {
    "data": DataConfig,
    "broker": BrokerConfig,
    "api": ApiConfig,
    "ingest": IngestConfig,
    "quota": QuotaConfig,
    "cluster": ClusterConfig,
}
