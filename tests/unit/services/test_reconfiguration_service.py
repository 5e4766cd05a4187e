"""The reconfiguration service over a real registry and its routes: proposals, verdicts, restarts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import numpy as np
from fastapi import FastAPI

from flexmeter.api import problems, recommendations_router, topology_router
from flexmeter.grid import encode_grid
from flexmeter.messages import topics
from flexmeter.messages.codec import encode_estimate
from flexmeter.messages.estimate import Estimate
from flexmeter.messages.events import Decision, Recommendation, decode_event
from flexmeter.messaging.memory import MemoryBroker, MemoryClient
from flexmeter.registry import Registry, Scope, Topology, open_registry
from flexmeter.scenario.reference_grid import reference_grid
from flexmeter.services import reconfiguration
from flexmeter.services.areas import COLUMNS
from flexmeter.services.link import Link
from flexmeter.services.rest import Rest
from flexmeter.services.settings import Api, Broker, ServiceSettings

GRID = reference_grid()
BUSES = tuple(bus.id for bus in GRID.buses if bus.voltage_v == 15_000)
NOWHERE = Path("unused")


@dataclass
class House:
    """Broker, registry and routes of one tenant, and what the service is told to do."""

    broker: MemoryBroker
    registry: Registry
    app: FastAPI
    settings: ServiceSettings

    def rest(self, label: str) -> Rest:
        token = self.registry.tokens.create("acme", label, {Scope.READ, Scope.TOPOLOGY})
        rest = Rest("http://flexmeter", token, ssl.create_default_context())
        rest._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://flexmeter",
            headers={"Authorization": f"Bearer {token}"},
        )
        return rest

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Run the service until the block ends, as one process does."""
        async with self.broker.client() as mqtt, self.rest("service") as rest:
            task = asyncio.create_task(reconfiguration.serve(Link("acme", "reco", mqtt, rest), self.settings))
            while topics.state("acme", "reco") not in self.broker.retained and not task.done():
                await asyncio.sleep(0.01)
            yield
            self.broker.retained.clear()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def estimate(self, minute: int) -> Decision:
        """Publish an estimate and return the decision on it."""
        async with self.broker.client() as mqtt:
            await mqtt.publish(topics.estimate("acme", "mv", "MV"), encode_estimate(loaded(minute)))
        async with asyncio.timeout(20):
            while True:
                decisions = [one for one in self.told() if isinstance(one, Decision)]
                if decisions and decisions[-1].time_ms == minute * 60_000:
                    return decisions[-1]
                await asyncio.sleep(0.01)

    def told(self) -> list[object]:
        return [decode_event(m.payload) for m in self.broker.published if m.topic == topics.event("acme", "reco")]

    def statuses(self) -> list[str]:
        return [one.status for one in self.told() if isinstance(one, Recommendation)]

    async def call(self, method: str, path: str) -> httpx.Response:
        async with self.rest("anna") as rest:
            return await rest._client.request(method, f"/api/v1{path}")


def loaded(minute: int) -> Estimate:
    """2 MW at each of two neighbours, known to 1 %."""
    values = np.zeros((len(COLUMNS), len(BUSES)))
    for row, column in enumerate(COLUMNS):
        for bus in ("MV_006", "MV_007"):
            share = {"active_power": 2e6 / 3, "reactive_power": 2e5}.get(column.quantity, 0.0)
            values[row, BUSES.index(bus)] = share
    return Estimate("mv", 0, minute, GRID.id, "mv", "MV", 1, minute * 60_000, "ok", 3, 1.0, 1, BUSES, COLUMNS, values,
                    0.01 * values)  # fmt: skip


@asynccontextmanager
async def house(folder: Path, mode: str) -> AsyncIterator[House]:
    registry, broker = open_registry(folder / "registry.sqlite"), MemoryBroker()
    registry.tenants.add("acme")

    async def alert(tenant: str, topology: Topology) -> None:
        return None

    async def command(tenant: str, device: str, name: str, id: str) -> None:
        async with broker.client() as mqtt:
            await mqtt.publish(topics.command(tenant, device, name, id), b"{}")

    app = FastAPI()
    problems.install(app)
    app.include_router(topology_router(registry, alert), prefix="/api/v1")
    app.include_router(recommendations_router(registry, command), prefix="/api/v1")
    settings = ServiceSettings(
        service="reconfiguration",
        tenant="acme",
        name="reco",
        grid=GRID.id,
        broker=Broker("localhost", 1, NOWHERE, NOWHERE, NOWHERE),
        api=Api("http://flexmeter", NOWHERE, NOWHERE),
        hold_intervals=2,
        mode=mode,  # type: ignore[arg-type]
        state_file=folder / "state.json",
    )
    names = [switch.id for switch in GRID.switches]
    registry.grids.put("acme", GRID.id, encode_grid(GRID), names, "test")
    registry.topologies.start("acme", GRID.id, names, GRID.switch_vector, "test")
    try:
        yield House(broker, registry, app, settings)
    finally:
        registry.close()


def test_approved_over_rest_by_command(tmp_path: Path) -> None:
    async def play() -> None:
        async with house(tmp_path, "approve") as acme, acme.serving():
            assert not (await acme.estimate(1)).changed
            await acme.estimate(2)
            assert acme.statuses() == ["proposed"]
            kept = (await acme.call("GET", f"/recommendations/{GRID.id}/1")).json()
            assert kept["recommendation"]["probability"] > 0.999
            assert kept["recommendation"]["three_phase"][1]["violation"] == 0
            for _ in range(2):
                answer = await acme.call("POST", f"/recommendations/{GRID.id}/1/approve")
                assert answer.status_code == 200, answer.text
            await acme.estimate(3)
            assert acme.statuses()[-1] == "executed"
            current = acme.registry.topologies.current("acme", GRID.id)
            assert current is not None
            assert current.version == 2
            assert current.closed != GRID.switch_vector
            words = [entry.word for entry in acme.registry.recommendations.history("acme", GRID.id, 1)]
            assert words == ["proposed", "approve", "executed"]

    asyncio.run(play())


def test_a_verdict_given_while_the_service_is_away_is_heard_after_its_restart(tmp_path: Path) -> None:
    async def play() -> None:
        async with house(tmp_path, "approve") as acme:
            async with acme.serving():
                for minute in (1, 2):
                    await acme.estimate(minute)
            assert (await acme.call("POST", f"/recommendations/{GRID.id}/1/approve")).status_code == 200
            async with acme.serving():
                await acme.estimate(3)
            assert acme.statuses()[-1] == "executed"

    asyncio.run(play())


def test_rejected_by_command_and_not_proposed_again(tmp_path: Path) -> None:
    async def play() -> None:
        async with house(tmp_path, "approve") as acme, acme.serving():
            for minute in (1, 2):
                await acme.estimate(minute)
            client: MemoryClient
            async with acme.broker.client() as client:
                await client.publish(topics.command("acme", "reco", "reject", "1"), b"{}")
                await client.publish(topics.command("acme", "reco", "reject", "1"), b"{}")
            for minute in (3, 4, 5):
                await acme.estimate(minute)
            assert acme.statuses() == ["proposed", "rejected"]
            acks = [m.payload for m in acme.broker.published if m.topic.endswith("/ack")]
            assert [msgspec.json.decode(ack)["status"] for ack in acks] == ["rejected", "rejected"]
            assert (await acme.call("POST", f"/recommendations/{GRID.id}/1/approve")).status_code == 409

    asyncio.run(play())


def test_a_lost_state_file_does_not_use_numbers_again(tmp_path: Path) -> None:
    async def play() -> None:
        async with house(tmp_path, "advise") as acme:
            async with acme.serving():
                for minute in (1, 2):
                    await acme.estimate(minute)
            (tmp_path / "state.json").unlink()
            async with acme.serving():
                for minute in (11, 12):
                    await acme.estimate(minute)
            numbers = [one.number for one in acme.told() if isinstance(one, Recommendation)]
            assert numbers == [1, 2]
            kept = acme.registry.recommendations.list("acme")
            assert [(one.number, one.status) for one in kept] == [(2, "advised"), (1, "superseded")]

    asyncio.run(play())


def test_estimates_that_are_no_basis_are_refused_and_the_service_goes_on(tmp_path: Path) -> None:
    async def play() -> None:
        async with house(tmp_path, "automatic") as acme, acme.serving():
            nothing = loaded(1)
            for broken in (
                replace_values(nothing, np.full_like(nothing.values, np.nan)),
                replace_values(nothing, 100 * nothing.values),
                msgspec.structs.replace(nothing, elements=("other", *BUSES[1:])),
            ):
                async with acme.broker.client() as mqtt:
                    await mqtt.publish(topics.estimate("acme", "mv", "MV"), encode_estimate(broken))
            assert not (await acme.estimate(2)).changed
            assert (await acme.estimate(3)).changed

    asyncio.run(play())


def replace_values(estimate: Estimate, values: np.ndarray) -> Estimate:
    return msgspec.structs.replace(estimate, values=values)
