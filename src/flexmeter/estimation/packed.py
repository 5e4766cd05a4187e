"""A compiled estimator in two small arrays: all that a forest of many different grids keeps of each of them.

An estimator of an LV grid of 100 customers takes some 150 kB: names, meters, maps and arrays with a header each. What
the kernels read of it fits in 20 kB: positions as 16-bit numbers where they fit, arrays that trees share by reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexmeter.estimation.covariance import Wanted
from flexmeter.estimation.model import EstimatorModel
from flexmeter.estimation.ties import Ties
from flexmeter.powerflow.lanes import FloatArray, IntArray
from flexmeter.powerflow.tree import unshunted, unturned

PIECE = 1 << 18
"""Numbers that a shelf takes from memory at a time."""
_IMPEDANCE, _TIES = (EstimatorModel._fields.index(name) for name in ("impedance", "ties"))
_ALONE = len(EstimatorModel._fields) - 2
_MODEL = _ALONE + len(Ties._fields)
_END = _MODEL + len(Wanted._fields) - 1
"""Where the fields that are no tuples end, then the ties, then what is wanted."""


class Compiled(NamedTuple):
    """What the kernels take of an estimator.

    `model`, `wanted` for the estimation; `node_spine`, `node_edge` (with `wanted.node_x`) for all voltages, see
    `expand`; `free_rows`, `phasor_rows` of the readings for the degrees of freedom; `slot` (n_meter,) the row
    each reading is combined into, empty where each has its own; `report` (REPORT n_aggregate, 1) of areas below that
    did not report.
    """

    model: EstimatorModel
    wanted: Wanted
    node_spine: IntArray
    node_edge: IntArray
    free_rows: IntArray
    phasor_rows: IntArray
    slot: IntArray
    report: FloatArray


class Pattern(NamedTuple):
    """How parts are packed, the same for most grids.

    `groups`: numbers of position arrays of equal lengths; `tails`: shapes of the number arrays without their lengths;
    `order` puts what comes out (positions, numbers, what is kept as it is) in the order of `_flat`.
    """

    groups: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]
    order: Callable[[Sequence[object]], tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Packed:
    """See `pack`; `lengths` of the groups of positions, then of the numbers."""

    pattern: Pattern
    lengths: tuple[int, ...]
    plain: tuple[object, ...]
    positions: NDArray[np.int16] | NDArray[np.int64]
    numbers: FloatArray


class Shelf:
    """Where packed estimators lie: in memory of their own, apart from all that is made and dropped on the way."""

    def __init__(self) -> None:
        self.patterns: dict[object, Pattern] = {}
        self._free: dict[type, np.ndarray] = {}

    def keep(self, array: np.ndarray, kind: type) -> np.ndarray:
        """Return a copy of a 1-d array."""
        free = self._free.get(kind)
        if free is None or len(free) < len(array):
            free = np.empty(max(PIECE, len(array)), kind)
        place, self._free[kind] = free[: len(array)], free[len(array) :]
        place[:] = array
        return place


def pack(compiled: Compiled, shelf: Shelf) -> Packed:
    """Return a compiled estimator in small."""
    x = compiled.wanted.node_x
    wide = np.flatnonzero(x[:, 1:].any(axis=(1, 2)))  # a leaf's drop takes the first column, a spine bus has none
    flat = (*_flat(compiled), compiled.model.impedance[:, :, 0::2], x[:, 0], wide, x[wide, 1:])
    shared = (unturned(len(compiled.model.parent)), unshunted(len(compiled.model.parent)))
    whole: list[tuple[int, IntArray]] = []
    real: list[tuple[int, FloatArray]] = []
    plain: list[tuple[int, object]] = []
    for place, item in enumerate(flat):
        if not isinstance(item, np.ndarray) or any(item is other for other in shared):
            plain.append((place, item))
        else:
            (real if item.dtype == np.float64 else whole).append((place, item))
    whole.sort(key=lambda part: len(part[1]))
    groups = [(length, len(list(group))) for length, group in groupby(len(array) for _, array in whole)]
    positions: IntArray = np.concatenate([array for _, array in whole])
    numbers = np.concatenate([array.ravel() for _, array in real])
    is_small = len(positions) == 0 or np.abs(positions).max() < 2**15
    counts, tails = tuple(count for _, count in groups), tuple(array.shape[1:] for _, array in real)
    order = tuple(np.argsort([place for place, _ in (*whole, *real, *plain)]).tolist())
    return Packed(
        pattern=shelf.patterns.setdefault((counts, tails, order), Pattern(counts, tails, itemgetter(*order))),
        lengths=(*(length for length, _ in groups), *(len(array) for _, array in real)),
        plain=tuple(item for _, item in plain),
        positions=shelf.keep(positions, np.int16 if is_small else np.int64),
        numbers=shelf.keep(numbers, np.float64),
    )


def unpack(packed: Packed, scratch: IntArray) -> Compiled:
    """Return what was packed; its positions lie in `scratch` until that is used again."""
    positions, numbers, pattern = scratch[: len(packed.positions)], packed.numbers, packed.pattern
    positions[:] = packed.positions
    items: list[object] = []
    end = 0
    for count, length in zip(pattern.groups, packed.lengths, strict=False):
        first, end = end, end + count * length
        items.extend(positions[first:end].reshape(count, length))
    end = 0
    for tail, length in zip(pattern.tails, packed.lengths[len(pattern.groups) :], strict=True):
        first, end = end, end + length * prod(tail)
        part = numbers[first:end]
        items.append(part.reshape(length, *tail) if tail else part)
    items.extend(packed.plain)
    flat = pattern.order(items)
    return _nested(flat[:-4], _impedance(flat[-4]), _node_x(*flat[-3:]))  # type: ignore[arg-type]


def _impedance(half: FloatArray) -> FloatArray:
    """Return the real form of impedances from its columns of the real parts."""
    result = np.empty((len(half), 6, 6))
    result[:, :, 0::2] = half
    np.negative(half[:, 1::2], out=result[:, 0::2, 1::2])
    result[:, 1::2, 1::2] = half[:, 0::2]
    return result


def _node_x(first: FloatArray, wide: IntArray, rest: FloatArray) -> FloatArray:
    x = np.zeros((len(first), 3, 2))
    x[:, 0] = first
    if len(wide):
        x[wide, 1:] = rest
    return x


def _flat(compiled: Compiled) -> tuple[object, ...]:
    """Return all parts but the impedances and `node_x`, which is the last of `wanted`."""
    model = compiled.model
    alone = [item for place, item in enumerate(model) if place not in {_IMPEDANCE, _TIES}]
    return (*alone, *model.ties, *compiled.wanted[:-1], *compiled[2:])


def _nested(flat: Sequence[object], impedance: FloatArray, node_x: FloatArray) -> Compiled:
    """Return what `_flat` took apart."""
    parts = list(flat[:_ALONE])
    parts.insert(_IMPEDANCE, impedance)
    parts.insert(_TIES, Ties._make(flat[_ALONE:_MODEL]))
    model, wanted = EstimatorModel._make(parts), Wanted._make([*flat[_MODEL:_END], node_x])
    return Compiled(model, wanted, *flat[_END:])  # type: ignore[arg-type]
