"""Proof: a certified lower bound on the losses of every radial state, improving with time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from flexmeter.reconfiguration.flow import check_radial
from flexmeter.reconfiguration.loopsearch import least_losses, new_search, run
from flexmeter.reconfiguration.network import BASE_VA, BoolArray, FeederNetwork
from flexmeter.reconfiguration.splitting import prepare_splitting
from flexmeter.reconfiguration.sweep import radial_losses
from flexmeter.reconfiguration.trees import ENUMERATION_LIMIT, best_tree, log10_tree_count

# Rounding of the bounds' sums, as a share of the losses.
ROUNDING = 1e-9
NODES_AT_ONCE = 20_000
# So many trees are solved within a second.
QUICK = 100_000


@dataclass(frozen=True)
class Bound:
    """What is proven so far.

    Attributes
    ----------
    lower_w : no radial state has smaller losses [W]; nan when no bound is known
    upper_w : losses of the best state known [W]
    method : enumeration, splitting or none
    note : why there is no bound, or how it was found
    nodes : subproblems solved
    """

    lower_w: float
    upper_w: float
    method: Literal["enumeration", "splitting", "none"]
    note: str
    nodes: int = 0

    @property
    def gap_percent(self) -> float:
        """(upper - lower) / upper [percent]; 0 = the best state is proven optimal."""
        return max(0.0, (self.upper_w - self.lower_w) / self.upper_w * 100.0) if self.upper_w > 0 else 0.0


def prove(
    network: FeederNetwork,
    closed: BoolArray,
    losses_w: float,
    *,
    clock: Callable[[], float],
    seconds: float = 30.0,
    gap_percent: float = 0.01,
    enumeration_limit: int = ENUMERATION_LIMIT,
) -> Iterator[Bound]:
    """Yield bounds on the losses of all radial states, each better than the one before.

    Few trees are all solved by load flow: exact, export included. Of many, branch and bound (see `loopsearch`) raises
    the bound until the gap is `gap_percent` or `seconds` have passed on `clock`. It needs loads only; where power is
    fed in (or a capacitor raises the voltage) up to `enumeration_limit` trees are solved, and beyond the yielded bound
    says that none is known. Limits on voltage and current are left out: the bound holds with them, too.

    Parameters
    ----------
    closed, losses_w : the best state known and its losses [W]
    """
    exponent, reason = log10_tree_count(network), splitting_fails(network)
    if exponent <= np.log10(enumeration_limit if reason else min(enumeration_limit, QUICK)):
        yield _by_enumeration(network, losses_w)
        return
    if reason:
        yield Bound(np.nan, losses_w, "none", f"10^{exponent:.1f} trees and {reason}: no bound is known")
        return
    yield from _by_splitting(network, closed, clock, clock() + seconds, gap_percent)


def splitting_fails(network: FeederNetwork) -> str:
    """Return why losses are not bounded from below by splitting in this network, or nothing."""
    if (network.p_w < 0).any() or (network.q_var < 0).any():
        return "power is fed in at some bus"
    if (network.charging_s > 0).any() or (network.shunt_b_s != 0).any() or (network.shunt_g_s != 0).any():
        return "there are shunts"
    if (network.x_ohm < 0).any() or (network.ratio != 1).any():
        return "there are series capacitors or transformers off nominal ratio"
    if not network.p_w.any():
        return "there is no load"
    return ""


def _by_enumeration(network: FeederNetwork, losses_w: float) -> Bound:
    best = best_tree(network, network.p_w, network.q_var, limit=2**62)
    lower = float(best.losses_w[0])
    note = "all radial states solved by load flow; best: open " + ", ".join(network.names_of(~best.closed[0]))
    return Bound(min(lower, losses_w), min(losses_w, max(losses_w, lower)), "enumeration", note)


def _by_splitting(
    network: FeederNetwork, closed: BoolArray, clock: Callable[[], float], deadline: float, gap_percent: float
) -> Iterator[Bound]:
    """Raise the limit below which no state exists; parts that only meet at substations are proven apart."""
    check_radial(network, closed)
    parts = [_Part(part, state) for part, state in parts_of(network, closed)]
    losses = sum(part.losses for part in parts)
    gap, goal = max(0.0, 1.0 - sum(part.lower for part in parts) / losses), gap_percent / 100.0 * (1.0 - 1e-6)
    while True:
        yield Bound(
            lower_w=min(sum(part.lower for part in parts), losses) * BASE_VA,
            upper_w=losses * BASE_VA,
            method="splitting",
            note="all states with a smaller bound were searched, loop after loop",
            nodes=sum(part.nodes for part in parts),
        )
        if gap <= goal:
            return
        gap = gap / 4.0 if gap > 6.0 * goal else goal
        for part in parts:
            if not part.search_below(part.losses * (1.0 - gap), clock, deadline):
                return


class _Part:
    """A part of the network that only meets the others at substations, with what is proven of it [pu]."""

    def __init__(self, network: FeederNetwork, closed: BoolArray) -> None:
        self.network = network
        self.p, self.q = network.s_pu
        self.losses = float(radial_losses(network.feeder, closed[None], self.p[None], self.q[None])[0, 0])
        self.splitting = prepare_splitting(network) if self.losses > 0 else None
        self.nodes = 0
        self.lower = self.losses
        self.settled = False  # the best state of this part is known
        if self.splitting is not None and self.splitting.depth > 0:
            self.lower = min(float(least_losses(self.splitting.extra, *self.splitting.y)), self.losses)

    def search_below(self, limit: float, clock: Callable[[], float], deadline: float) -> bool:
        """Meet all states whose bound is below a limit; return whether there was time to."""
        if self.splitting is None or self.settled or limit <= self.lower:
            return True
        search, done = new_search(self.splitting), False
        while not done:
            if clock() >= deadline:
                return False
            done = run(
                self.network.feeder, self.network.closable, self.p, self.q,
                self.splitting.loops, self.splitting.extra, search, limit, NODES_AT_ONCE,
            )  # fmt: skip
        self.nodes += int(search.where[2])
        best = float(search.best[0])
        self.lower, self.settled = min(limit * (1.0 - ROUNDING), best), best < limit
        return True


def parts_of(network: FeederNetwork, closed: BoolArray) -> list[tuple[FeederNetwork, BoolArray]]:
    """Divide a network, and a state of it, into parts that only meet at substations: their losses add up."""
    slack = np.zeros(network.bus_count, dtype=np.bool_)
    slack[network.slack_buses] = True
    inner = network.closable & ~slack[network.from_bus] & ~slack[network.to_bus]
    ends = (network.from_bus[inner], network.to_bus[inner])
    graph = csr_matrix((np.ones(len(ends[0])), ends), (network.bus_count, network.bus_count))
    group = connected_components(graph, directed=False)[1]
    parts = []
    for number in np.unique(group[~slack]):
        bus = (group == number) | slack
        branch = network.closable & bus[network.from_bus] & bus[network.to_bus]
        branch &= ~(slack[network.from_bus] & slack[network.to_bus])
        parts.append((_cut_out(network, bus, branch), closed[branch]))
    return parts


def _cut_out(network: FeederNetwork, bus: BoolArray, branch: BoolArray) -> FeederNetwork:
    """Return the chosen buses and branches as a network."""
    row = np.cumsum(bus) - 1
    by_bus = ("nominal_voltage_v", "p_w", "q_var", "shunt_g_s", "shunt_b_s")
    by_branch = ("r_ohm", "x_ohm", "charging_s", "ratio", "rated_current_a", "switchable", "closed")
    return replace(
        network,
        bus_ids=tuple(network.bus_ids[k] for k in np.flatnonzero(bus)),
        branch_ids=network.names_of(branch),
        kind=tuple(network.kind[k] for k in np.flatnonzero(branch)),
        slack_buses=row[network.slack_buses],
        from_bus=row[network.from_bus[branch]],
        to_bus=row[network.to_bus[branch]],
        **{name: getattr(network, name)[bus] for name in by_bus},
        **{name: getattr(network, name)[branch] for name in by_branch},
    )
