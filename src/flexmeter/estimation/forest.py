"""Many grids in one call: a whole DSO's LV grids and one or more minutes.

Grids that share an estimator (same network, same meters) are scenarios of one batch and fill the lanes of the kernel;
grids of their own are estimated one after the other. Both give exactly what a call per grid would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.estimate import Estimate
from flexmeter.estimation.estimator import Estimator
from flexmeter.powerflow.lanes import ComplexArray, FloatArray, IntArray


class Forest:
    """Grids, each with its estimator, and where their rows lie in concatenated arrays.

    Parameters
    ----------
    estimators : one per grid; the same object for grids with the same network and the same meters

    Attributes
    ----------
    first_meter, first_node : (n_grid + 1,) readings of grid k are rows first_meter[k] .. first_meter[k + 1], its
        voltages rows first_node[k] .. first_node[k + 1]
    """

    def __init__(self, estimators: Sequence[Estimator]) -> None:
        self.estimators = tuple(estimators)
        members: dict[int, list[int]] = {}
        for grid, estimator in enumerate(self.estimators):
            members.setdefault(id(estimator), []).append(grid)
        self.members = tuple(np.array(grids, np.int64) for grids in members.values())
        self.kinds: tuple[Estimator, ...] = tuple(self.estimators[int(grids[0])] for grids in self.members)
        self.first_meter = _offsets([len(estimator.meters) for estimator in self.estimators])
        self.first_node = _offsets([len(estimator.network.nodes) for estimator in self.estimators])

    def __len__(self) -> int:
        """Return the number of grids."""
        return len(self.estimators)

    def estimate(
        self,
        value: ArrayLike,
        sigma: ArrayLike,
        *,
        covariance: bool = True,
        tolerance_pu: float = 1e-9,
        max_iterations: int = 100,
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
        z, s = (np.asarray(item, float) for item in (value, sigma))
        z, s = (item[:, None] if item.ndim == 1 else item for item in (z, s))
        expected = (int(self.first_meter[-1]), z.shape[1])
        if z.shape != expected or s.shape != expected:
            text = f"shapes {z.shape} and {s.shape}, expected both ({expected[0]}, n_scenario)"
            raise MeasurementError([Finding("forest", (), "value", text)])
        few = len(self.kinds) < 4 * threads

        def run(kind: int) -> Estimate:
            rows = _rows(self.first_meter, self.members[kind], len(self.kinds[kind].meters))
            estimator: Estimator = self.kinds[kind]
            return estimator.estimate(
                _gather(z, rows),
                _gather(s, rows),
                covariance=covariance,
                tolerance_pu=tolerance_pu,
                max_iterations=max_iterations,
                threads=threads if few else 1,
                check=check,
            )

        return ForestEstimate(self, z.shape[1], _each(run, len(self.kinds), 1 if few else threads))


@dataclass(frozen=True, eq=False)
class ForestEstimate:
    """Estimates of all grids: arrays over all of them, or one grid's `Estimate` with `grid`.

    Attributes
    ----------
    forest : what was estimated, n_scenario times
    kinds : the estimate of each kind of grid, its grids and scenarios side by side as scenarios
    """

    forest: Forest
    n_scenario: int
    kinds: tuple[Estimate, ...]

    def grid(self, number: int) -> Estimate:
        """Return the estimate of one grid, as its own estimator would have given it."""
        kind, place = self._place[number]
        return _scenarios(self.kinds[kind], slice(place * self.n_scenario, (place + 1) * self.n_scenario))

    @cached_property
    def _place(self) -> list[tuple[int, int]]:
        place = [(0, 0)] * len(self.forest)
        for kind, grids in enumerate(self.forest.members):
            for k, grid in enumerate(grids):
                place[grid] = kind, k
        return place

    @cached_property
    def objective(self) -> FloatArray:
        """(n_grid, n_scenario) J."""
        return self._of_grids(lambda estimate: estimate.objective, ())

    @cached_property
    def degrees_of_freedom(self) -> IntArray:
        """(n_grid, n_scenario) readings minus states."""
        return self._of_grids(lambda estimate: estimate.degrees_of_freedom, (), np.int64)

    @cached_property
    def iterations(self) -> IntArray:
        """(n_grid, n_scenario) Gauss-Newton steps, -1 where not converged."""
        return self._of_grids(lambda estimate: estimate.iterations, (), np.int64)

    @property
    def converged(self) -> np.ndarray:
        """(n_grid, n_scenario) whether the iteration reached its tolerance."""
        return np.asarray(self.iterations >= 0)

    @cached_property
    def head(self) -> FloatArray:
        """(n_grid, 9, n_scenario) |V| [V], P [W], Q [var] of a, b, c at each head: what the grids hand upward."""
        return self._of_grids(lambda estimate: estimate.head, (9,))

    @cached_property
    def head_covariance(self) -> FloatArray:
        """(n_grid, 9, 9, n_scenario) joint covariance of `head`."""
        return self._of_grids(lambda estimate: estimate.head_covariance, (9, 9))

    @cached_property
    def voltage_v(self) -> ComplexArray:
        """(n_node, n_scenario) complex voltages of all grids one below the other [V], see `Forest.first_node`."""
        return self._of_nodes(lambda estimate: estimate.voltage_v, np.complex128)

    @cached_property
    def sigma_voltage_v(self) -> FloatArray:
        """(n_node, n_scenario) standard deviations of the magnitudes [V]."""
        return self._of_nodes(lambda estimate: estimate.sigma_voltage_v, np.float64)

    def _of_grids(
        self, part: Callable[[Estimate], np.ndarray], shape: tuple[int, ...], kind: type = np.float64
    ) -> np.ndarray:
        result: np.ndarray = np.empty((len(self.forest), *shape, self.n_scenario), kind)
        for grids, estimate in zip(self.forest.members, self.kinds, strict=True):
            values = part(estimate).reshape(*shape, len(grids), self.n_scenario)
            result[grids] = np.moveaxis(values, -2, 0)
        return result

    def _of_nodes(self, part: Callable[[Estimate], np.ndarray], kind: type) -> np.ndarray:
        first = self.forest.first_node
        result: np.ndarray = np.empty((int(first[-1]), self.n_scenario), kind)
        for grids, estimate in zip(self.forest.members, self.kinds, strict=True):
            values = part(estimate)
            rows = _rows(first, grids, len(values))
            result[rows.ravel()] = values.reshape(-1, self.n_scenario)
        return result


def _offsets(sizes: Sequence[int]) -> IntArray:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _rows(first: IntArray, grids: IntArray, size: int) -> IntArray:
    """Return (size, n_grids) rows of some grids of the same size in a concatenated array."""
    return np.asarray(first[grids] + np.arange(size)[:, None])


def _gather(array: FloatArray, rows: IntArray) -> FloatArray:
    """Return (size, n_grids * n_scenario); one grid's rows are a piece of the array and are not copied."""
    if rows.shape[1] == 1 and len(rows):
        return array[rows[0, 0] : rows[-1, 0] + 1]
    return np.asarray(array[rows].reshape(len(rows), -1))


def _each(run: Callable[[int], Estimate], count: int, threads: int) -> tuple[Estimate, ...]:
    if threads <= 1:
        return tuple(run(kind) for kind in range(count))
    pieces = np.array_split(np.arange(count), 4 * threads)
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(lambda piece: [run(int(kind)) for kind in piece], pieces))
    return tuple(estimate for piece in done for estimate in piece)


def _scenarios(estimate: Estimate, part: slice) -> Estimate:
    """Return some scenarios of an estimate: every array has them last, unless it was not asked for."""
    n = len(estimate.iterations)
    values = {item.name: getattr(estimate, item.name) for item in fields(estimate)}
    arrays = {name: value[..., part] for name, value in values.items() if getattr(value, "shape", (0,))[-1] == n}
    return replace(estimate, **arrays)
