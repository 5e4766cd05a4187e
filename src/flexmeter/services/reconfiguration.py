"""Network reconfiguration as a service (paper section 5): MV estimates in, switch vectors out.

In: `se/mv/AREA`, the switch vector (REST), verdicts (REST, or commands approve/NUMBER and reject/NUMBER). Out: a new
switch vector (REST, If-Match), a `Decision` for every estimate and a `Recommendation` with its evidence, both on the
service's event topic; recommendations also over REST, where people find them. `advisor.Advisor` is the pure part.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

import msgspec
import numpy as np

from flexmeter.errors import DidNotConverge, FlexmeterError, GridError, InputError, MessageError, NotRadial
from flexmeter.grid import Grid
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_estimate
from flexmeter.messages.estimate import Estimate
from flexmeter.messages.events import Comparison, Decision, Recommendation
from flexmeter.messages.quantities import ABC, QuantityName
from flexmeter.reconfiguration import Constraints, Criterion, Trigger
from flexmeter.reconfiguration import Recommendation as Made
from flexmeter.reconfiguration.adapter import BEHIND_SOURCE
from flexmeter.reconfiguration.policy import Action, Policy, PolicyState
from flexmeter.services.advisor import Advisor, Floats, Loads, Vector
from flexmeter.services.link import Link
from flexmeter.services.rest import Conflict, Topology
from flexmeter.services.settings import ServiceSettings

log = logging.getLogger(__name__)
QUANTITIES: tuple[QuantityName, QuantityName] = ("active_power", "reactive_power")


def bus_power(estimate: Estimate, buses: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Return the three-phase consumption (n_bus,) [W], [var] of the named buses in an MV estimate."""
    active, reactive = _columns(estimate, buses, 0)
    return active.sum(axis=0), reactive.sum(axis=0)


def bus_loads(estimate: Estimate, buses: tuple[str, ...]) -> Loads:
    """Return consumption per phase and standard deviations of the three-phase sums of the named buses."""
    variance = [(part**2).sum(axis=0) for part in _columns(estimate, buses, 1)]
    return Loads(*_columns(estimate, buses, 0), np.asarray(np.sqrt(np.concatenate(variance))))


def _columns(estimate: Estimate, buses: tuple[str, ...], which: int) -> tuple[Floats, Floats]:
    """Return values (0) or sigmas (1) of P and Q, (3, n_bus) each; nothing is consumed behind a source's impedance."""
    place = {name: k for k, name in enumerate(estimate.elements)}
    missing = [bus for bus in buses if bus not in place and not bus.startswith(BEHIND_SOURCE)]
    if missing:
        raise MessageError(f"estimate of {estimate.area}: bus {', '.join(missing[:6])} is missing")
    there = [k for k, bus in enumerate(buses) if bus in place]
    rows = [place[buses[k]] for k in there]
    power = np.zeros((2, 3, len(buses)))
    for part, quantity in zip(power, QUANTITIES, strict=True):
        part[:, there] = [estimate.column(quantity, phase)[which][rows] for phase in ABC]
    return power[0], power[1]


async def serve(link: Link, settings: ServiceSettings) -> None:
    """Answer every MV estimate with a decision, until cancelled."""
    grid = await link.rest.grid(settings.grid)
    area = next(area.id for area in grid.areas if area.level == "mv")
    advisor = _advisor(grid, settings)
    commands = f"{topics.PREFIX}/{link.tenant}/{link.name}/cmd/+/+"
    estimates, alerts = topics.estimate(link.tenant, "mv", area), topics.topology(link.tenant, settings.grid)
    await link.mqtt.subscribe(estimates, alerts, commands)
    desk = _Desk(link, settings, advisor, await link.rest.topology(settings.grid))
    await desk.resume()
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
        except (MessageError, GridError, NotRadial, DidNotConverge) as error:
            log.warning("event=refused topic=%s error=%s", message.topic, error)


def _advisor(grid: Grid, settings: ServiceSettings) -> Advisor:
    """Return the pure part as the settings want it, with the state of the run before."""
    trigger = Trigger(settings.threshold_percent, settings.hold_intervals)
    policy = Policy(settings.mode, trigger, settings.approval_intervals)
    criterion = Criterion(
        percent=0.0,  # the trigger's
        energy_kwh=settings.least_energy_kwh,
        money=settings.least_profit,
        price_per_kwh=settings.price_per_kwh,
        operation_cost=settings.operation_cost,
        horizon_h=settings.horizon_h,
        probability=settings.least_probability,
        risk=settings.largest_risk,
    )
    limits = Constraints(v_min_pu=settings.v_min_pu, v_max_pu=settings.v_max_pu)
    return Advisor(grid, policy, settings.method, limits, criterion, _read_state(settings))


@dataclass
class _Desk:
    """The service at work: the newest topology, what has been seen last and what was told last."""

    link: Link
    settings: ServiceSettings
    advisor: Advisor
    topology: Topology
    time_ms: int = 0
    told: Made | None = None

    async def resume(self) -> None:
        """Take up what a run before this one has left and perhaps did not tell."""
        waiting = self.advisor.state.recommendation
        if waiting is not None:
            self.time_ms = waiting.evidence.interval * self._interval_ms
            await self._tell()
        number = await self.link.rest.last_number(self.settings.grid)
        self.advisor.number_from(number + 1)

    async def decide(self, estimate: Estimate) -> None:
        """Take one estimate: observe, act as the policy says, tell."""
        if estimate.status == "not_converged":
            return
        self.time_ms = estimate.time_ms
        await self._hear_verdict()
        advice = self.advisor.decide(
            self._interval,
            self.topology.closed,
            bus_loads(estimate, self.advisor.network.bus_ids),
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
            reason=advice.action.reason,
        )
        await self.link.tell(decision)

    async def answer(self, command: str, number: str) -> None:
        """Take an approval or a rejection and acknowledge it with what became of it."""
        result: dict[str, str]
        try:
            if command not in ("approve", "reject") or not number.isdigit():
                raise InputError(f"command {command}/{number}: expected approve/NUMBER or reject/NUMBER")
            result = {"status": await self._take_verdict(int(number), approve=command == "approve")}
        except FlexmeterError as error:
            result = {"status": "refused", "detail": str(error)}
        topic = topics.command_ack(self.link.tenant, self.link.name, command, number)
        await self.link.mqtt.publish(topic, msgspec.json.encode(result))

    async def _hear_verdict(self) -> None:
        """Ask for a verdict on what waits: its command may have come while this service was away."""
        waiting = self.advisor.state.recommendation
        if waiting is None or waiting.status != "proposed":
            return
        kept = await self.link.rest.recommendation(self.settings.grid, waiting.number)
        if kept.verdict is not None:
            with contextlib.suppress(InputError):  # too old by now: the next estimate closes it
                await self._take_verdict(waiting.number, approve=kept.verdict == "approve")

    async def _take_verdict(self, number: int, *, approve: bool) -> str:
        """Act on a verdict; the one that was already acted upon changes nothing."""
        made = self.advisor.state.recommendation
        done = ("approved", "executed") if approve else ("rejected",)
        if made is not None and made.number == number and made.status in done:
            return made.status
        action = self.advisor.answer(number, self._interval, approve=approve)
        await self._act(action)
        return action.reason

    @property
    def _interval_ms(self) -> int:
        return self.settings.interval_s * 1000

    @property
    def _interval(self) -> int:
        return self.time_ms // self._interval_ms

    async def _act(self, action: Action) -> bool:
        """Switch and tell; return whether the switch vector was changed. The state is on disk before it is told."""
        made, changed = action.recommendation, False
        if action.kind == "switch" and made is not None:
            self._write_state()  # approved: a crash from here on finds the vector in force, or tries again
            changed = await self._switch(self.advisor.vector(made.proposed))
            if changed:
                self.advisor.executed(made.number)
        self._write_state()
        await self._tell()
        return changed

    async def _tell(self) -> None:
        """Tell the newest recommendation unless just this was told before."""
        made = self.advisor.state.recommendation
        if made is None or made == self.told:
            return
        message = _message(self.settings.grid, made, self.time_ms)
        await self.link.rest.put_recommendation(message, self.link.name)
        await self.link.tell(message)
        self.told = made

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


def _message(grid: str, made: Made, time_ms: int) -> Recommendation:
    figures = made.evidence
    return Recommendation(
        grid=grid,
        topology=made.topology_version,
        time_ms=time_ms,
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
        risk_now=figures.risk_now,
        risk_then=figures.risk_then,
        balanced=msgspec.convert(figures.balanced, Comparison | None, from_attributes=True),
        three_phase=msgspec.convert(figures.three_phase, Comparison | None, from_attributes=True),
    )


def _read_state(settings: ServiceSettings) -> PolicyState:
    """Return what a run before this one has written; a new state without one."""
    path = settings.state_file
    if path is None or not path.exists():
        return PolicyState()
    try:
        return PolicyState.from_dict(msgspec.json.decode(path.read_bytes(), type=dict[str, object]))
    except (msgspec.DecodeError, InputError) as error:
        raise InputError(f"{path}: not the state of a reconfiguration service: {error}") from error
