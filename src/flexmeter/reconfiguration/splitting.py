"""What a proof by splitting loops starts from: chains of branches, the flow of least losses, what comes on top of it.

The bound of a network in which some loops are open is the lossless flow of least losses, and what voltage drop and
losses on the way add at least (`docs/methods/reconfiguration.md`). The search over it is in `loopsearch.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, FloatArray, IntArray, merge
from flexmeter.reconfiguration.trees import bridges

# A loop without resistance has no least flow: its branches get this share of the largest resistance, and what that may
# add is taken off the bound.
SMALLEST_SHARE = 1e-7
IN_A_LOOP = 1e-5
RATIOS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)


class Loops(NamedTuple):
    """The branches that lie in loops, grouped into chains (series connections without a junction).

    `branch` (m,) positions, `chain` (m,) their chain, `free` (m,) may be opened, `p`, `q` (m,) the flow of least losses
    along the chain [pu]; `start`, `end` (c,) the junctions of a chain, `answer` (c, c) the matrix H of `least_flow` for
    the chains; a chain is in a loop when its own entry is above `least`.
    """

    branch: IntArray
    chain: IntArray
    free: BoolArray
    p: FloatArray
    q: FloatArray
    start: IntArray
    end: IntArray
    answer: FloatArray
    least: float


class Extra(NamedTuple):
    """How much the losses of a tree exceed the lossless ones Y = sum r (P^2 + Q^2) at least.

    Y_P^2 `of_p` + R^2 `of_r` + `constant`, with Y_P = sum r P^2 and R = sum r P Q.
    """

    of_p: float
    of_r: float
    constant: float


@dataclass(frozen=True, eq=False)
class Splitting:
    """A network ready to be searched: its loops, least lossless losses (P, Q, P + Q) and what comes on top of them."""

    network: FeederNetwork
    loops: Loops
    y: FloatArray
    extra: Extra
    depth: int


def prepare_splitting(network: FeederNetwork) -> Splitting:
    """Return the search of a network with loads only, without shunts, r and x not negative."""
    feeder = network.feeder
    node = merge(network, np.zeros(network.branch_count, dtype=np.bool_))[0]
    start, end = node[feeder.from_bus], node[feeder.to_bus]
    used = np.flatnonzero(network.closable & (start != end))
    looped = used[~bridges(start, end, network.closable)[used]]
    # Where V^2 is at most `highest`, a branch loses at least r / highest times the square of its power.
    highest = float(feeder.slack_v[feeder.slack].max()) ** 2
    r, x = feeder.r / highest, feeder.x / highest
    p, q = network.s_pu
    raised, error = _raised(network, node, used, r)
    flow, answer = least_flow(network, node, used, raised, p + 1j * q)
    parts = ((flow.real, p), (flow.imag, q), (flow.real + flow.imag, p + q))
    y = np.array([(raised[used] * part**2).sum() - error * load.sum() ** 2 for part, load in parts])
    kept = np.searchsorted(used, looped)
    loops = _loops(network, node, looped, flow[kept], answer[np.ix_(kept, kept)], raised)
    depth = len(used) - len(np.unique(node)) + 1
    return Splitting(network, loops, np.maximum(y, 0.0), _extra(network, node, used, r, x), depth)


def _raised(network: FeederNetwork, node: IntArray, used: IntArray, r: FloatArray) -> tuple[FloatArray, float]:
    """Return resistances of which no loop is without, and by how much that raises sum r f^2 per square of all load."""
    without = np.zeros(network.branch_count, dtype=np.bool_)
    without[used] = r[used] <= 0
    if not merge(network, without)[1]:
        return r, 0.0
    least = float(r[used].max()) * SMALLEST_SHARE
    return np.where(without, least, r), least * int(without.sum())


def least_flow(
    network: FeederNetwork, node: IntArray, used: IntArray, r: FloatArray, load: np.ndarray
) -> tuple[np.ndarray, FloatArray]:
    """Return the flow of least sum r |f|^2 in the closed network, (u,), and H = C (C^T R C)^-1 C^T, with C its loops.

    Forcing f_e to zero raises the sum by |f_e|^2 / H_ee and changes the flow by -H_.e f_e / H_ee.
    """
    way = _ways(network, node, used)
    start, end = node[network.feeder.from_bus[used]], node[network.feeder.to_bus[used]]
    # Along the tree to the start, over the branch, back from the end: nothing is left of a branch of the tree itself.
    loops = way[start] - way[end] + np.eye(len(used))
    loops = loops[np.abs(loops).max(axis=1) > 0].T
    total = np.zeros(network.bus_count, dtype=load.dtype)
    np.add.at(total, node, load)
    flow = way.T @ total
    ohm = r[used][:, None]
    answer = loops @ np.linalg.solve(loops.T @ (ohm * loops), loops.T)
    return flow - answer @ (ohm[:, 0] * flow), answer


def _ways(network: FeederNetwork, node: IntArray, used: IntArray) -> FloatArray:
    """Return the way from the substations to every node in some tree, (n, u): +1 along a branch, -1 against it."""
    start, end = node[network.feeder.from_bus[used]].tolist(), node[network.feeder.to_bus[used]].tolist()
    at: dict[int, list[int]] = {}
    for e, (a, b) in enumerate(zip(start, end, strict=True)):
        at.setdefault(a, []).append(e)
        at.setdefault(b, []).append(e)
    way = np.zeros((network.bus_count, len(used)))
    root = int(node[network.slack_buses[0]])
    queue, seen = [root], {root}
    for here in queue:
        for e in at.get(here, []):
            there = end[e] if start[e] == here else start[e]
            if there not in seen:
                seen.add(there)
                queue.append(there)
                way[there] = way[here]
                way[there, e] = 1.0 if start[e] == here else -1.0
    return way


def _extra(network: FeederNetwork, node: IntArray, used: IntArray, r: FloatArray, x: FloatArray) -> Extra:
    """Return the bounds of what voltage drop and losses on the way add (derivation in the method's page)."""
    p, q = network.s_pu
    fed = node != node[network.slack_buses[0]]
    p, q = np.where(fed, p, 0.0), np.where(fed, q, 0.0)
    mu = min(q.sum() / p.sum(), 1.0)
    mean, error = _raised(network, node, used, np.sqrt(r * x))
    constant = 0.0
    for tau in RATIOS:
        part = np.minimum(q, p / tau)
        if part.any():
            flow = least_flow(network, node, used, mean, part)[0]
            least = max(float((mean[used] * flow**2).sum()) - error * float(part.sum()) ** 2, 0.0)
            constant = max(constant, 2 * (1 + tau**2) * least**2 / float(part.sum()))
    of_r = 4 * mu / float(q.sum()) if q.any() else 0.0
    return Extra(2 * (1 - mu**2) / float(p.sum()), of_r, constant)


def _loops(
    network: FeederNetwork, node: IntArray, looped: IntArray, flow: np.ndarray, answer: FloatArray, r: FloatArray
) -> Loops:
    """Group the branches into chains and turn their flows along them."""
    start, end = node[network.feeder.from_bus[looped]], node[network.feeder.to_bus[looped]]
    at: dict[int, list[int]] = {}
    for e, (a, b) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        at.setdefault(a, []).append(e)
        at.setdefault(b, []).append(e)
    chain, sign = np.full(len(looped), -1), np.zeros(len(looped))
    first: list[int] = []
    last: list[int] = []
    lead: list[int] = []
    junctions = [bus for bus, here in at.items() if len(here) != 2]
    for bus in [*junctions, *at]:
        for e in at[bus]:
            if chain[e] >= 0:
                continue
            here, edge = bus, e
            while chain[edge] < 0:
                chain[edge], sign[edge] = len(first), 1.0 if start[edge] == here else -1.0
                here = int(end[edge] if start[edge] == here else start[edge])
                if len(at[here]) == 2:
                    edge = at[here][0] if at[here][1] == edge else at[here][1]
            first.append(bus)
            last.append(here)
            lead.append(e)
    names = {bus: k for k, bus in enumerate(dict.fromkeys([*first, *last]))}
    turned = flow * sign
    lead_sign = sign[lead]
    return Loops(
        branch=looped,
        chain=chain,
        free=network.switchable[looped],
        p=np.ascontiguousarray(turned.real),
        q=np.ascontiguousarray(turned.imag),
        start=np.array([names[bus] for bus in first]),
        end=np.array([names[bus] for bus in last]),
        answer=np.ascontiguousarray(answer[np.ix_(lead, lead)] * np.outer(lead_sign, lead_sign)),
        least=IN_A_LOOP / float(r[looped].sum()) if len(looped) else 0.0,
    )
