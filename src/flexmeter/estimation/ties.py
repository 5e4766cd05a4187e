"""Closed loops as a tree with ties.

Every branch that closes a loop hangs as an ordinary edge from its from-bus and ends in a bus of its own; a tie says
that this bus and the branch's to-bus have one voltage. So meters, transformers and charging of such a branch are those
of any other branch, and nothing is left to treat but pairs of buses whose voltages are equal: see `border`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from flexmeter.grid.model import PHASES
from flexmeter.powerflow.lanes import ComplexArray, FloatArray, IntArray
from flexmeter.powerflow.network import Loop, Network
from flexmeter.powerflow.tree import Tree


class Ties(NamedTuple):
    """Pairs of equal voltages on a reduced tree, one row per phase that the branch connects.

    `one`, `other` (n_tie,) spine rows of the branch's end and of its to-bus; `phase` (n_tie,); `on_path` (n_spine,) 1
    where a tied bus lies below; `inverse` (2 n_tie, 2 n_tie) currents that close given gaps with all loads held [S].
    """

    one: IntArray
    other: IntArray
    phase: IntArray
    on_path: IntArray
    inverse: FloatArray


def without_loops(network: Network) -> tuple[Network, tuple[tuple[int, Loop], ...]]:
    """Return the network as a tree, and the position of the new bus at the end of every loop branch."""
    loops = network.loops
    if not loops:
        return network, ()
    n = len(network.bus_ids)
    tree = replace(
        network,
        bus_ids=network.bus_ids + tuple(f"end of {loop.branch}" for loop in loops),
        nominal_v=np.append(network.nominal_v, [network.nominal_v[loop.to_bus] for loop in loops]),
        parent=np.append(network.parent, [loop.from_bus for loop in loops]),
        branch_ids=network.branch_ids + tuple(loop.branch for loop in loops),
        forward=network.forward + (True,) * len(loops),
        transfer=_appended(network.transfer, [loop.transfer for loop in loops]),
        impedance=_appended(network.impedance, [loop.impedance for loop in loops]),
        shunt=_appended(network.shunt, [np.zeros((3, 3), complex)] * len(loops)),
        loops=(),
    )
    return tree, tuple((n + k, loop) for k, loop in enumerate(loops))


def _appended(array: ComplexArray, more: list[ComplexArray]) -> ComplexArray:
    return np.asarray(np.concatenate([array, np.array(more, complex)]))


def tie(tree: Tree, ends: tuple[tuple[int, Loop], ...]) -> Ties:
    """Return the ties on a reduced tree, which keeps both buses of each."""
    rows = [(tree.bus_spine[end], tree.bus_spine[loop.to_bus], loop) for end, loop in ends]
    each = [(one, other, PHASES.index(phase)) for one, other, loop in rows for phase in loop.phases]
    one, other, phase = np.array(each, np.int64).reshape(-1, 3).T.copy()
    on_path = np.zeros(tree.n_spine, np.int64)
    on_path[one] = on_path[other] = 1
    for k in range(tree.n_spine - 1, 0, -1):
        on_path[tree.parent[k]] |= on_path[k]
    return Ties(one, other, phase, on_path, _inverse(tree, one, other, phase))


def _inverse(tree: Tree, one: IntArray, other: IntArray, phase: IntArray) -> FloatArray:
    """Return the tied currents per gap V_one - V_other: by sweeping unit currents through the tree at no load."""
    n = len(one)
    response = np.zeros((2 * n, 2 * n))
    at_one, at_other = (np.repeat(6 * bus + 2 * phase, 2) + np.tile([0, 1], n) for bus in (one, other))
    for column in range(2 * n):
        j = np.zeros((tree.n_spine, 6))
        j.flat[at_one[column]] += 1.0
        j.flat[at_other[column]] -= 1.0
        for k in range(tree.n_spine - 1, 0, -1):
            j[tree.parent[k]] += tree.transfer[k].T @ j[k]
        v = np.zeros_like(j)
        for k in range(1, tree.n_spine):
            v[k] = tree.transfer[k] @ v[tree.parent[k]] - tree.impedance[k] @ j[k]
        response[:, column] = v.flat[at_other] - v.flat[at_one]
    return np.asarray(np.linalg.pinv(response, rcond=1e-12), np.float64)
