"""Proof: a certified lower bound on the losses of every radial state, improving with time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from flexmeter.reconfiguration.network import BASE_VA, BoolArray, FeederNetwork, FloatArray
from flexmeter.reconfiguration.trees import ENUMERATION_LIMIT, best_tree, log10_tree_count

if TYPE_CHECKING:
    from flexmeter.reconfiguration.relaxation import Relaxation

# The solver's feasibility tolerance, as a share of the losses, taken off every bound.
SOLVER_TOLERANCE = 1e-6
INTEGRAL = 1e-6
PROGRESS = 1e-3
LAST_ROUNDS = 50


@dataclass(frozen=True)
class Bound:
    """What is proven so far.

    Attributes
    ----------
    lower_w : no radial state has smaller losses [W]; nan when no bound is known
    upper_w : losses of the best state known [W]
    method : enumeration, relaxation or none
    note : why there is no bound, or how it was found
    nodes : subproblems solved
    """

    lower_w: float
    upper_w: float
    method: Literal["enumeration", "relaxation", "none"]
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

    Up to `enumeration_limit` trees, all are solved by load flow: exact, export included. Beyond, branch and bound on
    a relaxation (see `Relaxation`) raises the bound until the gap is `gap_percent` or `seconds` have passed on
    `clock`. The relaxation needs loads only; where power is fed in (or a capacitor raises the voltage) the yielded
    bound says that none is known. Limits on voltage and current are left out: the bound holds with them, too.

    Parameters
    ----------
    closed, losses_w : the best state known and its losses [W]
    """
    exponent = log10_tree_count(network)
    if exponent <= np.log10(enumeration_limit):
        yield _by_enumeration(network, losses_w)
        return
    reason = relaxation_fails(network)
    if reason:
        yield Bound(np.nan, losses_w, "none", f"10^{exponent:.1f} trees and {reason}: no bound is known")
        return
    yield from _by_relaxation(network, closed, losses_w, clock, clock() + seconds, gap_percent)


def relaxation_fails(network: FeederNetwork) -> str:
    """Return why the relaxation is not a bound for this network, or nothing."""
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


def _by_relaxation(
    network: FeederNetwork,
    closed: BoolArray,
    losses_w: float,
    clock: Callable[[], float],
    deadline: float,
    gap_percent: float,
) -> Iterator[Bound]:
    """Best-first branch and bound; every open subproblem keeps its own bound, the least of them is proven."""
    from flexmeter.reconfiguration.relaxation import Relaxation  # noqa: PLC0415 - only proofs need the LP solver

    model = Relaxation(network, losses_w * (1 + SOLVER_TOLERANCE))
    enough = model.upper * (1.0 - gap_percent / 100.0)
    model.cut_at(closed)
    value, point = model.solve(12, enough, PROGRESS)
    queue: list[tuple[float, int, dict[int, float]]] = [(value, 0, {})]
    kept = {0: (point, model.basis())}
    settled, proven, nodes, serial = np.inf, -np.inf, 1, 0
    while queue:
        lower = min(queue[0][0], settled, model.upper)
        if lower > proven + 1e-5 * model.upper:
            proven = lower
            yield _bound(model, losses_w, proven, nodes)
        if proven >= enough or clock() >= deadline:
            return
        value, number, fixed = heapq.heappop(queue)
        point, basis = kept.pop(number)
        arc = _branching_arc(model, point)
        if arc < 0:
            # All decided, but more tangents may undo that: settled only when it stays so.
            _fix(model, fixed)
            model.start_from(basis)
            tighter, point = model.solve(LAST_ROUNDS, enough, 0.0)
            value = max(value, tighter)
            if value >= enough or _branching_arc(model, point) < 0:
                settled = min(settled, value)
            else:
                kept[number] = (point, model.basis())
                heapq.heappush(queue, (value, number, fixed))
            continue
        for side in (0.0, 1.0):
            child = {**fixed, arc: side}
            _fix(model, child)
            model.start_from(basis)
            value_there, there = model.solve(3, enough, PROGRESS)
            nodes += 1
            serial += 1
            bound = max(value, value_there)
            if bound >= enough:
                settled = min(settled, bound)
                continue
            kept[serial] = (there, model.basis())
            heapq.heappush(queue, (bound, serial, child))
    yield _bound(model, losses_w, min(settled, model.upper), nodes)


def _bound(model: Relaxation, losses_w: float, value: float, nodes: int) -> Bound:
    lower = value * model.scale * BASE_VA * (1.0 - SOLVER_TOLERANCE)
    note = "branch and bound on the tangent relaxation of the branch flow equations"
    return Bound(min(lower, losses_w), losses_w, "relaxation", note, nodes)


def _fix(model: Relaxation, fixed: dict[int, float]) -> None:
    """Set the bounds of x for a subproblem."""
    lower, upper = np.zeros(len(model.use)), np.ones(len(model.use))
    for arc, side in fixed.items():
        lower[arc] = upper[arc] = side
    model.solver.changeColsBounds(len(model.use), model.use.astype(np.int32), lower, upper)


def _branching_arc(model: Relaxation, point: FloatArray) -> int:
    """Choose the arc to decide next: where loops meet first, the largest undecided power; -1 = all decided."""
    if not len(point):
        return -1
    use = point[model.use]
    open_share = np.minimum(use, 1.0 - use)
    weight = open_share * (point[model.p] / np.maximum(use, INTEGRAL) + 1e-6)
    weight[open_share < INTEGRAL] = 0.0
    first = np.where(model.arcs.junction, weight, 0.0)
    chosen = first if first.max() > 0 else weight
    return int(np.argmax(chosen)) if chosen.max() > 0 else -1
