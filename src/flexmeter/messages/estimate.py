"""Estimate: what an estimator of one area hands upward and to the store."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.quantities import Phase, QuantityName
from flexmeter.messages.readings import Clock, Column, find_column

Status = Literal["ok", "partly_unobservable", "not_converged"]
EstimateLevel = Literal["concentrator", "lv", "mv"]


class Head(msgspec.Struct, frozen=True, eq=False):
    """Summary of an area at its head bus: |V| [V], P [W], Q [var] of the phases a, b, c.

    Source: paper section 4.1 (voltage, P, Q and their uncertainties go to the level above).

    Attributes
    ----------
    values : (9,) |V| of a, b, c, then P, then Q into the area; nan = phase absent or unobservable.
    covariance : (9, 9) their joint covariance, nan rows and columns where unobservable.
    """

    values: NDArray[np.float64]
    covariance: NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True, eq=False):
    """State of one area at one instant, values with standard deviations.

    Attributes
    ----------
    source, boot, seq : the estimating service, its run and the number of the message in it.
    grid, level, area : what was estimated.
    topology : version of the switch vector that was assumed.
    time_ms : [ms UTC] instant of the measurements used.
    status : `ok`, or which part of the result is missing.
    iterations : of the weighted-least-squares solver.
    objective : the weighted sum of squared residuals J [-].
    degrees_of_freedom : measurements minus states.
    elements : names of the buses and branches.
    columns : what the rows of `values` and `sigma` hold, each column once.
    values, sigma : (columns, elements) results and standard deviations [unit of the quantity], nan =
        not estimated.
    head : the summary for the level above, or None at the top.
    clock : the clock of the measurements.
    """

    source: str
    boot: int
    seq: int
    grid: str
    level: EstimateLevel
    area: str
    topology: int
    time_ms: int
    status: Status
    iterations: int
    objective: float
    degrees_of_freedom: int
    elements: tuple[str, ...]
    columns: tuple[Column, ...]
    values: NDArray[np.float64]
    sigma: NDArray[np.float64]
    head: Head | None = None
    clock: Clock = "real"

    def column(self, quantity: QuantityName, phase: Phase) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return values and sigmas (elements,) of a column; raise `MessageError` without such one."""
        row = find_column(self.columns, quantity, phase)
        return self.values[row], self.sigma[row]
