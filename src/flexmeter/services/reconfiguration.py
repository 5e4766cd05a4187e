"""Network reconfiguration as a service (paper section 5): MV estimates in, switch vectors out.

In: `se/mv/AREA`, the switch vector (REST), approvals (commands approve/NUMBER and reject/NUMBER). Out: a new switch
vector (REST, If-Match), a `Decision` for every estimate and a `Recommendation` with its evidence, both on the service's
event topic. `advisor.Advisor` is the pure part.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec
import numpy as np

from flexmeter.errors import FlexmeterError, InputError, MessageError
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_estimate
from flexmeter.messages.estimate import Estimate
from flexmeter.messages.events import Decision, Recommendation
from flexmeter.messages.quantities import ABC
from flexmeter.reconfiguration import Trigger
from flexmeter.reconfiguration.policy import Action, Policy, PolicyState
from flexmeter.services.advisor import Advisor, Floats, Vector
from flexmeter.services.link import Link
from flexmeter.services.rest import Conflict, Topology
from flexmeter.services.settings import ServiceSettings

log = logging.getLogger(__name__)


def bus_power(estimate: Estimate, buses: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Return the three-phase consumption (n_bus,) [W], [var] of the named buses in an MV estimate."""
    active, reactive = _columns(estimate, buses, 0)
    return active.sum(axis=0), reactive.sum(axis=0)


def bus_sigma(estimate: Estimate, buses: tuple[str, ...]) -> Floats:
    """Return the standard deviations (2 n_bus,) of the buses' three-phase consumption, active powers first."""
    variance = [(part**2).sum(axis=0) for part in _columns(estimate, buses, 1)]
    return np.asarray(np.sqrt(np.concatenate(variance)))


def _columns(estimate: Estimate, buses: tuple[str, ...], which: int) -> tuple[Floats, Floats]:
    """Return values (0) or sigmas (1) of P and Q, (3, n_bus) each."""
    place = {name: k for k, name in enumerate(estimate.elements)}
    rows = [place[bus] for bus in buses]
    active = np.array([estimate.column("active_power", phase)[which][rows] for phase in ABC])
    return active, np.array([estimate.column("reactive_power", phase)[which][rows] for phase in ABC])


async def serve(link: Link, settings: ServiceSettings) -> None:
    """Answer every MV estimate with a decision, until cancelled."""
    grid = await link.rest.grid(settings.grid)
    area = next(area.id for area in grid.areas if area.level == "mv")
    policy = Policy(settings.mode, Trigger(settings.threshold_percent, settings.hold_intervals))
    advisor = Advisor(grid, policy, settings.method, _read_state(settings))
    commands = f"{topics.PREFIX}/{link.tenant}/{link.name}/cmd/+/+"
    estimates, alerts = topics.estimate(link.tenant, "mv", area), topics.topology(link.tenant, settings.grid)
    await link.mqtt.subscribe(estimates, alerts, commands)
    desk = _Desk(link, settings, advisor, await link.rest.topology(settings.grid))
    await link.online()
    async for message in link.mqtt.messages():
        topic = topics.parse(message.topic)
        try:
            if topic.kind == "topology":
                desk.topology = await link.rest.topology(settings.grid)
            elif topic.kind == "command":
                await desk.answer(topic.name, topic.id)
            else:
                await desk.decide(decode_estimate(message.payload))
        except MessageError as error:
            log.warning("event=refused topic=%s error=%s", message.topic, error)


@dataclass
class _Desk:
    """The service at work: the newest topology and what has been seen last."""

    link: Link
    settings: ServiceSettings
    advisor: Advisor
    topology: Topology
    time_ms: int = 0

    async def decide(self, estimate: Estimate) -> None:
        """Take one estimate: observe, act as the policy says, tell."""
        if estimate.status == "not_converged":
            return
        self.time_ms = estimate.time_ms
        buses = self.advisor.network.bus_ids
        advice = self.advisor.decide(
            self._interval,
            self.topology.closed,
            *bus_power(estimate, buses),
            sigma=bus_sigma(estimate, buses),
            version=self.topology.version,
        )
        changed = await self._act(advice.action)
        decision = Decision(
            grid=self.settings.grid,
            topology=self.topology.version,
            time_ms=estimate.time_ms,
            proposed=advice.proposed,
            gain_percent=advice.gain_percent,
            held=self.advisor.state.hold.held,
            changed=changed,
        )
        await self.link.tell(decision)

    async def answer(self, command: str, number: str) -> None:
        """Take an approval or a rejection and acknowledge it with what became of it."""
        result: dict[str, str]
        try:
            if command not in ("approve", "reject") or not number.isdigit():
                raise InputError(f"command {command}/{number}: expected approve/NUMBER or reject/NUMBER")
            action = self.advisor.answer(int(number), self._interval, approve=command == "approve")
            await self._act(action)
            result = {"status": action.reason}
        except FlexmeterError as error:
            result = {"status": "refused", "detail": str(error)}
        topic = topics.command_ack(self.link.tenant, self.link.name, command, number)
        await self.link.mqtt.publish(topic, msgspec.json.encode(result))

    @property
    def _interval(self) -> int:
        return self.time_ms // (self.settings.interval_s * 1000)

    async def _act(self, action: Action) -> bool:
        """Switch or publish; return whether the switch vector was changed. The state is on disk before it is told."""
        made, changed = action.recommendation, False
        if action.kind == "switch" and made is not None:
            changed = await self._switch(self.advisor.vector(made.proposed))
            if changed:
                self.advisor.executed(made.number)
                made = self.advisor.state.recommendation
        self._write_state()
        if action.kind != "none" and made is not None:
            figures = made.evidence
            recommendation = Recommendation(
                grid=self.settings.grid,
                topology=made.topology_version,
                time_ms=self.time_ms,
                number=made.number,
                status=made.status,
                current=made.current,
                proposed=made.proposed,
                losses_now_w=figures.losses_now_w,
                losses_then_w=figures.losses_then_w,
                gain_percent=figures.gain_percent,
                sigma_percent=figures.sigma_percent,
                probability=figures.probability,
                operations=figures.operations,
            )
            await self.link.tell(recommendation)
        return changed

    async def _switch(self, wanted: Vector) -> bool:
        """Put a vector in force after the instant; if somebody else was quicker, theirs counts."""
        try:
            new = Topology(self.topology.grid, self.topology.version, wanted, self.time_ms + 1)
            self.topology = await self.link.rest.put_topology(new)
        except Conflict:
            log.warning("event=topology_conflict grid=%s version=%d", self.topology.grid, self.topology.version)
            self.topology = await self.link.rest.topology(self.topology.grid)
            return self.topology.closed == wanted
        log.info("event=topology_changed grid=%s version=%d", self.topology.grid, self.topology.version)
        return True

    def _write_state(self) -> None:
        path = self.settings.state_file
        if path is not None:
            partial = path.with_suffix(".part")
            partial.write_bytes(msgspec.json.encode(self.advisor.state.to_dict()))
            partial.replace(path)


def _read_state(settings: ServiceSettings) -> PolicyState:
    """Return what a run before this one has written; a new state without one."""
    path = settings.state_file
    if path is None or not path.exists():
        return PolicyState()
    try:
        return PolicyState.from_dict(msgspec.json.decode(path.read_bytes(), type=dict[str, object]))
    except (msgspec.DecodeError, InputError) as error:
        raise InputError(f"{path}: not the state of a reconfiguration service: {error}") from error
