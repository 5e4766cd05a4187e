"""Proof by splitting: all radial states whose losses could be below a limit, by bounds of microseconds.

Openings are decided one loop after the other, depth first; see `splitting.py` for the bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.network import BoolArray, Feeder, FloatArray, IntArray
from flexmeter.reconfiguration.splitting import Extra, Loops, Splitting
from flexmeter.reconfiguration.sweep import Tree, flat, losses, new_flow, new_tree, plant, sweep

UNDECIDED, SHUT, OPEN = 0, 1, 2
NEVER = 1e18
ROUNDS = 4


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
