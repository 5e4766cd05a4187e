"""What a set of meters can tell of a network: judged from standard deviations before any reading is there.

The variance of every estimated quantity is a sum of what readings and what forecasts of unread loads contribute. With
the variance of all forecasts scaled by f, the share owing to forecasts is d ln(variance) / d ln(f), because at the
optimum a change of the weights alone does not change the variance (envelope theorem). A quantity counts as observable
while readings carry at least half of its variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.estimator import Estimator
from flexmeter.estimation.forecast import Forecast, default_forecast
from flexmeter.estimation.measurements import Meter, relative_sigma
from flexmeter.estimation.residuals import Residuals, residuals
from flexmeter.estimation.root import PRIOR
from flexmeter.powerflow.lanes import FloatArray
from flexmeter.powerflow.network import Network

SHARE_LIMIT = 0.5
"""Largest share of a variance that may rest on forecasts in what is called observable."""
_STEP = 0.01
_ACCURACY = {
    "voltage": (0.01, 0.0),
    "active_power": (0.01, 1.0),
    "reactive_power": (0.02, 1.0),
    "current": (0.01, 0.01),
}


@dataclass(frozen=True, eq=False)
class Observability:
    """What is known where, at one operating point.

    Attributes
    ----------
    network, meters : what was looked at
    node_share, active_share, reactive_share : (n_node,), (n_injection,) twice: share of the variance of |V|, P, Q that
        rests on forecasts, 0 (readings only) to 1 (forecast only); 1 where no voltage reading tells anything
    sigma_voltage_v : (n_node,) standard deviation [V]; nan where no voltage reading tells anything
    sigma_active_power_w, sigma_reactive_power_var : (n_injection,) standard deviations [W], [var]
    redundancy : readings minus states: expected J, degrees of freedom of the chi-square test
    readings : residual shares of all meters, (n_meter, 1): `visible`, `critical`, `detectable`
    """

    network: Network
    meters: tuple[Meter, ...]
    node_share: FloatArray
    active_share: FloatArray
    reactive_share: FloatArray
    sigma_voltage_v: FloatArray
    sigma_active_power_w: FloatArray
    sigma_reactive_power_var: FloatArray
    redundancy: int
    readings: Residuals

    @property
    def unobservable_nodes(self) -> tuple[tuple[str, str], ...]:
        """(bus, phase) whose voltage rests on forecasts, or on nothing."""
        return _named(self.network.nodes, self.node_share > SHARE_LIMIT)

    @property
    def unobservable_injections(self) -> tuple[tuple[str, str], ...]:
        """(load or aggregate, phase) whose active or reactive power rests on forecasts."""
        worst = np.maximum(self.active_share, self.reactive_share)
        return _named(self.network.injections, worst > SHARE_LIMIT)

    @property
    def critical_meters(self) -> tuple[Meter, ...]:
        """Meters that no other meter checks: no test can find an error in them."""
        return tuple(meter for meter, alone in zip(self.meters, self.readings.critical[:, 0], strict=True) if alone)

    def detectable(self, false_alarm: float = 0.01, missed: float = 0.01) -> FloatArray:
        """Return (n_meter,) the smallest error of each meter that can be found [V, W, var, A]; inf if critical."""
        return np.asarray(self.readings.detectable(false_alarm, missed)[:, 0])


def _named(names: tuple[tuple[str, str], ...], where: np.ndarray) -> tuple[tuple[str, str], ...]:
    return tuple(names[row] for row in np.flatnonzero(where))


def observability(
    network: Network,
    meters: Iterable[Meter],
    *,
    sigma: ArrayLike | None = None,
    forecast: Forecast | None = None,
    active_power_w: ArrayLike | None = None,
    reactive_power_var: ArrayLike | None = None,
) -> Observability:
    """Return what the meters observe of a network at an operating point.

    Parameters
    ----------
    network : from `compile_network`
    meters : the meters that read
    sigma : (n_meter,) their standard deviations [V, W, var, A]; default |V|, P, |I| 1 %, Q 2 % of the value there
        (paper section 6.1)
    forecast : its sigmas are what is known of unread loads (default `default_forecast`); its means do not matter
    active_power_w, reactive_power_var : (n_injection,) operating point; default the loads' own default power

    Raises
    ------
    MeasurementError
        meters that do not exist in the network; an operating point that the network cannot carry.

    Notes
    -----
    Error-free readings at nominal head voltage, estimated twice, with the variance of the forecasts 1 % lower and
    higher: O(n).
    """
    names = tuple(meters)
    p = network.power_w if active_power_w is None else np.asarray(active_power_w, float)
    q = network.power_var if reactive_power_var is None else np.asarray(reactive_power_var, float)
    known = forecast or default_forecast(network)
    nothing = np.full((len(names), 1), np.nan)
    error_free = Estimator(network, names, _at(known, p, q)).estimate(nothing, nothing, covariance=False).fitted
    spread = _default_sigma(names, error_free) if sigma is None else np.asarray(sigma, float)
    low, high = (
        Estimator(network, names, _at(known, p, q, factor)).estimate(error_free, spread)
        for factor in (1 - _STEP, 1 + _STEP)
    )
    if not (low.converged.all() and high.converged.all()):
        raise MeasurementError([Finding("operating point", (), "power", "no estimate there")], network.name)
    sigma_v = _middle(low.sigma_voltage_v, high.sigma_voltage_v)
    blind = sigma_v > PRIOR / 2 * network.nominal_v[network.node_bus]
    return Observability(
        network=network,
        meters=names,
        node_share=np.where(blind, 1.0, _share(low.sigma_voltage_v, high.sigma_voltage_v)),
        active_share=_share(low.sigma_active_power_w, high.sigma_active_power_w),
        reactive_share=_share(low.sigma_reactive_power_var, high.sigma_reactive_power_var),
        sigma_voltage_v=np.where(blind, np.nan, sigma_v),
        sigma_active_power_w=_middle(low.sigma_active_power_w, high.sigma_active_power_w),
        sigma_reactive_power_var=_middle(low.sigma_reactive_power_var, high.sigma_reactive_power_var),
        redundancy=int(low.degrees_of_freedom[0]),
        readings=residuals(low, names, error_free, spread),
    )


def _share(low: FloatArray, high: FloatArray) -> FloatArray:
    """Return d ln(variance) / d ln(f) from the standard deviations at 1 - step and 1 + step."""
    width = np.log1p(_STEP) - np.log1p(-_STEP)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = 2 * (np.log(high[:, 0]) - np.log(low[:, 0])) / width
    return np.asarray(np.clip(np.nan_to_num(slope), 0.0, 1.0))


def _middle(low: FloatArray, high: FloatArray) -> FloatArray:
    return np.asarray((low[:, 0] + high[:, 0]) / 2)


def _at(forecast: Forecast, p: FloatArray, q: FloatArray, factor: float = 1.0) -> Forecast:
    """Return the forecast with other means, its variances times a factor."""
    root = np.sqrt(factor)
    return Forecast(p, forecast.sigma_active_power_w * root, q, forecast.sigma_reactive_power_var * root)


def _default_sigma(meters: tuple[Meter, ...], value: FloatArray) -> FloatArray:
    sigma = [relative_sigma(z, *_ACCURACY[meter.quantity]) for meter, z in zip(meters, value, strict=True)]
    return np.array(sigma, float).reshape(value.shape)
