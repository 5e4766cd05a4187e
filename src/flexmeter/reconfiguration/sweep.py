"""Load flow of the search: two sweeps over a tree, compiled, on bus-indexed arrays in per unit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.network import BoolArray, Feeder, FloatArray, IntArray

# Losses come from the currents at the voltages before the last step: their relative error is about twice that step.
TOLERANCE = 1e-11
MAX_SWEEPS = 125
SETTLED = 6
NO_PARENT = -1
NOT_FED = -2


class Tree(NamedTuple):
    """A radial state: `order` runs from the substations outward; the rest is indexed by bus.

    `parent` is the upstream bus (-1 for a substation, -2 for a bus that is not fed), `branch` the branch that feeds
    the bus, `r`, `x`, `turns` its impedance and voltage transfer seen from the bus: V = turns V_parent - (r + jx) J.
    `g`, `b` are the shunts including the charging of closed lines, `place` the position of a bus in `order`.
    """

    order: IntArray
    parent: IntArray
    branch: IntArray
    r: FloatArray
    x: FloatArray
    turns: FloatArray
    g: FloatArray
    b: FloatArray
    place: IntArray


class Flow(NamedTuple):
    """Voltage of every bus and current of the branch that feeds it, real and imaginary parts, (n,) [pu]."""

    v_re: FloatArray
    v_im: FloatArray
    j_re: FloatArray
    j_im: FloatArray


@kernel
def new_tree(n: int) -> Tree:
    """Return an empty tree of n buses."""
    ints = np.empty((4, n), np.int64)
    reals = np.empty((5, n))
    return Tree(ints[0], ints[1], ints[2], reals[0], reals[1], reals[2], reals[3], reals[4], ints[3])


@kernel
def new_flow(n: int) -> Flow:
    """Return an empty flow of n buses."""
    reals = np.empty((4, n))
    return Flow(reals[0], reals[1], reals[2], reals[3])


@kernel
def plant(feeder: Feeder, closed: BoolArray, tree: Tree) -> int:
    """Fill `tree` from the closed branches; return how many buses are fed, or -1 when there is a loop."""
    n = feeder.slack.size
    count = 0
    for i in range(n):
        tree.parent[i] = NOT_FED
        tree.branch[i] = -1
        tree.g[i] = feeder.g[i]
        tree.b[i] = feeder.b[i]
        tree.r[i] = 0.0
        tree.x[i] = 0.0
        tree.turns[i] = 1.0
    for i in range(n):
        if feeder.slack[i]:
            tree.parent[i] = NO_PARENT
            tree.order[count] = i
            tree.place[i] = count
            count += 1
    head = 0
    while head < count:
        i = tree.order[head]
        head += 1
        for e in range(feeder.ptr[i], feeder.ptr[i + 1]):
            via = feeder.via[e]
            if not closed[via] or via == tree.branch[i]:
                continue
            j = feeder.neighbour[e]
            if tree.parent[j] != NOT_FED:
                return -1
            tree.parent[j] = i
            tree.branch[j] = via
            tree.order[count] = j
            tree.place[j] = count
            count += 1
            _hang(feeder, tree, i, j, via)
    return count


@kernel
def _hang(feeder: Feeder, tree: Tree, i: int, j: int, via: int) -> None:
    """Set the impedance of the branch from parent `i` to bus `j`, and its charging."""
    ratio = feeder.ratio[via]
    start, end = feeder.from_bus[via], feeder.to_bus[via]
    tree.b[start] += 0.5 * feeder.charging[via] / (ratio * ratio)
    tree.b[end] += 0.5 * feeder.charging[via]
    if start == i:
        tree.turns[j] = 1.0 / ratio
        tree.r[j] = feeder.r[via]
        tree.x[j] = feeder.x[via]
    else:
        tree.turns[j] = ratio
        tree.r[j] = feeder.r[via] * ratio * ratio
        tree.x[j] = feeder.x[via] * ratio * ratio


@kernel
def flat(feeder: Feeder, flow: Flow) -> None:
    """Start voltages: that of the substation everywhere."""
    for i in range(feeder.slack.size):
        flow.v_re[i] = feeder.slack_v[i]
        flow.v_im[i] = 0.0


@kernel
def sweep(tree: Tree, count: int, p: FloatArray, q: FloatArray, flow: Flow) -> int:
    """Solve the load flow of constant powers by backward and forward sweeps.

    Starts from the voltages in `flow`. Returns the number of sweeps, or -1 when the fixed point I = conj(S / V) was
    not reached: the state then has no trustworthy loss.
    """
    v_re, v_im, j_re, j_im = flow.v_re, flow.v_im, flow.j_re, flow.j_im
    order = tree.order
    before = np.inf
    for iteration in range(1, MAX_SWEEPS + 1):
        for k in range(count):
            i = order[k]
            a, c = v_re[i], v_im[i]
            scale = 1.0 / (a * a + c * c)
            j_re[i] = (p[i] * a + q[i] * c) * scale + tree.g[i] * a - tree.b[i] * c
            j_im[i] = (p[i] * c - q[i] * a) * scale + tree.g[i] * c + tree.b[i] * a
        moved = forward(tree, count, flow)
        if moved < TOLERANCE * TOLERANCE:
            return iteration
        # A fixed point contracts; growing steps after the first few mean collapse, and nan compares false.
        if iteration > SETTLED and not moved < before:
            return -1
        before = moved
    return -1


@kernel
def forward(tree: Tree, count: int, flow: Flow) -> float:
    """Add up the currents toward the substations, then set the voltages; return the sum of squared changes."""
    v_re, v_im, j_re, j_im = flow.v_re, flow.v_im, flow.j_re, flow.j_im
    order, parent, turns = tree.order, tree.parent, tree.turns
    for k in range(count - 1, -1, -1):
        i = order[k]
        up = parent[i]
        if up >= 0:
            j_re[up] += turns[i] * j_re[i]
            j_im[up] += turns[i] * j_im[i]
    moved = 0.0
    for k in range(count):
        i = order[k]
        up = parent[i]
        if up >= 0:
            a = turns[i] * v_re[up] - tree.r[i] * j_re[i] + tree.x[i] * j_im[i]
            c = turns[i] * v_im[up] - tree.r[i] * j_im[i] - tree.x[i] * j_re[i]
            moved += (a - v_re[i]) ** 2 + (c - v_im[i]) ** 2
            v_re[i] = a
            v_im[i] = c
    return moved


@kernel
def losses(tree: Tree, count: int, flow: Flow) -> float:
    """Series losses of the closed branches [pu], equation 1 of the paper (three phases are in the base)."""
    total = 0.0
    for k in range(count):
        i = tree.order[k]
        if tree.parent[i] >= 0:
            total += tree.r[i] * (flow.j_re[i] ** 2 + flow.j_im[i] ** 2)
    return total


@kernel
def radial_losses(feeder: Feeder, closed: BoolArray, p: FloatArray, q: FloatArray) -> FloatArray:
    """Losses of every tree under every load case; infinite where not radial, not complete or not converged.

    Parameters
    ----------
    closed : (k, m) switch status vectors
    p, q : (t, n) bus powers [pu]

    Returns
    -------
    (k, t) losses [pu]
    """
    n = feeder.slack.size
    out = np.full((closed.shape[0], p.shape[0]), np.inf)
    tree = new_tree(n)
    flow = new_flow(n)
    for c in range(closed.shape[0]):
        if plant(feeder, closed[c], tree) != n:
            continue
        flat(feeder, flow)
        for t in range(p.shape[0]):
            if sweep(tree, n, p[t], q[t], flow) > 0:
                out[c, t] = losses(tree, n, flow)
            else:
                flat(feeder, flow)
    return out
