"""Three levels of estimators: concentrator, LV grid, MV grid (paper sections 4.1 to 4.3).

Upward, an area hands |V|, P and Q of the three phases at its head bus. With their joint covariance this is a sufficient
statistic of everything below (`handover="joint"`); the paper hands standard deviations only (`"diagonal"`), which
forgets how voltage and power of an area hang together and makes the level above over-confident. Downward, the level
above answers with its own estimate of the same nine quantities, and the angles the area had to assume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.estimate import Answer, Estimate, Reports
from flexmeter.powerflow.lanes import FloatArray
from flexmeter.powerflow.network import Network

Handover = Literal["joint", "diagonal"]


@dataclass(frozen=True, eq=False)
class AreaSummary:
    """What an area hands upward.

    Attributes
    ----------
    value : (9, n_scenario) |V| of a, b, c [V], then P [W], then Q [var] into the area; nan where nothing observes it
    covariance : (9, 9, n_scenario) joint covariance, nan rows and columns where nothing observes it
    """

    value: FloatArray
    covariance: FloatArray

    @property
    def sigma(self) -> FloatArray:
        """(9, n_scenario) standard deviations."""
        return np.asarray(np.sqrt(np.maximum(np.einsum("iis->is", self.covariance), 0.0)))


def summarise(estimate: Estimate, handover: Handover = "joint") -> AreaSummary:
    """Return what an area hands upward from its estimate (made with `covariance=True`).

    A scenario that did not converge is handed up as nan: not reported.
    """
    value, covariance = estimate.head.copy(), estimate.head_covariance.copy()
    value[:, ~estimate.converged] = np.nan
    covariance[:, :, ~estimate.converged] = np.nan
    summary = AreaSummary(value, covariance)
    return diagonal(summary) if handover == "diagonal" else summary


def diagonal(summary: AreaSummary) -> AreaSummary:
    """Return the summary as the paper hands it: standard deviations without correlations."""
    covariance = np.where(np.eye(9, dtype=bool)[:, :, None], summary.covariance, 0.0)
    missing = np.isnan(summary.value)
    covariance[missing[:, None, :] & np.ones((9, 9, 1), bool)] = np.nan
    covariance[missing[None, :, :] & np.ones((9, 9, 1), bool)] = np.nan
    return AreaSummary(summary.value, covariance)


def aged(summary: AreaSummary, growth: FloatArray) -> AreaSummary:
    """Return an older summary as pseudo-measurement of now.

    growth : (9,) variance that each quantity gathers until now [V^2, W^2, var^2]: for a random walk, age times the
    variance per unit of time, which `drift` estimates from past summaries.
    """
    covariance = summary.covariance + np.diag(np.asarray(growth, float))[:, :, None]
    return AreaSummary(summary.value, covariance)


def drift(summary: AreaSummary) -> FloatArray:
    """Return (9,) the variance per scenario step by which a series of summaries wanders, its own noise taken off.

    Mean squared step minus the noise of two independent estimates, at least 1 % of the mean squared step.
    """
    step = np.diff(summary.value, axis=1)
    noise = summary.sigma[:, 1:] ** 2 + summary.sigma[:, :-1] ** 2
    with np.errstate(invalid="ignore"):
        squares = np.nanmean(step**2, axis=1)
        return np.asarray(np.nan_to_num(np.maximum(squares - np.nanmean(noise, axis=1), 0.01 * squares)))


def reports_from(network: Network, summaries: Mapping[str, AreaSummary], n_scenario: int = 1) -> Reports:
    """Return the summaries of the areas below in the order the network's estimator wants; a missing area is nan.

    Raises
    ------
    MeasurementError
        a summary of an area that does not hang in this network, or with another number of scenarios.
    """
    names = [name for name, _ in network.aggregates]
    n = next((summary.value.shape[1] for summary in summaries.values()), n_scenario)
    findings = [
        Finding("summary", (name,), "area", f"not an area below {network.name}")
        for name in summaries
        if name not in names
    ]
    findings += [
        Finding("summary", (name,), "value", f"{summary.value.shape[1]} scenarios, expected {n}")
        for name, summary in summaries.items()
        if summary.value.shape != (9, n) or summary.covariance.shape != (9, 9, n)
    ]
    if findings:
        raise MeasurementError(findings, network.name)
    value, covariance = np.full((len(names), 9, n), np.nan), np.full((len(names), 9, 9, n), np.nan)
    for k, name in enumerate(names):
        if name in summaries:
            value[k], covariance[k] = summaries[name].value, summaries[name].covariance
    return Reports(value, covariance)


def answer_for(area: str, estimate: Estimate, message: AreaSummary) -> tuple[Answer, FloatArray]:
    """Return the answer of the level above to an area's message, and the head angles (3, n_scenario) [rad].

    Both go into `Estimator.estimate` of the area (`answer`, `source_angle_rad`).
    """
    k = [name for name, _ in estimate.network.aggregates].index(area)
    answer = Answer(estimate.aggregate[k], estimate.aggregate_covariance[k], message.value, message.covariance)
    return answer, estimate.aggregate_angle_rad[k]
