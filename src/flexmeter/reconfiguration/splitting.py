"""Proof by splitting: all radial states whose losses could be below a limit, by bounds of microseconds.

Openings are decided one loop after the other. The bound is the lossless flow of least losses in the network that is
still meshed, and what voltage drop and losses on the way add at least (`docs/methods/reconfiguration.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flexmeter.powerflow.lanes import kernel
from flexmeter.reconfiguration.network import BoolArray, Feeder, FeederNetwork, FloatArray, IntArray, merge
from flexmeter.reconfiguration.sweep import Tree, flat, losses, new_flow, new_tree, plant, sweep
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


class Search(NamedTuple):
    """The state of a depth-first search, one row per depth, so that it can be interrupted.

    `where` holds depth, whether to expand, nodes, leaves; `best` the least losses of a complete state met.
    """

    where: IntArray
    best: FloatArray
    p: FloatArray
    q: FloatArray
    answer: FloatArray
    state: IntArray
    found: IntArray
    bound: FloatArray
    listed: IntArray
    place: IntArray
    y: FloatArray


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


def new_search(splitting: Splitting) -> Search:
    """Return a search at its beginning."""
    loops, rows = splitting.loops, splitting.depth + 1
    m, c = len(loops.branch), len(loops.start)
    search = Search(
        where=np.array([0, 1, 0, 0]),
        best=np.array([np.inf]),
        p=np.zeros((rows, m)),
        q=np.zeros((rows, m)),
        answer=np.zeros((rows, c, c)),
        state=np.zeros((rows, m), dtype=np.int64),
        found=np.zeros((rows, m), dtype=np.int64),
        bound=np.zeros((rows, m)),
        listed=np.zeros(rows, dtype=np.int64),
        place=np.zeros(rows, dtype=np.int64),
        y=np.zeros((rows, 3)),
    )
    search.p[0], search.q[0], search.answer[0], search.y[0] = loops.p, loops.q, loops.answer, splitting.y
    return search


UNDECIDED, SHUT, OPEN = 0, 1, 2
NEVER = 1e18
ROUNDS = 4


@kernel
def least_losses(extra: Extra, y_p: float, y_q: float, y_sum: float) -> float:
    """Return what the losses of a tree are at least when its lossless sums are at least these."""
    y = y_p + y_q
    r = max(0.5 * (y_sum - y), 0.0)
    # With a larger y the tree may have a smaller R: the bound must not fall by more than y rises.
    if extra.of_r * r > 1.0:
        r = 0.0
    return y + extra.of_p * y_p * y_p + extra.of_r * r * r + extra.constant


@kernel
def _costs(loops: Loops, search: Search, d: int, cost: FloatArray, least: FloatArray) -> None:
    """Set what it costs to open each branch, and the least of each chain; -1 where a chain lies in no loop."""
    for c in range(least.size):
        least[c] = NEVER if search.answer[d, c, c] > loops.least else -1.0
    for e in range(cost.size):
        c = loops.chain[e]
        if least[c] < 0.0:
            continue
        cost[e] = NEVER
        if loops.free[e] and search.state[d, e] == UNDECIDED:
            cost[e] = (search.p[d, e] ** 2 + search.q[d, e] ** 2) / search.answer[d, c, c]
            least[c] = min(least[c], cost[e])


@kernel
def _dearest_loop(loops: Loops, least: FloatArray, inside: BoolArray) -> bool:
    """Mark the chains of the loop whose cheapest opening costs most; return whether there is a loop at all."""
    chains = least.size
    nodes = 0
    for c in range(chains):
        nodes = max(nodes, loops.start[c] + 1, loops.end[c] + 1)
    group = np.arange(nodes)
    via = np.full(nodes, -1, np.int64)
    up = np.full(nodes, -1, np.int64)
    order = np.argsort(-least)
    for k in range(chains):
        c = order[k]
        inside[c] = False
    for k in range(chains):
        c = order[k]
        if least[c] < 0.0:
            return False
        a, b = loops.start[c], loops.end[c]
        if group[a] == group[b]:
            inside[c] = True
            _mark_path(loops, up, via, a, b, inside)
            return True
        old, new = group[a], group[b]
        for node in range(nodes):
            if group[node] == old:
                group[node] = new
        # Hang the tree of a below b: turn the links on the way from a to its root.
        before, link, here = b, c, a
        while here >= 0:
            following, next_link = up[here], via[here]
            up[here], via[here] = before, link
            before, link, here = here, next_link, following
    return False


@kernel
def _mark_path(loops: Loops, up: IntArray, via: IntArray, a: int, b: int, inside: BoolArray) -> None:
    """Mark the chains between two nodes of a tree given by its upward links."""
    here = a
    while here >= 0 and via[here] >= 0:
        inside[via[here]] = not inside[via[here]]
        here = up[here]
    here = b
    while here >= 0 and via[here] >= 0:
        inside[via[here]] = not inside[via[here]]
        here = up[here]


@kernel
def _expand(loops: Loops, extra: Extra, search: Search, d: int, limit: float, cost: FloatArray) -> int:
    """List the openings of one loop whose bound is below the limit, cheapest first; return how many."""
    chains = loops.start.size
    least = np.empty(chains)
    inside = np.zeros(chains, np.bool_)
    _costs(loops, search, d, cost, least)
    if not _dearest_loop(loops, least, inside):
        return 0
    count = 0
    for e in range(cost.size):
        c = loops.chain[e]
        if not inside[c] or cost[e] >= NEVER:
            continue
        h, p, q = search.answer[d, c, c], search.p[d, e], search.q[d, e]
        bound = least_losses(
            extra, search.y[d, 0] + p * p / h, search.y[d, 1] + q * q / h, search.y[d, 2] + (p + q) ** 2 / h
        )
        if bound >= limit:
            continue
        k = count
        while k > 0 and search.bound[d, k - 1] > bound:
            search.bound[d, k], search.found[d, k] = search.bound[d, k - 1], search.found[d, k - 1]
            k -= 1
        search.bound[d, k], search.found[d, k] = bound, e
        count += 1
    return count


@kernel
def _open(loops: Loops, search: Search, d: int, number: int, last: bool) -> None:
    """Set the row below: branch `number` of the list open, those before it closed for good."""
    e = search.found[d, number]
    c = loops.chain[e]
    h = search.answer[d, c, c]
    p, q = search.p[d, e], search.q[d, e]
    below = d + 1
    search.y[below, 0] = search.y[d, 0] + p * p / h
    search.y[below, 1] = search.y[d, 1] + q * q / h
    search.y[below, 2] = search.y[d, 2] + (p + q) ** 2 / h
    for k in range(loops.branch.size):
        search.state[below, k] = search.state[d, k]
    for k in range(number):
        search.state[below, search.found[d, k]] = SHUT
    search.state[below, e] = OPEN
    if last:
        return
    for k in range(loops.branch.size):
        share = search.answer[d, loops.chain[k], c] / h
        search.p[below, k] = search.p[d, k] - share * p
        search.q[below, k] = search.q[d, k] - share * q
    for a in range(loops.start.size):
        share = search.answer[d, a, c] / h
        for b in range(loops.start.size):
            search.answer[below, a, b] = search.answer[d, a, b] - share * search.answer[d, c, b]


@kernel
def _exceeds(feeder: Feeder, tree: Tree, p: FloatArray, q: FloatArray, limit: float, work: FloatArray) -> bool:
    """Tell whether the losses of a tree reach the limit, by branch flow equations that approach them from below.

    From no losses and full voltage on, every round finds more losses and less voltage than the one before.
    """
    n = p.size
    power, reactive, square, v = work[0], work[1], work[2], work[3]
    for i in range(n):
        square[i] = 0.0
        v[i] = feeder.slack_v[i] ** 2
    for _ in range(ROUNDS):
        for i in range(n):
            power[i], reactive[i] = p[i], q[i]
        total = 0.0
        for k in range(n - 1, -1, -1):
            i = tree.order[k]
            up = tree.parent[i]
            if up >= 0:
                total += tree.r[i] * (power[i] ** 2 + reactive[i] ** 2) / v[i]
                power[up] += power[i] + tree.r[i] * square[i]
                reactive[up] += reactive[i] + tree.x[i] * square[i]
        if total >= limit:
            return True
        for k in range(n):
            i = tree.order[k]
            up = tree.parent[i]
            if up >= 0:
                z = tree.r[i] ** 2 + tree.x[i] ** 2
                square[i] = (power[i] ** 2 + reactive[i] ** 2) / v[i]
                v[i] = v[up] - 2 * (tree.r[i] * power[i] + tree.x[i] * reactive[i]) - z * square[i]
                if v[i] <= 0.0:
                    return True  # no solution
    return False


@kernel
def run(
    feeder: Feeder, closable: BoolArray, p: FloatArray, q: FloatArray, loops: Loops, extra: Extra, search: Search,
    limit: float, nodes: int,
) -> bool:  # fmt: skip
    """Search up to `nodes` nodes further; return whether all states with a bound below `limit` were met."""
    n = feeder.slack.size
    tree, flow = new_tree(n), new_flow(n)
    cost, work = np.empty(loops.branch.size), np.empty((4, n))
    closed = closable.copy()
    depth = search.listed.size - 1
    d = search.where[0]
    stop = search.where[2] + nodes
    while d >= 0:
        if search.where[1]:
            if search.where[2] >= stop:
                search.where[0] = d
                return False
            search.where[2] += 1
            if d == depth:
                search.where[3] += 1
                for k in range(loops.branch.size):
                    closed[loops.branch[k]] = search.state[d, k] != OPEN
                if plant(feeder, closed, tree) == n and not _exceeds(feeder, tree, p, q, limit, work):
                    flat(feeder, flow)
                    if sweep(tree, n, p, q, flow) > 0:
                        search.best[0] = min(search.best[0], losses(tree, n, flow))
                search.where[1] = 0
                d -= 1
                continue
            search.listed[d] = _expand(loops, extra, search, d, limit, cost)
            search.place[d] = 0
            search.where[1] = 0
        if search.place[d] >= search.listed[d]:
            d -= 1
            continue
        number = search.place[d]
        search.place[d] += 1
        _open(loops, search, d, number, d + 1 == depth)
        d += 1
        search.where[1] = 1
    search.where[0] = d
    return True
