"""Closed rings: the loop impedance that ties the currents of the branches outside the tree together."""

from __future__ import annotations

import numpy as np

from flexmeter.grid.model import PHASES
from flexmeter.powerflow.lanes import FloatArray, IntArray
from flexmeter.powerflow.tree import Tree, real_form


def loop_arrays(tree: Tree) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Return spine positions of both ends, and the real forms of T and Z, of every loop branch."""
    loops = tree.network.loops
    start = np.array([tree.bus_spine[loop.from_bus] for loop in loops], np.int64)
    end = np.array([tree.bus_spine[loop.to_bus] for loop in loops], np.int64)
    transfer = real_form(np.array([loop.transfer for loop in loops], complex).reshape(-1, 3, 3))
    impedance = real_form(np.array([loop.impedance for loop in loops], complex).reshape(-1, 3, 3))
    return start, end, transfer, impedance


def inverse_loop_impedance(tree: Tree, source_impedance: FloatArray) -> FloatArray:
    """Return K (6 n_loop, 6 n_loop) [S]: loop currents that close given voltage gaps, with loads held.

    The gap T V_from - V_to - Z x falls by Z_loop x; Z_loop is found by sweeping unit currents through the tree. Phases
    that a branch does not have stay open (rows and columns of zeros); parallel branches without impedance share their
    current equally (pseudo-inverse).
    """
    start, end, transfer, impedance = loop_arrays(tree)
    n_loop = len(start)
    response = np.zeros((6 * n_loop, 6 * n_loop))
    for column in range(6 * n_loop):
        x = np.zeros((n_loop, 6))
        x[divmod(column, 6)] = 1.0
        v = _voltages(tree, source_impedance, start, end, transfer, x)
        gap = np.einsum("lij,lj->li", transfer, v[start]) - v[end] - np.einsum("lij,lj->li", impedance, x)
        response[:, column] = -gap.ravel()
    closed = np.flatnonzero([phase in loop.phases for loop in tree.network.loops for phase in PHASES for _ in "ri"])
    inverse = np.zeros_like(response)
    inverse[np.ix_(closed, closed)] = np.linalg.pinv(response[np.ix_(closed, closed)], rcond=1e-12)
    return inverse


def _voltages(
    tree: Tree, source_impedance: FloatArray, start: IntArray, end: IntArray, transfer: FloatArray, x: FloatArray
) -> FloatArray:
    j = np.zeros((tree.n_spine, 6))
    for loop in range(len(start)):
        j[start[loop]] += transfer[loop].T @ x[loop]
        j[end[loop]] -= x[loop]
    for k in range(tree.n_spine - 1, 0, -1):
        j[tree.parent[k]] += tree.transfer[k].T @ j[k]
    v = np.empty_like(j)
    v[0] = -source_impedance @ j[0]
    for k in range(1, tree.n_spine):
        v[k] = tree.transfer[k] @ v[tree.parent[k]] - tree.impedance[k] @ j[k]
    return v
