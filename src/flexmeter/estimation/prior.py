"""Forecast-aided estimation: earlier estimates as forecast of now, with the doubt their age deserves.

A load's power is taken as mean-reverting: it stays near the last estimate for a while and near its usual value for that
time of day in the long run. With the last estimate x (variance v), the usual value u (variance w, for instance
yesterday's estimate and what two days differ by), age t and correlation time T

    r = exp(-t / T)      mean = u + r (x - u)      variance = r^2 v + (1 - r^2) w

so that t = 0 gives the last estimate, t >> T the usual value, and the variance never grows without limit
(Ornstein and Uhlenbeck; forecast-aided estimation: M. B. Do Coutto Filho and J. C. S. de Souza,
doi:10.1109/TPWRS.2009.2030295).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.estimate import Estimate
from flexmeter.estimation.forecast import Forecast
from flexmeter.estimation.measurements import Meter
from flexmeter.powerflow.lanes import FloatArray
from flexmeter.powerflow.network import Network


@dataclass(frozen=True, eq=False)
class ProcessNoise:
    """How loads move, all (n_injection,) or one number for all.

    Attributes
    ----------
    sigma_active_power_w, sigma_reactive_power_var : standard deviation of the power around its usual value [W], [var]
    correlation_time_s : T, after which a deviation has fallen to 1/e [s]
    """

    sigma_active_power_w: FloatArray
    sigma_reactive_power_var: FloatArray
    correlation_time_s: FloatArray


def forecast_from(estimate: Estimate, scenario: int = -1) -> Forecast:
    """Return the injections of one scenario of an estimate (made with covariance) as forecast of the same moment.

    Raises
    ------
    MeasurementError
        a scenario that did not converge: it has nothing to say.
    """
    if not estimate.converged[scenario]:
        text = f"scenario {scenario} did not converge, expected an estimate"
        raise MeasurementError([Finding("forecast", (), "estimate", text)], estimate.network.name)
    power = estimate.power_va[:, scenario]
    return Forecast(
        power.real.copy(),
        estimate.sigma_active_power_w[:, scenario].copy(),
        power.imag.copy(),
        estimate.sigma_reactive_power_var[:, scenario].copy(),
    )


def widened(forecast: Forecast, process: ProcessNoise) -> Forecast:
    """Return yesterday's estimate as usual value of now: its variance plus that between two such days."""
    return Forecast(
        forecast.active_power_w,
        np.hypot(forecast.sigma_active_power_w, process.sigma_active_power_w),
        forecast.reactive_power_var,
        np.hypot(forecast.sigma_reactive_power_var, process.sigma_reactive_power_var),
    )


def aged_forecast(last: Forecast, usual: Forecast, age_s: float, correlation_time_s: ArrayLike) -> Forecast:
    """Return the forecast of now from the last estimate and the usual value.

    Parameters
    ----------
    last : the last estimate (`forecast_from`), or an earlier result of this function
    usual : mean and sigma without any news: yesterday's (`widened`), a profile, `default_forecast`
    age_s : time since `last` [s]
    correlation_time_s : T, (n_injection,) or one number [s]

    Raises
    ------
    MeasurementError
        a negative age, a correlation time that is not positive.
    """
    time = np.asarray(correlation_time_s, float)
    if not age_s >= 0 or not (time > 0).all():
        text = f"age {age_s} s, correlation time from {time.min()} s: expected 0 or more, above 0"
        raise MeasurementError([Finding("forecast", (), "age_s", text)])
    kept = np.exp(-age_s / time)
    fresh = 1 - kept**2
    return Forecast(
        usual.active_power_w + kept * (last.active_power_w - usual.active_power_w),
        np.sqrt(kept**2 * last.sigma_active_power_w**2 + fresh * usual.sigma_active_power_w**2),
        usual.reactive_power_var + kept * (last.reactive_power_var - usual.reactive_power_var),
        np.sqrt(kept**2 * last.sigma_reactive_power_var**2 + fresh * usual.sigma_reactive_power_var**2),
    )


def process_noise(estimate: Estimate, usual: Forecast, step_s: float) -> ProcessNoise:
    """Return the process noise seen in a series of estimates, `step_s` apart [s].

    Parameters
    ----------
    estimate : scenarios in order of time, made with covariance
    usual : value around which the powers move, (n_injection,) or (n_injection, n_scenario)

    Notes
    -----
    Variance of the deviations minus that of the estimates' own noise, and the correlation r of successive deviations,
    T = -step / ln r with r between 0.01 and 0.999 (noise of successive estimates taken as independent).
    """
    power = estimate.power_va
    sigma_p, correlation = _wandering(power.real - _column(usual.active_power_w), estimate.sigma_active_power_w)
    sigma_q, _ = _wandering(power.imag - _column(usual.reactive_power_var), estimate.sigma_reactive_power_var)
    return ProcessNoise(sigma_p, sigma_q, -step_s / np.log(np.clip(correlation, 0.01, 0.999)))


def _wandering(deviation: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (n_injection,) standard deviation and correlation of neighbours, the noise `sigma` taken off.

    At least 1 % of the mean square counts as movement: a series that seems quieter than its noise may still move.
    """
    square = np.nanmean(deviation**2, axis=1)
    variance = np.maximum(square - np.nanmean(sigma**2, axis=1), 0.01 * square)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nanmean(deviation[:, 1:] * deviation[:, :-1], axis=1) / variance
    return np.sqrt(variance), np.nan_to_num(correlation, nan=0.0)


def aided(
    network: Network,
    meters: Sequence[Meter],
    value: ArrayLike,
    sigma: ArrayLike,
    forecast: Forecast,
    *,
    only_missing: bool = True,
) -> tuple[FloatArray, FloatArray]:
    """Return readings of loads' P and Q with the forecast in them, ready for `Estimator.estimate`.

    Parameters
    ----------
    network, meters : the estimator's
    value, sigma : (n_meter, n_scenario) readings, nan = missing
    forecast : (n_injection,) or (n_injection, n_scenario) mean and sigma
    only_missing : fill gaps only; otherwise also combine readings with the forecast, by weight: mean
        (z / s^2 + f / t^2) / (1 / s^2 + 1 / t^2). That pays where a reading is hardly better than what is known
        already, and costs sharpness in the tests of `bad_data`, which then see the combination.

    Returns
    -------
    value, sigma : (n_meter, n_scenario); rows that are not P or Q of a load as they were

    Notes
    -----
    A load without meters for P and Q has no row: give the estimator meters for it that never read.
    """
    z, s = (np.asarray(item, float) for item in (value, sigma))
    z, s = (item[:, None] if item.ndim == 1 else item for item in (z, s))
    z, s = z.copy(), np.array(np.broadcast_to(s, z.shape))
    for quantity, mean, spread in (
        ("active_power", forecast.active_power_w, forecast.sigma_active_power_w),
        ("reactive_power", forecast.reactive_power_var, forecast.sigma_reactive_power_var),
    ):
        at = [row for row, meter in enumerate(meters) if meter.at == "load" and meter.quantity == quantity]
        of = [network.injection_row[meters[row].id, meters[row].phase] for row in at]
        z[at], s[at] = _combined(z[at], s[at], _column(mean)[of], _column(spread)[of], only_missing)
    return z, s


def _combined(
    z: FloatArray, s: FloatArray, mean: FloatArray, spread: FloatArray, only_missing: bool
) -> tuple[FloatArray, FloatArray]:
    missing = np.isnan(z)
    with np.errstate(divide="ignore", invalid="ignore"):
        trust = np.zeros_like(z) if only_missing else np.where(s > 0, s**2 / (s**2 + spread**2), 0.0)
    trust = np.where(missing, 1.0, trust)
    together = np.where(missing, mean, z + trust * (mean - z))
    return together, np.where(missing, spread, s * np.sqrt(1 - np.where(missing, 0.0, trust)))


def _column(array: FloatArray) -> FloatArray:
    wide = np.asarray(array, float)
    return wide[:, None] if wide.ndim == 1 else wide
