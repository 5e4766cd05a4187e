"""The results of a forest: every quantity of all grids in one piece of memory, kind after kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flexmeter.estimation.estimator import Estimator
from flexmeter.powerflow.lanes import IntArray


class Sizes(NamedTuple):
    """How many of everything an estimator has, and whether its source is balanced (0 or 1)."""

    meters: int
    nodes: int
    spine: int
    leaves: int
    flows: int
    aggregates: int
    balanced: int


def sizes_of(estimator: Estimator) -> Sizes:
    """Return the sizes of an estimator."""
    tree, network = estimator.layout.tree, estimator.network
    counts = tree.n_spine, tree.n_leaf, len(estimator.layout.flow_row), len(network.aggregates)
    return Sizes(len(estimator.meters), len(network.nodes), *counts, int(network.symmetry == "balanced"))


@dataclass(frozen=True, eq=False)
class Field:
    """One quantity: an array (rows, columns) of each kind, its columns are its grids, each with all scenarios.

    Attributes
    ----------
    flat : (n,) the arrays one after the other, row by row
    rows, columns : (n_kind,); `first` (n_kind + 1,) where they begin
    """

    flat: np.ndarray
    rows: IntArray
    columns: IntArray
    first: IntArray

    def parts(self, first: int, last: int) -> list[np.ndarray]:
        """Return the arrays of some kinds, to be written to."""
        starts, ends = self.first[first:last].tolist(), self.first[first + 1 : last + 1].tolist()
        shapes = zip(self.rows[first:last].tolist(), self.columns[first:last].tolist(), strict=True)
        return [self.flat[start:end].reshape(shape) for start, end, shape in zip(starts, ends, shapes, strict=True)]

    def of_grids(self, kind: IntArray, place: IntArray, rows: int, n_scenario: int) -> np.ndarray:
        """Return (n_grid, rows, n_scenario), the first rows of grids of a kind and at a place among its grids."""
        start = (self.first[kind] + place * n_scenario)[:, None] + np.arange(rows) * self.columns[kind][:, None]
        return np.asarray(self.flat[start[:, :, None] + np.arange(n_scenario)])

    def of_rows(self, members: tuple[IntArray, ...], first: IntArray, n_scenario: int) -> np.ndarray:
        """Return (n_row, n_scenario), all grids one below the other; `members` of each kind, `first` row of each."""
        if len(members) == len(first) - 1:  # every grid is a kind of its own, in order
            return self.flat.reshape(int(first[-1]), n_scenario)
        result: np.ndarray = np.empty((int(first[-1]), n_scenario), self.flat.dtype)
        for grids, values in zip(members, self.parts(0, len(members)), strict=True):
            rows = first[grids] + np.arange(len(values))[:, None]
            result[rows.ravel()] = values.reshape(-1, n_scenario)
        return result


class Fields(NamedTuple):
    """All quantities: `node_v` of all nodes, `known` readings that count, the others as in `Solution`, `Deviations`."""

    node_v: Field
    known: Field
    spine_v: Field
    edge_a: Field
    aggregate_a: Field
    iterations: Field
    objective: Field
    helped: Field
    left_out: Field
    node: Field
    leaf: Field
    flow: Field
    head: Field
    aggregate: Field


def allocate(sizes: IntArray, columns: IntArray, covariance: bool) -> Fields:
    """Return fields of zeros for kinds of some sizes (n_kind, 7), see `Sizes`, and (n_kind,) columns."""
    _, nodes, spine, leaves, flows, aggregates, _ = sizes.T
    one, no_columns = np.ones_like(nodes), np.zeros_like(columns)

    def field(rows: IntArray, kind: type = np.float64, wanted: bool = True) -> Field:
        wide = columns if wanted else no_columns
        first = np.concatenate([[0], np.cumsum(rows * wide)])
        return Field(np.zeros(int(first[-1]), kind), rows, wide, first)

    return Fields(
        node_v=field(nodes, np.complex128),
        known=field(one, np.int64),
        spine_v=field(3 * spine, np.complex128),
        edge_a=field(3 * spine + leaves + 2, np.complex128),  # a leaf is read as one of three rows
        aggregate_a=field(3 * aggregates, np.complex128),
        iterations=field(one, np.int64),
        objective=field(one),
        helped=field(3 * one),
        left_out=field(flows),
        node=field(nodes, wanted=covariance),
        leaf=field(3 * leaves, wanted=covariance),
        flow=field(flows, wanted=covariance),
        head=field(81 * one, wanted=covariance),
        aggregate=field(81 * aggregates, wanted=covariance),
    )
