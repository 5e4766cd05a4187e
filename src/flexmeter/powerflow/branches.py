"""Currents and losses of every branch, from the currents of edges and leaves that the sweeps leave behind."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexmeter.powerflow.compiling import kernel
from flexmeter.powerflow.lanes import LANES, ComplexArray, FloatArray, IntArray, put, ready, take_complex
from flexmeter.powerflow.tree import Tree


class Branches(NamedTuple):
    """Where the current of each bus's branch to its parent is found, and what it loses.

    `row` (n_bus,) first row of the edge currents; `width` (n_bus,) 3 rows of an edge, 1 of a leaf, 0 without current;
    `plus`, `minus` (n_bus,) phases a leaf's current flows in and back (-1 neutral); `form` as `hermitian_form`.
    """

    row: IntArray
    width: IntArray
    plus: IntArray
    minus: IntArray
    form: FloatArray


def branch_arrays(tree: Tree) -> Branches:
    """Return the branches of a tree's network."""
    edge, n = tree.branch_edge, len(tree.branch_edge)
    at_leaf = np.flatnonzero(edge >= tree.n_spine)
    leaf = edge[at_leaf] - tree.n_spine
    row, width = np.maximum(3 * edge, 0), np.where(edge < 0, 0, 3)
    row[at_leaf], width[at_leaf] = 3 * tree.n_spine + leaf, 1
    plus, minus = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    plus[at_leaf], minus[at_leaf] = tree.leaf_plus[leaf], tree.leaf_minus[leaf]
    form = hermitian_form(tree.network.impedance)
    form[at_leaf] = 0.0
    form[at_leaf, 0] = _leaf_resistance(tree.network.impedance[at_leaf], plus[at_leaf], minus[at_leaf])
    return Branches(row.astype(np.int64), width.astype(np.int64), plus, minus, form)


def _leaf_resistance(impedance: ComplexArray, plus: IntArray, minus: IntArray) -> FloatArray:
    r, k = impedance.real, np.arange(len(plus))
    back = r[k, minus, minus] - r[k, plus, minus] - r[k, minus, plus]
    return np.asarray(r[k, plus, plus] + np.where(minus < 0, 0.0, back))


def hermitian_form(matrix: ComplexArray) -> FloatArray:
    """Return (n, 9) coefficients of Re(x^H M x) for matrices (n, 3, 3): three squares, then Re and Im of ab, ac, bc.

    Only the Hermitian part of M counts; it is not symmetric for a transformer fed from its to-side.
    """
    part = (matrix + matrix.conj().swapaxes(1, 2)) / 2
    squares, pairs = part[:, range(3), range(3)].real, 2 * part[:, [0, 0, 1], [1, 2, 2]]
    return ready(np.concatenate([squares, pairs.real, -pairs.imag], axis=1))


@kernel
def quadratic_blocks(
    first_block: int,
    last_block: int,
    row: IntArray,
    width: IntArray,
    form: FloatArray,
    x: ComplexArray,
    out: FloatArray,
) -> None:
    """Write Re(x^H M x) (n, n_scenario) of groups of `width` rows of x, M as `hermitian_form`."""
    n_scenario = out.shape[1]
    for k in range(len(row)):
        aa, bb, cc = form[k, 0], form[k, 1], form[k, 2]
        ab, ac, bc = form[k, 3], form[k, 4], form[k, 5]
        ab_turned, ac_turned, bc_turned = form[k, 6], form[k, 7], form[k, 8]
        rows, first = width[k], row[k]
        for block in range(first_block, last_block):
            start = block * LANES
            count = min(LANES, n_scenario - start)
            value = 0.0
            if rows > 0:
                a, u = take_complex(x, first, start, count)
                value = (a * a + u * u) * aa
                if rows == 3:
                    b, v = take_complex(x, first + 1, start, count)
                    c, w = take_complex(x, first + 2, start, count)
                    value = value + (b * b + v * v) * bb + (c * c + w * w) * cc
                    value = value + (a * b + u * v) * ab + (a * c + u * w) * ac + (b * c + v * w) * bc
                    value = value + (a * v - u * b) * ab_turned + (a * w - u * c) * ac_turned
                    value = value + (b * w - v * c) * bc_turned
            put(out, k, start, count, value)


@kernel
def current_blocks(
    first_block: int,
    last_block: int,
    row: IntArray,
    width: IntArray,
    plus: IntArray,
    minus: IntArray,
    edge_a: ComplexArray,
    out: ComplexArray,
) -> None:
    """Write the current of every branch (n_bus, 3, n_scenario)."""
    first, last = first_block * LANES, min(last_block * LANES, out.shape[2])
    for k in range(len(row)):
        for phase in range(3):
            source = row[k] + phase if width[k] == 3 else row[k]
            if width[k] == 3 or (width[k] == 1 and plus[k] == phase):
                for s in range(first, last):
                    out[k, phase, s] = edge_a[source, s]
            elif width[k] == 1 and minus[k] == phase:
                for s in range(first, last):
                    out[k, phase, s] = -edge_a[source, s]
            else:
                for s in range(first, last):
                    out[k, phase, s] = 0.0
