"""Switching sequences: from one radial state to another without interrupting anybody."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from flexmeter.errors import DidNotConverge
from flexmeter.reconfiguration.flow import StateFlow, check_radial, meshed_flow
from flexmeter.reconfiguration.goals import Constraints
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, merge

# Orders are searched completely up to this many evaluated states, then the plan found so far must do.
STATE_LIMIT = 600


@dataclass(frozen=True)
class Step:
    """One switching operation and the state after it.

    Attributes
    ----------
    action : "close" or "open"
    branch : what is operated
    losses_w : losses after it [W]
    v_min_pu, v_max_pu : voltages after it
    loading : largest current over rating after it, 0 without ratings
    violation : volts [pu] outside the band plus relative overloads, 0 = within limits
    across_pu, across_deg : voltage magnitude difference and angle across the open switch before it is closed
    loop_current_a : current through the branch after closing or before opening [A]
    """

    action: str
    branch: str
    losses_w: float
    v_min_pu: float
    v_max_pu: float
    loading: float
    violation: float
    across_pu: float
    across_deg: float
    loop_current_a: float


@dataclass(frozen=True)
class Sequence:
    """An order of operations; `accepted` when no step breaks a limit (more than the start already did)."""

    steps: tuple[Step, ...]
    accepted: bool
    reason: str

    @property
    def operations(self) -> int:
        """Number of switching operations."""
        return len(self.steps)


@dataclass(frozen=True)
class _State:
    flow: StateFlow | None
    violation: float
    loading: float


class _States:
    """Load flows of intermediate states, solved once each."""

    def __init__(self, network: FeederNetwork, constraints: Constraints) -> None:
        self.network, self.constraints = network, constraints
        self.known: dict[bytes, _State] = {}

    def at(self, closed: BoolArray) -> _State:
        key = closed.tobytes()
        if key not in self.known:
            self.known[key] = self._solve(closed)
        return self.known[key]

    def _solve(self, closed: BoolArray) -> _State:
        try:
            flow = meshed_flow(self.network, closed)
        except DidNotConverge:
            return _State(None, np.inf, np.inf)
        violation, loading = violation_of(self.network, flow, self.constraints)
        return _State(flow, violation, loading)


def violation_of(network: FeederNetwork, flow: StateFlow, constraints: Constraints) -> tuple[float, float]:
    """Return how far a state breaks voltage band and ratings, and the largest current over rating.

    Buses without supply count with neither.
    """
    v = np.abs(flow.voltage_pu[~np.isnan(flow.voltage_pu)])
    outside = np.maximum(constraints.v_min_pu - v, 0.0) + np.maximum(v - constraints.v_max_pu, 0.0)
    loading = np.nan_to_num(np.abs(flow.current_a) / network.rated_current_a)
    overload = np.maximum(loading - 1.0, 0.0).sum() if constraints.ratings else 0.0
    return float(outside.sum() + overload), float(loading.max(initial=0.0))


def plan_sequence(network: FeederNetwork, target: BoolArray, constraints: Constraints | None = None) -> Sequence:
    """Return the best order of operations from the network's radial state to another one.

    Make before break: every step closes one branch and then opens one of the loop it made, so that nobody is
    without supply and at most one loop exists at a time. Every intermediate state, the temporary loop included, is
    solved by load flow; among the orders within limits the one with the least largest loading is chosen. The first
    step must not add to violations of the present state.

    Raises
    ------
    NotRadial
        One of both states is not radial.
    """
    limits = constraints or Constraints()
    check_radial(network, network.closed)
    check_radial(network, target)
    to_close = np.flatnonzero(target & ~network.closed)
    to_open = np.flatnonzero(network.closed & ~target)
    states = _States(network, limits)
    order = _best_order(network, states, to_close, to_open)
    closed = network.closed.copy()
    allowed = states.at(closed).violation + 1e-9
    steps = []
    for branch in order:
        before = states.at(closed.copy())
        closed[branch] = not closed[branch]
        steps.append(_step(network, states, before, closed.copy(), branch))
    broken = [step for step in steps if step.violation > allowed]
    reason = f"{broken[0].action} {broken[0].branch} breaks a limit" if broken else ""
    return Sequence(tuple(steps), not broken, reason)


def _best_order(network: FeederNetwork, states: _States, to_close: np.ndarray, to_open: np.ndarray) -> list[int]:
    """Search the orders of close-open pairs: least violation first, then least largest loading."""
    start = (frozenset[int](), frozenset[int]())
    allowed = states.at(network.closed).violation
    queue: list[tuple[float, float, int, int, list[int]]] = [(0.0, 0.0, 0, 0, [])]
    done: set[tuple[frozenset[int], frozenset[int]]] = set()
    serial = 0
    parts = {0: start}
    while queue:
        excess, loading, _, number, order = heapq.heappop(queue)
        closes, opens = parts.pop(number)
        if (closes, opens) in done:
            continue
        done.add((closes, opens))
        if len(closes) == len(to_close):
            return order
        # Past the limit the most advanced order is pursued: a plan, though maybe not the best.
        hurry = len(states.known) > STATE_LIMIT
        for close, opened in _pairs(network, to_close, to_open, closes, opens):
            closed = network.closed.copy()
            closed[[*closes, close]] = True
            closed[list(opens)] = False
            loop = states.at(closed.copy())
            closed[opened] = False
            after = states.at(closed)
            serial += 1
            parts[serial] = (closes | {close}, opens | {opened})
            worst = max(excess, loop.violation - allowed, after.violation - allowed)
            item = (max(worst, 0.0), max(loading, loop.loading, after.loading), -len(order), serial)
            heapq.heappush(queue, (*item, [*order, close, opened]))
            if hurry:
                break
    return []


def _pairs(
    network: FeederNetwork,
    to_close: np.ndarray,
    to_open: np.ndarray,
    closes: frozenset[int],
    opens: frozenset[int],
) -> list[tuple[int, int]]:
    """Close-open pairs that keep the state radial."""
    pairs = []
    for close in (int(b) for b in to_close if int(b) not in closes):
        for opened in (int(b) for b in to_open if int(b) not in opens):
            closed = network.closed.copy()
            closed[[*closes, close]] = True
            closed[[*opens, opened]] = False
            if not merge(network, closed)[1]:
                pairs.append((close, opened))
    return pairs


def _step(network: FeederNetwork, states: _States, before: _State, closed: BoolArray, branch: int) -> Step:
    after = states.at(closed)
    closing = bool(closed[branch])
    carried = after if closing else before
    across = 0j
    angle = 0.0
    if closing and before.flow is not None:
        start, end = before.flow.voltage_pu[network.from_bus[branch]], before.flow.voltage_pu[network.to_bus[branch]]
        start = start / network.ratio[branch]
        across = complex(abs(start) - abs(end))
        angle = float(np.degrees(np.angle(start / end)))
    voltages = np.array([np.nan]) if after.flow is None else np.abs(after.flow.voltage_pu)
    return Step(
        action="close" if closing else "open",
        branch=network.branch_ids[branch],
        losses_w=np.inf if after.flow is None else after.flow.losses_w,
        v_min_pu=float(np.nanmin(voltages)) if after.flow is not None else np.nan,
        v_max_pu=float(np.nanmax(voltages)) if after.flow is not None else np.nan,
        loading=after.loading,
        violation=after.violation,
        across_pu=abs(across),
        across_deg=angle,
        loop_current_a=np.nan if carried.flow is None else float(abs(carried.flow.current_a[branch])),
    )
