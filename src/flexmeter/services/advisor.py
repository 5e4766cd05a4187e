"""The pure part of the reconfiguration service: bus powers in, an advice with its evidence out (paper section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid import Grid
from flexmeter.reconfiguration import (
    FeederNetwork,
    Trigger,
    expected_gain,
    gain_percent,
    greedy_tree,
    network_from_grid,
    plan_sequence,
    radial_flow,
    search,
)
from flexmeter.reconfiguration.policy import Action, Evidence, Policy, PolicyState

Floats = NDArray[np.float64]
Vector = tuple[bool, ...]


@dataclass(frozen=True)
class Advice:
    """What follows from one interval.

    Attributes
    ----------
    wanted : the vector to be in force from the next interval on
    proposed : the best vector found, and `gain_percent` its loss reduction (equation 7)
    action : what the policy makes of it
    """

    wanted: Vector
    proposed: Vector
    gain_percent: float
    action: Action


@dataclass
class Advisor:
    """The rule over a run of intervals: best tree, loss reduction, threshold, hold time, policy.

    Parameters
    ----------
    grid : with its switches, whose order is that of every vector here.
    policy : the paper's threshold and hold time, and what may be done without asking.
    method : the paper's `greedy` tree, or `search` by branch exchange from several starts.
    state : what must outlive a restart.
    """

    grid: Grid
    policy: Policy = field(default_factory=lambda: Policy("automatic", Trigger()))
    method: Literal["greedy", "search"] = "greedy"
    state: PolicyState = field(default_factory=PolicyState)

    def __post_init__(self) -> None:
        self.network = network_from_grid(self.grid)
        self._branches = [switch.branch for switch in self.grid.switches]

    def decide(
        self,
        interval: int,
        vector: Vector,
        power_w: Floats,
        power_var: Floats,
        *,
        sigma: Floats | None = None,
        version: int = 0,
    ) -> Advice:
        """Advance by one interval.

        Parameters
        ----------
        interval : running number of the interval, e.g. minutes since 1970.
        vector, version : switch vector in force, and its version.
        power_w, power_var : (n_bus,) three-phase consumption of the MV buses [W, var], order of `network.bus_ids`.
        sigma : (2 n_bus,) their standard deviations, active powers first; none = no statement on the gain's certainty.
        """
        loaded = self.network.with_power(power_w, power_var).with_closed(self._closed(vector))
        closed = greedy_tree(loaded) if self.method == "greedy" else search(loaded).closed
        proposed = loaded.with_closed(closed)
        evidence = self._evidence(interval, loaded, proposed, sigma)
        self.state, action = self.policy.observe(
            self.state,
            interval,
            current_open=loaded.open_branches,
            candidate_open=proposed.open_branches,
            topology_version=version,
            evidence=evidence,
        )
        wanted = vector
        if action.kind == "switch" and action.recommendation is not None:
            wanted = self.vector(action.recommendation.proposed)
        return Advice(wanted, self.vector(proposed.open_branches), evidence.gain_percent, action)

    def answer(self, number: int, interval: int, *, approve: bool) -> Action:
        """Approve or reject the recommendation that waits; `InputError` if there is no such one."""
        self.state, action = self.policy.answer(self.state, number, interval, approve=approve)
        return action

    def executed(self, number: int) -> None:
        """Note that the vector of a recommendation is in force."""
        self.state = self.policy.executed(self.state, number)

    def losses_w(self, vector: Vector, power_w: Floats, power_var: Floats) -> float:
        """Return the losses [W] of the MV lines under a vector and the given consumption of the buses."""
        return radial_flow(self.network.with_power(power_w, power_var).with_closed(self._closed(vector))).losses_w

    def vector(self, opened: tuple[str, ...]) -> Vector:
        """Return the switch vector in which exactly these branches are open."""
        return tuple(branch not in opened for branch in self._branches)

    def _closed(self, vector: Vector) -> NDArray[np.bool_]:
        opened = [branch for branch, closed in zip(self._branches, vector, strict=True) if not closed]
        return self.network.closed_vector(opened)

    def _evidence(self, interval: int, now: FeederNetwork, then: FeederNetwork, sigma: Floats | None) -> Evidence:
        losses_now, losses_then = radial_flow(now).losses_w, radial_flow(then).losses_w
        gain = gain_percent(losses_now, losses_then)
        if now.open_branches == then.open_branches:
            return Evidence(interval, losses_now, losses_then, gain)
        known = expected_gain(now, then.closed, sigma) if sigma is not None else None
        steps = plan_sequence(now, then.closed).steps
        return Evidence(
            interval=interval,
            losses_now_w=losses_now,
            losses_then_w=losses_then,
            gain_percent=gain,
            sigma_percent=known.sigma_percent if known else None,
            probability=known.probability if known else None,
            operations=tuple((step.action, step.branch) for step in steps),
        )
