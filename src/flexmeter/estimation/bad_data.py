"""Gross errors: is there one (chi-square), which reading is it (largest normalised residual), and living with them.

Method and limits: docs/methods/bad-data.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, chdtri

from flexmeter.estimation.estimate import Estimate, Reports
from flexmeter.estimation.estimator import Estimator
from flexmeter.estimation.measurements import Meter
from flexmeter.estimation.residuals import Residuals, identification_threshold, residuals
from flexmeter.powerflow.lanes import FloatArray, IntArray

ODDS = 100.0
"""A reading alone is taken to be the culprit if no other has more than one hundredth of its odds."""
PLAUSIBLE = 300.0
"""Standard deviation of gross errors, in sigma of the reading: a class 1 reading that is off by three times itself."""
HUBER_LIMIT = 1.345
"""Residual in sigma from which Huber's weight falls: 95 % efficiency on good readings."""


@dataclass(frozen=True, eq=False)
class ChiSquareTest:
    """Whether the readings of each scenario agree with the model as well as their sigmas promise.

    Attributes
    ----------
    objective : (n_scenario,) J
    degrees_of_freedom : (n_scenario,) its mean when all is well
    threshold : (n_scenario,) J that good readings exceed in a share `false_alarm` of scenarios; inf without redundancy
    p_value : (n_scenario,) probability of a J at least as large
    """

    objective: FloatArray
    degrees_of_freedom: IntArray
    threshold: FloatArray
    p_value: FloatArray
    false_alarm: float

    @property
    def suspicious(self) -> np.ndarray:
        """(n_scenario,) whether J exceeds its threshold."""
        return np.asarray(self.objective > self.threshold)


def chi_square_test(estimate: Estimate, false_alarm: float = 0.01) -> ChiSquareTest:
    """Return the test of J against the chi-square distribution of its degrees of freedom.

    Source: A. Abur and A. Gomez-Exposito, Power System State Estimation, 2004, chapter 5. Forecasts of missing readings
    are in J, so an honest forecast keeps the distribution and one with a sigma too large makes the test lenient.
    """
    degrees = np.asarray(estimate.degrees_of_freedom)
    usable = np.maximum(degrees, 1)
    some = degrees > 0
    return ChiSquareTest(
        objective=estimate.objective,
        degrees_of_freedom=degrees,
        threshold=np.where(some, chdtri(usable, false_alarm), np.inf),
        p_value=np.where(some, chdtrc(usable, estimate.objective), 1.0),
        false_alarm=false_alarm,
    )


@dataclass(frozen=True, slots=True)
class Removal:
    """A reading taken out: its row and scenario, normalised residual, and how far off it was [V, W, var, A].

    `alternatives` is how many other readings were taken out with it because nothing tells which of them is wrong.
    """

    scenario: int
    row: int
    meter: Meter
    normalised: float
    error: float
    sigma_error: float
    alternatives: int


@dataclass(frozen=True, eq=False)
class BadData:
    """What is left after the gross errors were taken out.

    Attributes
    ----------
    estimate : from the readings that are left, all scenarios
    value : (n_meter, n_scenario) readings, nan where one was missing or taken out
    removals : what was taken out, in the order found
    clean : (n_scenario,) whether the largest normalised residual is now within its threshold
    """

    estimate: Estimate
    value: FloatArray
    removals: tuple[Removal, ...]
    clean: np.ndarray


def remove_bad_data(
    estimator: Estimator,
    value: ArrayLike,
    sigma: ArrayLike,
    *,
    false_alarm: float = 0.01,
    max_rounds: int = 10,
    reports: Reports | None = None,
    source_angle_rad: ArrayLike | None = None,
    threads: int = 1,
) -> BadData:
    """Take out the reading with the largest normalised residual, estimate again, until every scenario is clean.

    Parameters
    ----------
    estimator, value, sigma, reports, source_angle_rad, threads : as for `Estimator.estimate`
    false_alarm : share of scenarios without gross error in which a good reading may be taken out
    max_rounds : estimates with something taken out; a scenario that still is not clean then says so in `clean`

    Notes
    -----
    E. Handschin et al., doi:10.1109/T-PAS.1975.31858. Without reading i, J is smaller by its squared normalised
    residual r_i^2; with errors of N(0, (tau sigma)^2), tau = `PLAUSIBLE`, the log-odds of i being the one wrong reading
    are (r_i^2 k / (1 + k) - ln(1 + k)) / 2 with k = tau^2 S_i, so that a voltage error is not blamed on a power reading
    that would have to be wrong by a hundred kilowatts. Readings within `ODDS` of the best go out together, else an
    innocent one might take the blame and a wrong number be left with a small sigma: customers whose powers are checked
    by one sum are told apart by voltages only. A critical reading is never taken out: `Residuals.detectable` says what
    can be found at all. Only scenarios with a suspect are estimated again.
    """
    z = np.array(value, float)
    z = z[:, None] if z.ndim == 1 else z
    s = np.asarray(sigma, float)
    s = np.array(np.broadcast_to(s[:, None] if s.ndim == 1 else s, z.shape))
    angle = _wide(source_angle_rad, z.shape[1])
    removals: list[Removal] = []
    open_, clean = np.arange(z.shape[1]), np.ones(z.shape[1], bool)
    estimate = estimator.estimate(z, s, reports=reports, source_angle_rad=angle, threads=threads)
    first = found = estimate
    for round_ in range(max_rounds + 1):
        suspects = _suspects(residuals(found, estimator.meters, z[:, open_], s[:, open_]), open_, false_alarm)
        open_ = np.array(sorted({item.scenario for item in suspects}), np.int64)
        if round_ == max_rounds or not suspects:
            break
        z[[item.row for item in suspects], [item.scenario for item in suspects]] = np.nan
        removals += suspects
        some_angle = None if angle is None else angle[:, open_]
        found = estimator.estimate(
            z[:, open_], s[:, open_], reports=_some(reports, open_), source_angle_rad=some_angle, threads=threads
        )
    clean[open_] = False
    if removals:
        estimate = estimator.estimate(z, s, reports=reports, source_angle_rad=angle, threads=threads)
    return BadData(estimate, z, tuple(removals), clean & first.converged & estimate.converged)


def _suspects(found: Residuals, scenarios: IntArray, false_alarm: float) -> list[Removal]:
    """Return the reading with the largest normalised residual beyond its limit, and those as good as it."""
    normalised, error, sigma_error = found.normalised, found.error, found.sigma_error
    square = np.nan_to_num(normalised**2, nan=-1.0)
    limit = identification_threshold(found.testable.sum(0), false_alarm)
    largest = square.max(0, initial=0.0)
    near = (square > largest - 2 * np.log(ODDS)) & (largest > limit**2) & found.testable
    room = PLAUSIBLE**2 * found.visible
    log_odds = np.where(near, (square * room / (1 + room) - np.log1p(room)) / 2, -np.inf)
    suspect = near & (log_odds > log_odds.max(0, initial=-np.inf) - np.log(ODDS))
    return [
        Removal(
            scenario=int(scenarios[column]),
            row=int(row),
            meter=found.meters[row],
            normalised=float(normalised[row, column]),
            error=float(error[row, column]),
            sigma_error=float(sigma_error[row, column]),
            alternatives=int(suspect[:, column].sum()) - 1,
        )
        for column, row in np.argwhere(suspect.T)
    ]


def _some(reports: Reports | None, scenarios: IntArray) -> Reports | None:
    if reports is None:
        return None
    return Reports(reports.value[..., scenarios], reports.covariance[..., scenarios])


def _wide(angle: ArrayLike | None, n_scenario: int) -> FloatArray | None:
    if angle is None:
        return None
    each = np.asarray(angle, float)
    return np.array(np.broadcast_to(each[:, None] if each.ndim == 1 else each, (3, n_scenario)))


@dataclass(frozen=True, eq=False)
class RobustEstimate:
    """Estimate with Huber's weights.

    Attributes
    ----------
    estimate : its standard deviations take the weights as known
    weight : (n_meter, n_scenario) 1 for a reading within the limit, towards 0 with its residual; nan = missing
    rounds : estimates that were needed
    settled : whether no weight moved more than the tolerance in the last round
    """

    estimate: Estimate
    weight: FloatArray
    rounds: int
    settled: bool


def huber(
    estimator: Estimator,
    value: ArrayLike,
    sigma: ArrayLike,
    *,
    limit: float = HUBER_LIMIT,
    tolerance: float = 1e-3,
    max_rounds: int = 50,
    threads: int = 1,
) -> RobustEstimate:
    """Return the estimate that counts residuals beyond `limit` sigma by their size and not by its square.

    Parameters
    ----------
    estimator, value, sigma, threads : as for `Estimator.estimate`
    limit : residual [sigma] from which the weight falls
    tolerance : largest change of a weight that counts as settled
    max_rounds : cap on the estimates

    Notes
    -----
    P. J. Huber, doi:10.1214/aoms/1177703732, by iterated re-weighting: w = min(1, limit / |r / sigma|), sigma becomes
    sigma / sqrt(w). It bounds the harm of voltage errors without deciding which readings are bad. It cannot help where
    residuals stay small whatever the error, that is for readings with little redundancy (customers' powers).
    """
    z = np.asarray(value, float)
    z = z[:, None] if z.ndim == 1 else z
    s = np.asarray(sigma, float)
    s = np.broadcast_to(s[:, None] if s.ndim == 1 else s, z.shape)
    weight = np.where(np.isnan(z), np.nan, 1.0)
    settled = False
    rounds = 0
    while not settled and rounds < max_rounds:
        rounds += 1
        estimate = estimator.estimate(z, s / np.sqrt(weight), covariance=False, threads=threads)
        known = estimate.converged & np.isfinite(estimate.fitted) & ~estimate.left_out
        scaled = np.where(known, np.abs(z - estimate.fitted), 0.0) / np.where(s > 0, s, np.inf)
        new = np.minimum(1.0, limit / np.maximum(scaled, limit))
        new = np.where(np.isnan(z), np.nan, new)
        moved = np.abs(new - weight)
        settled = bool(np.nanmax(moved, initial=0.0) <= tolerance)
        weight = new
    final = estimator.estimate(z, s / np.sqrt(weight), threads=threads)
    return RobustEstimate(final, weight, rounds, settled)
