"""What the readings disagree with: residuals, their own standard deviations, and what they could reveal at all.

For the weighted-least-squares estimate the residual r = z - h(x) of a reading has the variance sigma^2 - sigma_h^2,
sigma_h the standard deviation of the fitted value: the share S = 1 - (sigma_h / sigma)^2 of an error in the reading
stays visible in its residual, the rest moves the estimate (S: diagonal of the residual sensitivity matrix; A. Abur and
A. Gomez-Exposito, Power System State Estimation, 2004, chapter 5). A reading with S = 0 is critical: no other reading
checks it, and no test can find its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.estimate import Estimate
from flexmeter.estimation.measurements import Meter
from flexmeter.powerflow.lanes import FloatArray

CRITICAL_SHARE = 1e-6
"""Below this visible share S a reading counts as critical: an error would have to exceed 1,000 sigma to show."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """Residuals of readings, rows as the estimator's meters.

    Attributes
    ----------
    meters : what each row is
    residual : (n_meter, n_scenario) r = reading - fitted [V, W, var, A]; nan where nothing was read
    sigma : (n_meter, n_scenario) standard deviation of the reading, the same unit
    visible : (n_meter, n_scenario) S = 1 - (sigma_h / sigma)^2, 0 to 1: share of an error that stays in the residual
    """

    meters: tuple[Meter, ...]
    residual: FloatArray
    sigma: FloatArray
    visible: FloatArray

    @property
    def critical(self) -> np.ndarray:
        """(n_meter, n_scenario) whether a reading is there that no other reading checks."""
        return np.asarray(self.visible < CRITICAL_SHARE)

    @property
    def testable(self) -> np.ndarray:
        """(n_meter, n_scenario) whether a reading is there and other readings check it."""
        return np.asarray(self.visible >= CRITICAL_SHARE)

    @property
    def normalised(self) -> FloatArray:
        """(n_meter, n_scenario) r / (sigma sqrt(S)), standard normal for good readings; nan where not testable."""
        return self._over(self.sigma * np.sqrt(self._share))

    @property
    def error(self) -> FloatArray:
        """(n_meter, n_scenario) r / S: the reading minus what all the others say it should be; nan if not testable."""
        return self._over(self._share)

    @property
    def sigma_error(self) -> FloatArray:
        """(n_meter, n_scenario) standard deviation of `error`: sigma / sqrt(S)."""
        return np.asarray(self.sigma / np.sqrt(self._share))

    def detectable(self, false_alarm: float = 0.01, missed: float = 0.01) -> FloatArray:
        """Return the smallest error that the normalised residual shows [V, W, var, A]; inf where critical.

        (t + u) sigma / sqrt(S) with t the threshold of `identification_threshold` at the rate of false alarms per
        scenario and u the normal quantile of the share of errors missed.
        """
        limit = identification_threshold(self.testable.sum(0), false_alarm)
        size = np.asarray((limit - ndtri(missed)) * self.sigma_error)
        size[self.critical] = np.inf
        return size

    @property
    def _share(self) -> FloatArray:
        return np.where(self.testable, self.visible, np.nan)

    def _over(self, divisor: FloatArray) -> FloatArray:
        return np.asarray(self.residual / divisor)


def residuals(estimate: Estimate, meters: Sequence[Meter], value: ArrayLike, sigma: ArrayLike) -> Residuals:
    """Return the residuals of the readings an estimate was made from (with `covariance=True`).

    Parameters
    ----------
    estimate : what `Estimator.estimate` made of the readings
    meters : the estimator's meters
    value, sigma : (n_meter, n_scenario) or (n_meter,) what was given to it

    Raises
    ------
    MeasurementError
        other meters or scenarios than the estimate's, or an estimate without standard deviations.

    Notes
    -----
    Powers read once per customer have next to no redundancy; S then measures how much voltages know of them. A reading
    given as exact (sigma 0) is critical. Scenarios that did not converge give nan, and so do
    magnitudes of currents that were left out.
    """
    fitted = estimate.fitted
    z, s = (np.asarray(item, float) for item in (value, sigma))
    z, s = (item[:, None] if item.ndim == 1 else item for item in (z, s))
    if z.shape != fitted.shape or len(meters) != len(z) or s.shape not in (z.shape, (len(z), 1)):
        text = f"{len(meters)} meters, shapes {z.shape} and {s.shape} (sigma), expected {fitted.shape}"
        raise MeasurementError([Finding("residual", (), "value", text)], estimate.network.name)
    sigma_fitted = estimate.sigma_fitted
    if sigma_fitted.shape != fitted.shape:
        text = "no standard deviations in the estimate, expected one made with covariance=True"
        raise MeasurementError([Finding("residual", (), "estimate", text)], estimate.network.name)
    s = np.broadcast_to(s, z.shape)
    known = ~np.isnan(z) & estimate.converged & ~estimate.left_out
    with np.errstate(invalid="ignore", divide="ignore"):
        visible = np.where(s > 0, 1 - (sigma_fitted / s) ** 2, 0.0)
    return Residuals(
        meters=tuple(meters),
        residual=np.where(known, _difference(meters, z, fitted), np.nan),
        sigma=np.where(known, s, np.nan),
        visible=np.where(known, np.clip(visible, 0, 1), np.nan),
    )


def _difference(meters: Sequence[Meter], value: FloatArray, fitted: FloatArray) -> FloatArray:
    """Return value - fitted, angles the short way round."""
    off = value - fitted
    angles = [row for row, meter in enumerate(meters) if meter.quantity.endswith("_angle")]
    off[angles] = np.remainder(off[angles] + np.pi, 2 * np.pi) - np.pi
    return off


def identification_threshold(n_tested: ArrayLike, false_alarm: float) -> FloatArray:
    """Return the largest |normalised residual| that good readings exceed in a share `false_alarm` of scenarios.

    n_tested : number of readings tested in each scenario; none at all gives inf

    Two-sided normal quantile at 1 - (1 - false_alarm)^(1/n) per reading. Exact for independent residuals; correlated
    ones exceed it less often (Z. Sidak, doi:10.1080/01621459.1967.10482935).
    """
    n = np.asarray(n_tested, float)
    with np.errstate(divide="ignore"):
        each = -np.expm1(np.log1p(-false_alarm) / n)
    return np.asarray(np.where(n > 0, -ndtri(each / 2), np.inf))
