"""Many grids in one call: a whole DSO's LV grids and one or more minutes.

Grids that share an estimator (same network, same meters) are scenarios of one batch and fill the lanes of the kernel;
grids of their own are estimated one after the other, each from two small arrays (`packed`) into its part of the
forest's results (`fields`), in a work array that all of them use. Both give what a call per grid would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.deviations import Deviations
from flexmeter.estimation.estimate import Estimate
from flexmeter.estimation.estimator import NOTHING, NOTHING_JOINT, Estimator, head_angles
from flexmeter.estimation.fields import Field, Fields, Sizes, allocate, sizes_of
from flexmeter.estimation.gauss_newton import Solution, estimate_blocks, lanes_for
from flexmeter.estimation.intake import Readings
from flexmeter.estimation.layout import combine
from flexmeter.estimation.measurements import NEVER_EXACT, check_readings, count_bad, count_known
from flexmeter.estimation.model import work_size
from flexmeter.estimation.packed import Compiled, Packed, Shelf, pack, unpack
from flexmeter.powerflow.lanes import (
    LANES,
    ComplexArray,
    FloatArray,
    IntArray,
    WorkArray,
    block_count,
    ready,
    work_array,
)
from flexmeter.powerflow.solve import share_blocks
from flexmeter.powerflow.sweep import expand

CHECKED_AT_ONCE, KINDS_AT_ONCE = 100_000, 100
"""Rows of readings that are checked, and kinds that a thread takes, at a time."""
VOLTAGE, INEXACT = 1, 2
"""What a row of readings is, as bits."""
_BITS = dict.fromkeys(NEVER_EXACT, INEXACT) | {"voltage": INEXACT | VOLTAGE}


class Forest:
    """Grids, each with its estimator, and where their rows lie in concatenated arrays.

    Parameters
    ----------
    estimators : one per grid; the same object for grids with the same network and the same meters. What the estimation
        needs is copied, 15 to 20 kB of an LV grid of 100 customers. The estimators are asked for again only by
        `ForestEstimate.grid` and for the text of an error: a sequence that makes an estimator whenever it is asked for
        one, from a file, saves the memory of ten thousand.

    Attributes
    ----------
    first_meter, first_node : (n_grid + 1,) readings of grid k are rows first_meter[k] .. first_meter[k + 1], its
        voltages rows first_node[k] .. first_node[k + 1]
    kind, place : (n_grid,) number of its kind (grids with one estimator), and among the grids of the kind
    members : grids of each kind; `sizes` (n_kind, 7), see `Sizes`
    """

    def __init__(self, estimators: Sequence[Estimator]) -> None:
        self.estimators = estimators
        seen: WeakKeyDictionary[Estimator, int] = WeakKeyDictionary()
        shelf = Shelf()
        packed: list[Packed] = []
        kinds, sizes, flags = [], [], []
        for estimator in estimators:
            kind = seen.setdefault(estimator, len(packed))
            kinds.append(kind)
            if kind == len(packed):
                packed.append(pack(estimator.compiled, shelf))
                sizes.append(sizes_of(estimator))
                flags.append(
                    shelf.keep(np.array([_BITS.get(meter.quantity, 0) for meter in estimator.meters], np.int8), np.int8)
                )
        self.packed = tuple(packed)
        self.kind, self.sizes = np.array(kinds, np.int64), np.array(sizes, np.int64).reshape(-1, len(Sizes._fields))
        by_kind = np.argsort(self.kind, kind="stable")
        self.members = tuple(np.split(by_kind, np.cumsum(np.bincount(self.kind))[:-1])) if kinds else ()
        self.place = np.empty(len(kinds), np.int64)
        for grids in self.members:
            self.place[grids] = np.arange(len(grids))
        self.first_meter, self.first_node = (_offsets(self.sizes[self.kind, column]) for column in (0, 1))
        self._flags = np.concatenate([np.empty(0, np.int8), *(flags[kind] for kind in kinds)])

    def __len__(self) -> int:
        """Return the number of grids."""
        return len(self.kind)

    def estimate(
        self,
        value: ArrayLike,
        sigma: ArrayLike,
        *,
        covariance: bool = True,
        tolerance_pu: float = 1e-9,
        max_iterations: int = 200,
        threads: int = 1,
        check: bool = True,
    ) -> ForestEstimate:
        """Return the estimates of all grids.

        Parameters
        ----------
        value, sigma : (n_row, n_scenario) or (n_row,) readings of all grids one below the other, see `first_meter`,
            nan = missing, and standard deviations
        covariance, tolerance_pu, max_iterations, check : as for `Estimator.estimate`
        threads : grids, or the scenarios of equal grids, are shared among them

        Raises
        ------
        MeasurementError
            arrays of the wrong shape, or readings that `Estimator.estimate` refuses: the message names the grid.
        """
        z, s = self._readings(value, sigma)
        if check:
            self._check(z, s)
        n_kind, n_scenario = len(self.packed), z.shape[1]
        columns = n_scenario * np.bincount(self.kind, minlength=n_kind)
        fields = allocate(self.sizes, columns, covariance)
        few = n_kind < 4 * threads

        def run(first: int, last: int) -> None:
            desk = Desk(self.packed[first:last], tolerance_pu, max_iterations, threads if few else 1)
            parts = zip(*(field.parts(first, last) for field in fields), strict=True)
            for kind, (packed, part) in enumerate(zip(self.packed[first:last], parts, strict=True), first):
                desk.estimate(packed, *self._gather(kind, z, s), *part)

        _share(run, n_kind, 1 if few else threads)
        return ForestEstimate(self, n_scenario, fields)

    def _readings(self, value: ArrayLike, sigma: ArrayLike) -> tuple[FloatArray, FloatArray]:
        z, s = (np.asarray(item, float) for item in (value, sigma))
        z, s = (ready(item[:, None] if item.ndim == 1 else item) for item in (z, s))
        expected = (int(self.first_meter[-1]), z.shape[-1])
        if z.shape != expected or s.shape != expected:
            text = f"shapes {z.shape} and {s.shape}, expected both ({expected[0]}, n_scenario)"
            raise MeasurementError([Finding("forest", (), "value", text)])
        return z, s

    def _check(self, value: FloatArray, sigma: FloatArray) -> None:
        """Raise if any reading is bad."""
        for first in range(0, len(value), CHECKED_AT_ONCE):
            part = slice(first, first + CHECKED_AT_ONCE)
            bits = self._flags[part]
            if count_bad(
                value[part], sigma[part], (bits & INEXACT > 0).astype(float), (bits & VOLTAGE > 0).astype(float)
            ):
                self._complain(value, sigma, first)

    def _complain(self, value: FloatArray, sigma: FloatArray, first_row: int) -> None:
        """Raise what is wrong with the first grid that has a bad reading at or after a row."""
        for grid in range(int(np.searchsorted(self.first_meter, first_row, side="right")) - 1, len(self)):
            rows = slice(int(self.first_meter[grid]), int(self.first_meter[grid + 1]))
            estimator = self.estimators[grid]
            findings = check_readings(estimator.meters, value[rows], sigma[rows])
            if findings:
                raise MeasurementError(findings, f"grid {grid} of the forest, {estimator.network.name}")

    def _gather(self, kind: int, value: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return a kind's readings, its grids side by side; of a single grid they are not copied."""
        grids, size = self.members[kind], self.sizes[kind, 0]
        if len(grids) == 1:
            start = self.first_meter[grids[0]]
            return value[start : start + size], sigma[start : start + size]
        rows, columns = self.first_meter[grids] + np.arange(size)[:, None], len(grids) * value.shape[1]
        return value[rows].reshape(size, columns), sigma[rows].reshape(size, columns)


class Desk:
    """Where one thread estimates one kind after the other: its work arrays, used again by each of them."""

    def __init__(self, packed: Sequence[Packed], tolerance_pu: float, max_iterations: int, threads: int) -> None:
        self.positions = np.empty(max((len(item.positions) for item in packed), default=0), np.int64)
        self.work = {lanes: work_array(0, lanes) for lanes in (1, LANES)}
        self.settings = tolerance_pu, max_iterations
        self.threads = threads

    def estimate(
        self,
        packed: Packed,
        value: FloatArray,
        sigma: FloatArray,
        node_v: ComplexArray,
        known: IntArray,
        *out: np.ndarray,
    ) -> None:
        """Estimate the grids of a kind and write what comes out into its parts of the `Fields`."""
        item = unpack(packed, self.positions)
        z, s = combine(item.slot, value, sigma) if len(item.slot) else (value, sigma)
        n = z.shape[1]
        report = np.repeat(item.report, n, axis=1) if len(item.report) else NOTHING
        readings = Readings(z, s, report, *head_angles(None, n), NOTHING, NOTHING, NOTHING)
        spine_v, edge_a, aggregate_a, iterations, objective, helped, left_out, *deviations = out
        solution = Solution(spine_v, edge_a, aggregate_a, iterations[0], objective[0], helped, left_out)
        self._solve(item, readings, solution, Deviations(*deviations), node_v)
        known[0] = count_known(z, item.free_rows) - left_out.sum(0).astype(np.int64)
        if len(item.phasor_rows):
            known[0] -= (~np.isnan(z[item.phasor_rows])).any(0)  # the turn of the head voltages

    def _solve(
        self, item: Compiled, readings: Readings, solution: Solution, deviations: Deviations, node_v: ComplexArray
    ) -> None:
        model, wanted, size, n = item.model, item.wanted, work_size(item.model), node_v.shape[1]
        lanes = lanes_for(n)

        def run(first: int, last: int) -> None:
            w = self._work(size, lanes) if self.threads <= 1 else work_array(size, lanes)
            estimate_blocks(first, last, w, model, wanted, readings, *self.settings, solution, deviations, NO_JOINT)
            nodes = item.node_spine, item.node_edge, wanted.node_x
            expand(first * lanes, last * lanes, *nodes, solution.spine_v, solution.edge_a, node_v)

        share_blocks(run, block_count(n, lanes), self.threads)

    def _work(self, size: int, lanes: int) -> WorkArray:
        """Return a work array: whatever others left there is written before it is read."""
        if len(self.work[lanes]) < size:
            self.work[lanes] = work_array(size, lanes)
        return self.work[lanes]


NO_JOINT = NOTHING_JOINT[0]


@dataclass(frozen=True, eq=False)
class ForestEstimate:
    """Estimates of all grids: arrays over all of them, or one grid's `Estimate` with `grid`.

    Attributes
    ----------
    forest : what was estimated, n_scenario times
    fields : every quantity of all kinds of grid
    """

    forest: Forest
    n_scenario: int
    fields: Fields

    def grid(self, number: int) -> Estimate:
        """Return the estimate of one grid, as its own estimator would have given it."""
        forest, n = self.forest, self.n_scenario
        kind, place = int(forest.kind[number]), int(forest.place[number])

        def own(field: Field) -> np.ndarray:
            return field.parts(kind, kind + 1)[0][:, place * n : (place + 1) * n]

        fields, aggregate = self.fields, own(self.fields.aggregate)
        return Estimate(
            layout=forest.estimators[number].layout,
            voltage_v=own(fields.node_v),
            sigma_voltage_v=own(fields.node),
            objective=self.objective[number],
            degrees_of_freedom=self.degrees_of_freedom[number],
            iterations=self.iterations[number],
            head_observable=self._observable[number],
            aggregate_covariance=aggregate.reshape(len(aggregate) // 81, 9, 9, aggregate.shape[1]),
            spine_v=own(fields.spine_v),
            edge_a=own(fields.edge_a),
            aggregate_a=own(fields.aggregate_a),
            _left_out=own(fields.left_out),
            _leaf_sigma=own(fields.leaf),
            _flow_sigma=own(fields.flow),
            _head_covariance=own(fields.head),
            joint_covariance=np.empty((0, 0, n)),
            sigma_losses_w=np.empty(0),
        )

    @cached_property
    def objective(self) -> FloatArray:
        """(n_grid, n_scenario) J."""
        return self._of_grids(self.fields.objective, 1)[:, 0]

    @cached_property
    def degrees_of_freedom(self) -> IntArray:
        """(n_grid, n_scenario) readings minus states."""
        balanced = self.forest.sizes[self.forest.kind, Sizes._fields.index("balanced")] > 0
        heads = np.where(balanced[:, None], 1, self._observable.sum(axis=1))
        return np.asarray(self._of_grids(self.fields.known, 1)[:, 0] - heads)

    @cached_property
    def iterations(self) -> IntArray:
        """(n_grid, n_scenario) Gauss-Newton steps, -1 where not converged."""
        return self._of_grids(self.fields.iterations, 1)[:, 0]

    @property
    def converged(self) -> np.ndarray:
        """(n_grid, n_scenario) whether the iteration reached its tolerance."""
        return np.asarray(self.iterations >= 0)

    @cached_property
    def _observable(self) -> np.ndarray:
        return np.asarray(self._of_grids(self.fields.helped, 3) == 0.0)

    @cached_property
    def head(self) -> FloatArray:
        """(n_grid, 9, n_scenario) |V| [V], P [W], Q [var] of a, b, c at each head: what the grids hand upward."""
        v, j = self._of_grids(self.fields.spine_v, 3), self._of_grids(self.fields.edge_a, 3)
        s = v * j.conj()
        value = np.concatenate([np.abs(v), s.real, s.imag], axis=1)
        value[:, :3][~self._observable] = np.nan
        return value

    @cached_property
    def head_covariance(self) -> FloatArray:
        """(n_grid, 9, 9, n_scenario) joint covariance of `head`, nan where nothing observes it."""
        covariance = self._of_grids(self.fields.head, 81)
        covariance = covariance.reshape(len(self.forest), 9, 9, covariance.shape[2])
        if covariance.size and not self._observable.all():
            missing = np.zeros((len(self.forest), 9, self.n_scenario), bool)
            missing[:, :3] = ~self._observable
            covariance[missing[:, :, None] | missing[:, None]] = np.nan
        return covariance

    @cached_property
    def voltage_v(self) -> ComplexArray:
        """(n_node, n_scenario) complex voltages of all grids one below the other [V], see `Forest.first_node`."""
        return self._of_nodes(self.fields.node_v)

    @cached_property
    def sigma_voltage_v(self) -> FloatArray:
        """(n_node, n_scenario) standard deviations of the magnitudes [V]."""
        return self._of_nodes(self.fields.node)

    def _of_grids(self, field: Field, rows: int) -> np.ndarray:
        return field.of_grids(self.forest.kind, self.forest.place, rows, self._columns(field))

    def _of_nodes(self, field: Field) -> np.ndarray:
        return field.of_rows(self.forest.members, self.forest.first_node, self._columns(field))

    def _columns(self, field: Field) -> int:
        """Return how many columns a grid has: none of what was not asked for."""
        return self.n_scenario if field.columns.any() or not len(self.forest) else 0


def _offsets(sizes: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _share(run: Callable[[int, int], None], count: int, threads: int) -> None:
    """Call `run(first, last)` over all kinds, some at a time, on several threads if asked."""
    size = min(KINDS_AT_ONCE, -(-count // (4 * threads)))
    pieces = [(first, min(first + size, count)) for first in range(0, count, max(size, 1))]
    if threads <= 1:
        for first, last in pieces:
            run(first, last)
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(run, first, last) for first, last in pieces]:
            future.result()
