"""Fixed errors of meters, told from noise by their residuals over time.

A real meter has a gain error that stays and noise that does not, a class tolerance holds both. What all other readings
say a meter should have read (r / S, see `residuals`) shows the sum in every estimate; over time the noise averages out.
Per meter d = z - prediction by the others = g h + c + e with gain g, value h, white noise e and the prediction's own
error c, which is as lasting as the gains it comes from. A Kalman filter follows g, as a random walk, from d; the
noise's share of the stated variance is learnt from the innovations. The reported sigma of the gain includes c in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.measurements import Meter
from flexmeter.estimation.residuals import Residuals
from flexmeter.powerflow.lanes import FloatArray

SIGMA_GAIN = 0.02
"""Standard deviation of a gain before anything is known: covers meters of class 1 and 2."""
DRIFT = 1e-6
"""Standard deviation by which a gain wanders between two estimates: 4e-5 in a day, 7e-4 in a year of minutes."""
_MEMORY = 10.0
"""Innovations that the noise share 1, which a state starts from, is worth."""
_ROWS = ("gain", "variance", "noise_share", "prediction", "count")


@dataclass(frozen=True, eq=False)
class MeterBias:
    """What is known of the gain errors of meters; all arrays (n_meter,).

    Attributes
    ----------
    meters : what each row is
    gain : estimated gain error, reading = (1 + gain) value + noise
    variance : of the filter, against the prediction by the other meters
    noise_share : share of a reading's stated variance that is fresh in every reading
    prediction : variance of the prediction by the others, as a gain: what no number of readings takes away
    count : estimates in which the meter's reading could be checked
    """

    meters: tuple[Meter, ...]
    gain: FloatArray
    variance: FloatArray
    noise_share: FloatArray
    prediction: FloatArray
    count: FloatArray

    @property
    def sigma_gain(self) -> FloatArray:
        """(n_meter,) standard deviation of `gain`; never better than the prediction by the others."""
        return np.asarray(np.sqrt(self.variance + self.prediction))

    def biased(self, limit: float, confidence_sigma: float = 3.0) -> tuple[Meter, ...]:
        """Return the meters whose gain error exceeds `limit` with so many standard deviations to spare."""
        beyond = np.abs(self.gain) - confidence_sigma * self.sigma_gain > limit
        return tuple(self.meters[row] for row in np.flatnonzero(beyond & (self.count > 0)))

    def corrected(self, value: ArrayLike, sigma: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return (n_meter, n_scenario) readings freed from the gains, and their smaller standard deviations.

        z / (1 + g), with the variance of the noise plus that of the gain, at most the stated one. Meters that
        could not be checked stay as they are.
        """
        z, s = np.asarray(value, float), np.asarray(sigma, float)
        s = np.broadcast_to(s[:, None] if s.ndim < z.ndim else s, z.shape)
        checked = (self.count > 0)[:, None]
        better = np.where(checked, z / (1 + self.gain[:, None]), z)
        left = np.sqrt(self.noise_share[:, None] * s**2 + (self.sigma_gain[:, None] * better) ** 2)
        return better, np.where(checked, np.minimum(left, s), s)

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and strings, ready for JSON."""
        rows: dict[str, object] = {name: getattr(self, name).tolist() for name in _ROWS}
        return {"meters": [[m.quantity, m.at, m.id, m.phase] for m in self.meters], **rows}

    @staticmethod
    def from_dict(data: Mapping[str, object]) -> MeterBias:
        """Return the state that `to_dict` gave.

        Raises
        ------
        MeasurementError
            a missing field, or a column of another length than the meters.
        """
        missing = [name for name in ("meters", *_ROWS) if not isinstance(data.get(name), Sequence)]
        if missing:
            raise MeasurementError([Finding("bias", (), name, "missing, expected a list") for name in missing])
        meters = tuple(Meter(*row) for row in data["meters"])  # type: ignore[attr-defined]
        columns = {name: np.array(data[name], float) for name in _ROWS}
        bad = [name for name, column in columns.items() if column.shape != (len(meters),)]
        if bad:
            raise MeasurementError([Finding("bias", (), name, f"expected {len(meters)} numbers") for name in bad])
        return MeterBias(meters, **columns)


def unknown_bias(meters: Sequence[Meter], sigma_gain: float = SIGMA_GAIN) -> MeterBias:
    """Return the state before anything was read: gain 0 with standard deviation `sigma_gain`."""
    zero = np.zeros(len(meters))
    return MeterBias(tuple(meters), zero, zero + sigma_gain**2, zero + 1.0, zero, zero)


def track_bias(
    state: MeterBias, found: Residuals, value: ArrayLike, *, drift: float = DRIFT, largest_sigma: float = 100.0
) -> MeterBias:
    """Return the state after the residuals of further estimates, whose scenarios are moments in order.

    Parameters
    ----------
    state : of the same meters
    found : residuals of estimates made with covariance, from uncorrected readings
    value : (n_meter, n_scenario) the readings
    drift : standard deviation of the gain's random walk between two moments
    largest_sigma : a residual tells nothing of a gain if it would have to be off by more sigmas than this to show

    Raises
    ------
    MeasurementError
        residuals of other meters than the state's.

    Notes
    -----
    R. E. Kalman, doi:10.1115/1.3662552, per meter: with d = r / S, h = z - d, R = noise_share sigma^2,
    v = d - g h, F = h^2 P + R: g += P h v / F, P = P R / F + drift^2, noise_share += (v^2 R / (F sigma^2) -
    noise_share) / (count + 10). A gain common to all meters moves the estimate and not the residuals: it stays unknown,
    and `prediction` says how much of it there may be.
    """
    if found.meters != state.meters:
        raise MeasurementError([Finding("residual", (), "meters", "not the meters of the state")])
    z = np.asarray(value, float)
    z = z[:, None] if z.ndim == 1 else z
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(np.sqrt(found.visible) * largest_sigma >= 1, found.visible, np.nan)
        error, stated = found.residual / share, found.sigma**2
        should = z - error
        lasting = stated * (1 / share - 1) / should**2
    usable = np.isfinite(error) & np.isfinite(lasting)
    gain, variance, noise = state.gain.copy(), state.variance.copy(), state.noise_share.copy()
    prediction, count = state.prediction.copy(), state.count.copy()
    for t in range(z.shape[1]):
        k = np.flatnonzero(usable[:, t])
        h, r = should[k, t], noise[k] * stated[k, t]
        innovation = error[k, t] - gain[k] * h
        total = h**2 * variance[k] + r
        gain[k] += variance[k] * h * innovation / total
        variance[k] = variance[k] * r / total + drift**2
        noise[k] += (innovation**2 * r / (total * stated[k, t]) - noise[k]) / (count[k] + _MEMORY)
        count[k] += 1
        prediction[k] += (lasting[k, t] - prediction[k]) / count[k]
    return MeterBias(state.meters, gain, variance, noise, prediction, count)
