"""The pure part of the reconfiguration service: bus powers in, an advice with its evidence out (paper section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid import Grid
from flexmeter.reconfiguration import (
    Constraints,
    Criterion,
    FeederNetwork,
    PhaseModel,
    Risk,
    Trigger,
    balanced_figures,
    expected_gain,
    gain_percent,
    greedy_tree,
    limit_risk,
    network_from_grid,
    plan_sequence,
    radial_flow,
    refusal,
    search,
    solved_figures,
)
from flexmeter.reconfiguration.policy import Action, Evidence, Policy, PolicyState

Floats = NDArray[np.float64]
Vector = tuple[bool, ...]
# How many of the best trees are examined, one after the other, before nothing is proposed.
CANDIDATES = 3
SAME = 1e-9


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


@dataclass(frozen=True)
class Loads:
    """Estimated consumption of the MV buses, order of `Advisor.network.bus_ids`.

    Attributes
    ----------
    power_w, power_var : (3, n_bus) per phase [W, var]
    sigma : (2 n_bus,) standard deviations of the three-phase sums, active powers first; none = no statement on the
        gain's certainty
    """

    power_w: Floats
    power_var: Floats
    sigma: Floats | None = None


@dataclass
class Advisor:
    """The rule over a run of intervals: best tree, loss reduction, threshold, hold time, policy.

    Parameters
    ----------
    grid : with its switches, whose order is that of every vector here.
    policy : the paper's threshold and hold time, and what may be done without asking.
    method : the paper's `greedy` tree, or `search` by branch exchange from several starts.
    limits : voltage band and ratings that a proposal must keep, on the balanced equivalent and on every single phase; a
        tree in force that breaks one may be left for one that breaks it less.
    criterion : what a gain must be worth beside the trigger's percentage.
    state : what must outlive a restart.
    """

    grid: Grid
    policy: Policy = field(default_factory=lambda: Policy("automatic", Trigger()))
    method: Literal["greedy", "search"] = "greedy"
    limits: Constraints = field(default_factory=lambda: Constraints(v_min_pu=0.9, v_max_pu=1.1))
    criterion: Criterion = field(default_factory=lambda: Criterion(percent=0.0))
    state: PolicyState = field(default_factory=PolicyState)

    def __post_init__(self) -> None:
        self.network = network_from_grid(self.grid)
        self.phases = PhaseModel(self.grid)
        self._branches = [switch.branch for switch in self.grid.switches]

    def decide(self, interval: int, vector: Vector, loads: Loads, *, version: int = 0) -> Advice:
        """Advance by one interval.

        Parameters
        ----------
        interval : running number of the interval, e.g. minutes since 1970.
        vector, version : switch vector in force, and its version.
        """
        loaded = self.network.with_power(loads.power_w.sum(axis=0), loads.power_var.sum(axis=0))
        loaded = loaded.with_closed(self._closed(vector))
        proposed, evidence = self._candidate(interval, loaded, vector, loads)
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

    def number_from(self, number: int) -> None:
        """Give no recommendation a number below this one: others were there before this state."""
        self.state = replace(self.state, next_number=max(self.state.next_number, number))

    def executed(self, number: int) -> None:
        """Note that the vector of a recommendation is in force."""
        self.state = self.policy.executed(self.state, number)

    def losses_w(self, vector: Vector, power_w: Floats, power_var: Floats) -> float:
        """Return the losses [W] of the MV lines under a vector and the given consumption of the buses, (n_bus,)."""
        return radial_flow(self.network.with_power(power_w, power_var).with_closed(self._closed(vector))).losses_w

    def vector(self, opened: tuple[str, ...]) -> Vector:
        """Return the switch vector in which exactly these branches are open."""
        return tuple(branch not in opened for branch in self._branches)

    def _closed(self, vector: Vector) -> NDArray[np.bool_]:
        opened = [branch for branch, closed in zip(self._branches, vector, strict=True) if not closed]
        return self.network.closed_vector(opened)

    def _candidate(
        self, interval: int, now: FeederNetwork, vector: Vector, loads: Loads
    ) -> tuple[FeederNetwork, Evidence]:
        """Return the best tree and its evidence; the search looks for others while the best ones are refused.

        If none is better than the tree in force without being refused, the best one comes with its refusal.
        """
        if self.method == "greedy":
            then = now.with_closed(greedy_tree(now))
            return then, self._evidence(interval, now, then, vector, loads)
        found: tuple[FeederNetwork, Evidence] | None = None
        limits = self.limits
        for _ in range(CANDIDATES):
            then = now.with_closed(search(now, constraints=limits).closed)
            if found and then.open_branches == now.open_branches:
                break  # nothing better is left
            evidence = self._evidence(interval, now, then, vector, loads)
            found = found or (then, evidence)
            if not evidence.refusal:
                return then, evidence
            limits = replace(limits, forbidden=(*limits.forbidden, then.open_branches))
        assert found is not None
        return found

    def _evidence(
        self, interval: int, now: FeederNetwork, then: FeederNetwork, vector: Vector, loads: Loads
    ) -> Evidence:
        """Return the figures of a candidate; what costs more is found out once its gain passes the threshold."""
        flows = radial_flow(now), radial_flow(then)
        gain = gain_percent(flows[0].losses_w, flows[1].losses_w)
        evidence = Evidence(interval, flows[0].losses_w, flows[1].losses_w, gain)
        if now.open_branches == then.open_branches or not gain > self.policy.trigger.threshold_percent:
            return evidence
        limits = self.limits
        sequence = plan_sequence(now, then.closed, limits)
        phases = tuple(
            solved_figures(self.phases, one, self._of_phases(loads.power_w), self._of_phases(loads.power_var), limits)
            for one in (vector, self.vector(then.open_branches))
        )
        evidence = replace(
            evidence,
            operations=tuple((step.action, step.branch) for step in sequence.steps),
            balanced=(balanced_figures(now, flows[0], limits), balanced_figures(then, flows[1], limits)),
            three_phase=(phases[0], phases[1]),
        )
        certain = np.zeros(2 * now.bus_count)
        known = expected_gain(now, then.closed, certain if loads.sigma is None else loads.sigma)
        risk: Risk | None = None
        if loads.sigma is not None:
            risk = limit_risk(now, then.closed, loads.sigma, limits, rng=np.random.default_rng(interval))
            evidence = replace(
                evidence,
                sigma_percent=known.sigma_percent,
                probability=known.probability,
                risk_now=risk.current,
                risk_then=risk.proposed,
            )
        worth = refusal(self.criterion, known, len(sequence.steps), risk)
        return replace(evidence, refusal=_broken(evidence) or worth or sequence.reason)

    def _of_phases(self, power: Floats) -> Floats:
        """Return the columns of the buses of the three-phase model: all but those behind a source's impedance."""
        place = {bus: k for k, bus in enumerate(self.network.bus_ids)}
        return power[:, [place[bus] for bus in self.phases.bus_ids]]


def _broken(evidence: Evidence) -> str:
    """Return which limit a candidate breaks worse than the tree in force, or nothing."""
    for name, figures in (("balanced", evidence.balanced), ("three-phase", evidence.three_phase)):
        assert figures is not None
        now, then = figures
        if then is None:
            return f"{name} load flow: no solution"
        if then.violation > (np.inf if now is None else now.violation) + SAME:
            return f"{name} load flow: {then.worst}"
    return ""
