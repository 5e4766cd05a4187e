"""Network reconfiguration as a service (paper section 5): MV estimates in, switch vectors out.

In: `se/mv/AREA`, the switch vector (REST). Out: a new switch vector (REST, If-Match) and, for every estimate, a
`Decision` on the service's event topic. `Advisor` is the pure part.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid import Grid
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_estimate
from flexmeter.messages.estimate import Estimate
from flexmeter.messages.events import Decision
from flexmeter.messages.quantities import ABC
from flexmeter.reconfiguration import (
    HoldState,
    Trigger,
    gain_percent,
    greedy_tree,
    network_from_grid,
    radial_flow,
    step,
)
from flexmeter.services.link import Link
from flexmeter.services.rest import Conflict, Topology

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Vector = tuple[bool, ...]


@dataclass
class Advisor:
    """The paper's rule over a run of intervals: greedy tree, loss reduction, threshold, hold time.

    Parameters
    ----------
    grid : with its switches, whose order is that of every vector here.
    trigger : threshold and hold time.
    """

    grid: Grid
    trigger: Trigger = field(default_factory=Trigger)
    state: HoldState = field(default_factory=HoldState)

    def __post_init__(self) -> None:
        self.network = network_from_grid(self.grid)
        self._branches = [switch.branch for switch in self.grid.switches]

    def decide(self, interval: int, vector: Vector, power_w: Floats, power_var: Floats) -> tuple[Vector, Vector, float]:
        """Advance by one interval.

        Parameters
        ----------
        interval : running number of the interval, e.g. minutes since 1970.
        vector : switch vector in force.
        power_w, power_var : (n_bus,) three-phase consumption of the MV buses [W, var], order of `network.bus_ids`.

        Returns
        -------
        the vector to be in force from the next interval on, the proposal, and its loss reduction [percent].
        """
        loaded = self.network.with_power(power_w, power_var).with_closed(self._closed(vector))
        proposed = loaded.with_closed(greedy_tree(loaded))
        gain = gain_percent(radial_flow(loaded).losses_w, radial_flow(proposed).losses_w)
        self.state, decision = step(
            self.trigger,
            self.state,
            interval,
            current_open=loaded.open_branches,
            candidate_open=proposed.open_branches,
            gain=gain,
        )
        return self._vector(decision.open_branches), self._vector(proposed.open_branches), gain

    def losses_w(self, vector: Vector, power_w: Floats, power_var: Floats) -> float:
        """Return the losses [W] of the MV lines under a vector and the given consumption of the buses."""
        return radial_flow(self.network.with_power(power_w, power_var).with_closed(self._closed(vector))).losses_w

    def _closed(self, vector: Vector) -> NDArray[np.bool_]:
        opened = [branch for branch, closed in zip(self._branches, vector, strict=True) if not closed]
        return self.network.closed_vector(opened)

    def _vector(self, opened: tuple[str, ...]) -> Vector:
        return tuple(branch not in opened for branch in self._branches)


def bus_power(estimate: Estimate, buses: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Return the three-phase consumption (n_bus,) [W], [var] of the named buses in an MV estimate."""
    place = {name: k for k, name in enumerate(estimate.elements)}
    rows = [place[bus] for bus in buses]
    active = [estimate.column("active_power", phase)[0][rows] for phase in ABC]
    reactive = [estimate.column("reactive_power", phase)[0][rows] for phase in ABC]
    return np.sum(active, axis=0), np.sum(reactive, axis=0)


async def serve(link: Link, grid_id: str, trigger: Trigger, interval_ms: int = 60_000) -> None:
    """Answer every MV estimate with a decision, until cancelled."""
    grid = await link.rest.grid(grid_id)
    area = next(area.id for area in grid.areas if area.level == "mv")
    advisor = Advisor(grid, trigger)
    await link.mqtt.subscribe(topics.estimate(link.tenant, "mv", area), topics.topology(link.tenant, grid_id))
    topology = await link.rest.topology(grid_id)
    await link.online()
    async for message in link.mqtt.messages():
        if topics.parse(message.topic).kind == "topology":
            topology = await link.rest.topology(grid_id)
            continue
        estimate = decode_estimate(message.payload)
        if estimate.status == "not_converged":
            continue
        power = bus_power(estimate, advisor.network.bus_ids)
        interval = estimate.time_ms // interval_ms
        wanted, proposed, gain = advisor.decide(interval, topology.closed, *power)
        changed = wanted != topology.closed
        if changed:
            topology, changed = await _change(link, topology, wanted, estimate.time_ms)
        held = advisor.state.held
        await link.tell(
            Decision(
                grid=grid_id,
                topology=topology.version,
                time_ms=estimate.time_ms,
                proposed=proposed,
                gain_percent=gain,
                held=held,
                changed=changed,
            )
        )


async def _change(link: Link, topology: Topology, wanted: Vector, time_ms: int) -> tuple[Topology, bool]:
    """Put a vector in force after the instant; if somebody else was quicker, theirs counts."""
    try:
        new = Topology(topology.grid, topology.version, wanted, time_ms + 1)
        new = await link.rest.put_topology(new)
    except Conflict:
        log.warning("event=topology_conflict grid=%s version=%d", topology.grid, topology.version)
        return await link.rest.topology(topology.grid), False
    log.info("event=topology_changed grid=%s version=%d time_ms=%d", new.grid, new.version, time_ms)
    return new, True
