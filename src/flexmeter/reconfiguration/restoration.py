"""Service restoration: after the loss of lines or a substation, feed as much load again with few operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flexmeter.errors import DidNotConverge, Finding, GridError
from flexmeter.reconfiguration.flow import meshed_flow
from flexmeter.reconfiguration.goals import Constraints
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, IntArray, merge
from flexmeter.reconfiguration.sequence import violation_of

WIDTH = 16
LOOP_SAMPLES = 6

Operation = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Restoration:
    """What can be fed again and how.

    Attributes
    ----------
    operations : ("open" or "close", branch) in the order to carry out
    closed : (m,) state after them, lost branches open
    lost_w : load without supply right after the loss [W]
    restored_w, unserved_w : load fed again and load that stays without supply [W]
    unserved_buses : buses with load that stay without supply
    unreachable_buses : those of them that no switching can reach
    losses_w : losses after restoration [W]
    """

    operations: tuple[tuple[str, str], ...]
    closed: BoolArray
    lost_w: float
    restored_w: float
    unserved_w: float
    unserved_buses: tuple[str, ...]
    unreachable_buses: tuple[str, ...]
    losses_w: float


@dataclass(frozen=True, eq=False)
class _State:
    closed: BoolArray
    fed: BoolArray
    unserved_w: float
    violation: float
    losses_w: float
    operations: tuple[Operation, ...]

    @property
    def rank(self) -> tuple[bool, float, float, float]:
        return (self.violation > 1e-9, self.unserved_w, self.violation, self.losses_w)


def restore(
    network: FeederNetwork,
    lost_branches: Sequence[str] = (),
    lost_buses: Sequence[str] = (),
    constraints: Constraints | None = None,
    *,
    max_operations: int = 8,
) -> Restoration:
    """Restore the most load with the fewest operations, then the least losses.

    Lost branches stay open, a lost bus takes its branches with it (a lost substation its infeed). Beam search over
    numbers of operations: close a tie to a part without supply; split that part first where all of it would break a
    limit; move load between energised feeders to make room. Only states within the limits are results. Loads count
    at their consumption; generation is no load.

    Raises
    ------
    GridError
        A lost branch or bus does not exist.
    DidNotConverge
        What is still fed right after the loss has no load flow.
    """
    limits = constraints or Constraints()
    damaged, gone = _damaged(network, lost_branches, lost_buses)
    load = np.maximum(network.p_w, 0.0)
    load[gone] = 0.0
    first = _evaluate(damaged, damaged.closed, load, limits, ())
    if first is None:
        raise DidNotConverge(f"{network.name}: load flow", 0, np.inf, "the state right after the loss")
    reach = _fed(damaged, damaged.closable)
    least = float(load[~reach].sum())
    best = _beam(damaged, first, load, limits, max_operations, least)
    dead = ~best.fed & (load > 0)
    lost_w = first.unserved_w
    return Restoration(
        operations=tuple((action, network.branch_ids[branch]) for action, branch in best.operations),
        closed=best.closed,
        lost_w=lost_w,
        restored_w=lost_w - best.unserved_w,
        unserved_w=best.unserved_w,
        unserved_buses=tuple(network.bus_ids[i] for i in np.flatnonzero(dead)),
        unreachable_buses=tuple(network.bus_ids[i] for i in np.flatnonzero(~reach & (load > 0))),
        losses_w=best.losses_w,
    )


def _damaged(
    network: FeederNetwork, lost_branches: Sequence[str], lost_buses: Sequence[str]
) -> tuple[FeederNetwork, IntArray]:
    """Return the network without what was lost, and the positions of the lost buses."""
    position = {bus: i for i, bus in enumerate(network.bus_ids)}
    known = set(network.branch_ids)
    findings = [Finding("branch", (b,), "lost", "does not exist") for b in lost_branches if b not in known]
    findings += [Finding("bus", (b,), "lost", "does not exist") for b in lost_buses if b not in position]
    if findings:
        raise GridError(findings, network.name)
    gone = np.array([position[bus] for bus in lost_buses], dtype=np.int64)
    lost = np.isin(network.branch_ids, np.array(lost_branches, dtype=str))
    lost |= np.isin(network.from_bus, gone) | np.isin(network.to_bus, gone)
    alive = ~np.isin(network.slack_buses, gone)
    damaged = replace(
        network,
        closed=network.closed & ~lost,
        switchable=network.switchable & ~lost,
        slack_buses=network.slack_buses[alive],
        slack_voltage_v=network.slack_voltage_v[alive],
    )
    return damaged, gone


def _fed(network: FeederNetwork, closed: BoolArray) -> BoolArray:
    """Mark the buses that some substation reaches, (n,)."""
    if not len(network.slack_buses):
        return np.zeros(network.bus_count, dtype=np.bool_)
    group = merge(network, closed)[0]
    return np.asarray(group == group[network.slack_buses[0]])


def _evaluate(
    network: FeederNetwork, closed: BoolArray, load: np.ndarray, limits: Constraints, operations: tuple[Operation, ...]
) -> _State | None:
    """Solve a state in which some buses may be without supply; `None` when it has no solution."""
    fed = _fed(network, closed)
    unserved = float(load[~fed].sum())
    if not fed.any():
        return _State(closed, fed, unserved, 0.0, 0.0, operations)
    try:
        flow = meshed_flow(network, closed)
    except DidNotConverge:
        return None
    return _State(closed, fed, unserved, violation_of(network, flow, limits)[0], flow.losses_w, operations)


def _beam(
    network: FeederNetwork, first: _State, load: np.ndarray, limits: Constraints, most: int, least_w: float
) -> _State:
    """Keep the best states of every number of operations; return the best within limits."""
    best = first
    levels: list[dict[bytes, _State]] = [{} for _ in range(most + 3)]
    levels[0][first.closed.tobytes()] = first
    for count in range(most + 1):
        states = sorted(levels[count].values(), key=lambda state: state.rank)
        for state in states:
            if state.violation <= max(1e-9, first.violation) and state.unserved_w < best.unserved_w - 1e-6:
                best = state
        if best.unserved_w <= least_w + 1e-6:
            break
        for state in states[:WIDTH]:
            for operations in _moves(network, state):
                closed = state.closed.copy()
                for action, branch in operations:
                    closed[branch] = action == "close"
                found = _evaluate(network, closed, load, limits, state.operations + operations)
                if found is not None:
                    levels[count + len(operations)].setdefault(closed.tobytes(), found)
    return best


def _moves(network: FeederNetwork, state: _State) -> Iterator[tuple[Operation, ...]]:
    """Operations that may help: feed a dead part, feed half of it, or relieve an overloaded energised part."""
    ties = np.flatnonzero(~state.closed & network.switchable)
    start, end = state.fed[network.from_bus[ties]], state.fed[network.to_bus[ties]]
    part = merge(network, state.closed)[0]
    for tie in ties[start != end].tolist():
        yield (("close", tie),)
        dead = network.to_bus[tie] if state.fed[network.from_bus[tie]] else network.from_bus[tie]
        inside = state.closed & network.switchable & (part[network.from_bus] == part[dead])
        for branch in np.flatnonzero(inside).tolist():
            yield (("open", branch), ("close", tie))
    if state.violation <= 1e-9:
        return
    for tie in ties[start & end].tolist():
        loop = [branch for branch in _loop(network, state.closed, tie) if network.switchable[branch]]
        for branch in loop[:: max(1, len(loop) // LOOP_SAMPLES)]:
            yield (("close", tie), ("open", branch))


def _loop(network: FeederNetwork, closed: BoolArray, tie: int) -> list[int]:
    """Branches on the tree path between the ends of a tie; substations count as joined."""
    upstream: dict[int, tuple[int, int]] = {int(bus): (-1, -1) for bus in network.slack_buses}
    queue = list(upstream)
    feeder = network.feeder
    for bus in queue:
        for at in range(feeder.ptr[bus], feeder.ptr[bus + 1]):
            other, branch = int(feeder.neighbour[at]), int(feeder.via[at])
            if closed[branch] and other not in upstream:
                upstream[other] = (bus, branch)
                queue.append(other)
    ways = []
    for end in (int(network.from_bus[tie]), int(network.to_bus[tie])):
        bus, way = end, []
        while upstream[bus][0] >= 0:
            way.append(upstream[bus][1])
            bus = upstream[bus][0]
        ways.append(way)
    common = set(ways[0]) & set(ways[1])
    return [branch for way in ways for branch in way if branch not in common]
