"""Spanning trees: how many there are, all of them, and the best of all for a given load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import InputError
from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.flow import tree_losses
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, FloatArray, IntArray, merge

ENUMERATION_LIMIT = 2_000_000


@dataclass(frozen=True, eq=False)
class BestTrees:
    """The best radial state of every load case, by enumeration: `closed` (t, m), `losses_w` (t,)."""

    closed: BoolArray
    losses_w: FloatArray


def log10_tree_count(network: FeederNetwork) -> float:
    """Return the decimal logarithm of the number of radial states (Kirchhoff's matrix-tree theorem)."""
    group = merge(network, network.closed & ~network.switchable)[0]
    nodes, index = np.unique(group, return_inverse=True)
    if len(nodes) == 1:
        return 0.0
    usable = network.switchable & (index[network.from_bus] != index[network.to_bus])
    a, b = index[network.from_bus[usable]], index[network.to_bus[usable]]
    laplacian = np.zeros((len(nodes), len(nodes)))
    np.add.at(laplacian, (a, a), 1.0)
    np.add.at(laplacian, (b, b), 1.0)
    np.add.at(laplacian, (a, b), -1.0)
    np.add.at(laplacian, (b, a), -1.0)
    return float(np.linalg.slogdet(laplacian[1:, 1:])[1] / np.log(10.0))


def spanning_trees(network: FeederNetwork, limit: int = ENUMERATION_LIMIT) -> BoolArray:
    """Return every radial state, (k, m), each once.

    Raises
    ------
    InputError
        There are more than `limit`.
    """
    exponent = log10_tree_count(network)
    count = round(10**exponent) if exponent < 15 else 2**62
    if count > limit:
        raise InputError(f"{network.name}: 10^{exponent:.1f} radial states, enumeration stops at {limit}")
    opened = opened_sets(network, count)
    closed = np.tile(network.closable, (len(opened), 1))
    np.put_along_axis(closed, opened, False, axis=1)
    return closed


def opened_sets(network: FeederNetwork, count: int) -> IntArray:
    """Return the branches opened in each of the `count` radial states, (count, l)."""
    closable = network.closable
    node = merge(network, np.zeros(network.branch_count, dtype=np.bool_))[0]
    loops = int(closable.sum()) - network.bus_count + len(network.slack_buses)
    found = np.zeros((count, loops), dtype=np.int64)
    if loops == 0:
        return found
    total = _open_in_turn(node[network.from_bus], node[network.to_bus], closable.copy(), network.switchable, found)
    if total != count:
        raise InputError(f"{network.name}: {total} radial states found, {count} counted")
    return found


def best_tree(network: FeederNetwork, p_w: ArrayLike, q_var: ArrayLike, limit: int = ENUMERATION_LIMIT) -> BestTrees:
    """Return the radial state of least losses for each of (t, n) load cases, by trying all of them.

    Raises
    ------
    InputError
        There are more than `limit` radial states.
    """
    closed = spanning_trees(network, limit)
    losses_w = tree_losses(network, closed, p_w, q_var)
    best = losses_w.argmin(axis=0)
    return BestTrees(closed[best], losses_w.min(axis=0))


@kernel
def bridges(start: IntArray, end: IntArray, closed: BoolArray) -> BoolArray:
    """Mark the closed branches whose opening would split their part of the network, (m,).

    Depth-first search with low points (Tarjan 1974, doi 10.1016/0020-0190(74)90003-9), without recursion.
    """
    m = start.size
    n = 0
    for e in range(m):
        n = max(n, start[e] + 1, end[e] + 1)
    ptr = np.zeros(n + 1, np.int64)
    for e in range(m):
        if closed[e] and start[e] != end[e]:
            ptr[start[e] + 1] += 1
            ptr[end[e] + 1] += 1
    for i in range(n):
        ptr[i + 1] += ptr[i]
    fill = ptr[:n].copy()
    via = np.empty(ptr[n], np.int64)
    for e in range(m):
        if closed[e] and start[e] != end[e]:
            via[fill[start[e]]] = e
            fill[start[e]] += 1
            via[fill[end[e]]] = e
            fill[end[e]] += 1
    mark = np.zeros(m, np.bool_)
    number = np.zeros(n, np.int64)
    low = np.zeros(n, np.int64)
    entered = np.full(n, -1, np.int64)
    nxt = ptr[:n].copy()
    stack = np.empty(n, np.int64)
    counter = 0
    for root in range(n):
        if number[root]:
            continue
        counter += 1
        number[root] = low[root] = counter
        stack[0] = root
        depth = 1
        while depth:
            i = stack[depth - 1]
            if nxt[i] < ptr[i + 1]:
                e = via[nxt[i]]
                nxt[i] += 1
                if e == entered[i]:
                    continue
                j = end[e] if start[e] == i else start[e]
                if number[j]:
                    low[i] = min(low[i], number[j])
                else:
                    counter += 1
                    number[j] = low[j] = counter
                    entered[j] = e
                    stack[depth] = j
                    depth += 1
            else:
                depth -= 1
                if depth:
                    up = stack[depth - 1]
                    low[up] = min(low[up], low[i])
                    if low[i] > number[up]:
                        mark[entered[i]] = True
    return mark


@kernel
def _mark_free(
    start: IntArray, end: IntArray, closed: BoolArray, switchable: BoolArray, first: int, free: BoolArray
) -> None:
    """Mark the branches from `first` on that may be opened without cutting a bus off."""
    bridge = bridges(start, end, closed)
    for branch in range(start.size):
        free[branch] = branch >= first and closed[branch] and switchable[branch] and not bridge[branch]


@kernel
def _open_in_turn(start: IntArray, end: IntArray, closed: BoolArray, switchable: BoolArray, found: IntArray) -> int:
    """List all sets of branches, in rising order, whose opening leaves a tree; return how many there are."""
    loops = found.shape[1]
    choice = np.full(loops, -1, np.int64)
    free = np.empty((loops, start.size), np.bool_)
    total = 0
    depth = 0
    _mark_free(start, end, closed, switchable, 0, free[0])
    while depth >= 0:
        if choice[depth] >= 0:
            closed[choice[depth]] = True
        following = choice[depth] + 1
        while following < start.size and not free[depth, following]:
            following += 1
        if following == start.size:
            choice[depth] = -1
            depth -= 1
            continue
        choice[depth] = following
        if depth == loops - 1:
            if total < found.shape[0]:
                for k in range(loops):
                    found[total, k] = choice[k]
            total += 1
            continue
        closed[following] = False
        depth += 1
        # Only later branches may follow: every set is met once, in rising order.
        _mark_free(start, end, closed, switchable, following + 1, free[depth])
        choice[depth] = -1
    return total
