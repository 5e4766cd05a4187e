"""The processes of a demo: broker, platform, topology service, estimators, reconfiguration, field.

Everything lies in one folder that is removed afterwards: certificates, tokens, databases, logs. Each process gets the
least it needs: its own certificate, and a token with its own scopes.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from flexmeter.app.addresses import BrokerAddress, write_address
from flexmeter.app.house import store_program
from flexmeter.app.identities import PLATFORM
from flexmeter.app.topology import TopologySettings
from flexmeter.config import ApiConfig, BrokerConfig, Config, DataConfig, IngestConfig
from flexmeter.grid import Grid, encode_grid
from flexmeter.messages import topics
from flexmeter.messaging import Broker, BrokerSettings, Identity, MqttClient, open_authority
from flexmeter.messaging.authority import Authority
from flexmeter.ports import free_ports
from flexmeter.registry import Registry, Scope, open_registry
from flexmeter.scenario.field_process import START, FieldSettings
from flexmeter.scenario.options import DayOptions
from flexmeter.services import settings as service
from flexmeter.supervision import Program, Supervisor, answers

TENANT, TOPOLOGY = "dso", "topology-service"
SERVICES: tuple[service.ServiceName, ...] = ("lv", "mv", "reconfiguration")
HOST = "127.0.0.1"
START_S = 90.0
WINDOW_MS = 300.0
"""Readings are committed in large groups, which must stay well below what the broker lets a session hold (10,000
messages): what comes above that is only sent again after `ack_wait`, seconds later."""


@dataclass
class Stage:
    """Builds the folder and starts the processes; `enter` in a stack, which stops them in reverse order."""

    folder: Path
    grid: Grid
    options: DayOptions
    devices: tuple[str, ...]
    minute_s: float

    def __post_init__(self) -> None:
        self.supervisor = Supervisor()
        self.authority: Authority = open_authority(self.folder / "data" / "certificates")
        self.trust = ssl.create_default_context(cafile=str(self.authority.certificate_file))
        self.config = Config(
            tenants=(TENANT,),
            data=DataConfig(min_free_mb=64),
            broker=BrokerConfig(port=0, client_port=0, monitor_port=0, sync_interval="2m"),
            api=ApiConfig(port=0),
            ingest=IngestConfig(window_ms=WINDOW_MS),
            folder=self.folder,
        )

    async def enter(self, stack: AsyncExitStack) -> None:
        """Start everything but the field; return when all of it is ready."""
        identities = [
            *(Identity(TENANT, name, "device") for name in self.devices),
            *(Identity(TENANT, name, "service") for name in (*SERVICES, "field", "monitor", "probe")),
            Identity(TENANT, TOPOLOGY, "topology"),
            *(Identity(TENANT, name, "platform") for name in (PLATFORM, "conductor")),
        ]
        for who in identities:
            self.authority.client(who)
        self._write_config()
        await stack.enter_async_context(self.supervisor)
        settings = BrokerSettings(self.config.data_folder / "broker", port=0, sync_interval="2m")
        self.broker = await stack.enter_async_context(Broker(settings, self.authority, self.supervisor, identities))
        ports = (self.broker.port, self.broker.client_port, self.broker.monitor_port)
        write_address(self.config, BrokerAddress(HOST, *ports))
        self._register_tenant()
        self._register_grid()
        program = store_program(self.config, self.folder / "flexmeter.toml", self.trust)
        async with asyncio.TaskGroup() as group:  # together: each takes its time to start
            group.create_task(self._start_topology())
            for name in self.services:
                group.create_task(self._start(name, self._service_settings(name)))
            group.create_task(self._start_field())
            group.create_task(self.supervisor.start(program))
        stack.push_async_callback(self.supervisor.stop, "platform")

    @property
    def services(self) -> tuple[service.ServiceName, ...]:
        """The grid services: a grid without switches needs no reconfiguration."""
        return SERVICES if self.grid.switches else SERVICES[:2]

    async def start_day(self) -> None:
        """Tell the field, which is ready, to begin."""
        async with self.broker.client(Identity(TENANT, "conductor", "platform")) as mqtt:
            await mqtt.publish(topics.command(TENANT, "field", START, "1"), b"{}")

    async def _start_field(self) -> None:
        settings = FieldSettings(
            tenant=TENANT,
            name="field",
            day=self.options,
            broker=self._broker_settings("field"),
            api=self._api_settings("field"),
            credentials=self.authority.folder,
            reconfiguration="reconfiguration",
            minute_s=self.minute_s,
        )
        await self._start("field", settings)

    def client(self, name: str) -> MqttClient:
        """Return an MQTT client of this process."""
        return self.broker.client(Identity(TENANT, name, "service"))

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {name: child.pid for name, child in self.supervisor.children.items() if child.pid}

    def _write_config(self) -> None:
        """Write the platform's file; everything not named is a default."""
        lines = [f'tenants = ["{TENANT}"]', "[data]", "min_free_mb = 64", "[broker]", "port = 0", "client_port = 0"]
        lines += [
            "monitor_port = 0",
            'sync_interval = "2m"',
            "[api]",
            "port = 0",
            "[ingest]",
            f"window_ms = {WINDOW_MS}",
        ]
        (self.folder / "flexmeter.toml").write_text("\n".join(lines) + "\n")

    def _register_tenant(self) -> None:
        registry = open_registry(self.config.data_folder / "registry.sqlite")
        registry.tenants.add(TENANT)
        self._token(registry, "monitor", [Scope.MONITOR, Scope.READ])
        registry.close()

    def _token(self, registry: Registry, name: str, scopes: Iterable[Scope]) -> None:
        token = registry.tokens.create(TENANT, name, list(scopes))
        path = self.folder / f"{name}.token"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)

    def _register_grid(self) -> None:
        """Make the topology service's own registry, which knows the grid and who may ask."""
        self._topology_port = free_ports(1)[0]
        registry = open_registry(self._topology_registry)
        registry.tenants.add(TENANT)
        for name in ("lv", "mv", "field"):
            self._token(registry, name, [Scope.READ])
        self._token(registry, "reconfiguration", [Scope.READ, Scope.TOPOLOGY])
        names, closed = [switch.id for switch in self.grid.switches], self.grid.switch_vector
        registry.grids.put(TENANT, self.grid.id, encode_grid(self.grid), names, "demo")
        registry.topologies.start(TENANT, self.grid.id, names, closed, "demo")
        registry.close()

    @property
    def _topology_registry(self) -> Path:
        return self.folder / "topology.sqlite"

    async def _start_topology(self) -> None:
        server = self.authority.server((HOST, "localhost"), "topology")
        settings = TopologySettings(
            tenant=TENANT,
            name=TOPOLOGY,
            registry=self._topology_registry,
            broker=self._broker_settings(TOPOLOGY, "topology"),
            host=HOST,
            port=self._topology_port,
            certificate=server.certificate,
            key=server.key,
        )
        await self._start("topology", settings)

    async def _start(self, name: str, settings: msgspec.Struct) -> None:
        path = self.folder / f"{name}.toml"
        service.write_toml(settings, path)
        command = [sys.executable, "-m", "flexmeter", "process", name, "--settings", str(path)]

        async def ready() -> bool:
            return name != "topology" or await answers(HOST, self._topology_port, "/readyz", self.trust)

        await self.supervisor.start(Program(name, command, self.folder / f"{name}.log", ready=ready, start_s=START_S))

    def _service_settings(self, name: service.ServiceName) -> service.ServiceSettings:
        return service.ServiceSettings(
            service=name,
            tenant=TENANT,
            name=name,
            grid=self.grid.id,
            broker=self._broker_settings(name),
            api=self._api_settings(name),
            handover=self.options.handover,
        )

    def _broker_settings(self, name: str, role: Literal["service", "topology"] = "service") -> service.Broker:
        files = self.authority.client(Identity(TENANT, name, role))
        return service.Broker(HOST, self.broker.port, files.certificate, files.key, files.authority)

    def _api_settings(self, name: str) -> service.Api:
        url = f"https://{HOST}:{self._topology_port}"
        return service.Api(url, self.folder / f"{name}.token", self.authority.certificate_file)
