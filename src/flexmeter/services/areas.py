"""What the three estimator levels share: the result of an area, and its way into and out of a message.

Arrays have the minutes (scenarios) as last axis, so that a service estimates one and a study a whole day with the
same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flexmeter.estimation import Estimate as EstimatedState
from flexmeter.estimation import Forecast, Reports
from flexmeter.grid import Grid
from flexmeter.messages.estimate import Estimate, EstimateLevel, Head, Status
from flexmeter.messages.quantities import ABC, QuantityName
from flexmeter.messages.readings import Clock, Column
from flexmeter.powerflow import Network

Floats = NDArray[np.float64]
Handover = Literal["joint", "diagonal"]
CUSTOMER_W, CUSTOMER_SIGMA_W = 342.0, 700.0
"""A household nobody reads: the mean of 3,000 kWh a year, and the spread of one-minute means around it."""
CUSTOMER_VAR, CUSTOMER_SIGMA_VAR = 112.0, 300.0
AREA_SHARE = 0.5
"""An area that did not report: standard deviation of its consumption, share of the mean of its customers."""
QUANTITIES: tuple[QuantityName, ...] = ("voltage", "active_power", "reactive_power")
COLUMNS = tuple(Column(quantity, phase) for quantity in QUANTITIES for phase in ABC)


@dataclass(frozen=True)
class AreaResult:
    """Estimate of one area over some minutes.

    Attributes
    ----------
    level, area : which
    buses : three-phase buses the rows stand for
    value, sigma : (3 quantities, n_bus, 3 phases, m) |V| [V], P [W], Q [var] consumed at the bus; nan = none
    head, head_covariance : (9, m), (9, 9, m) |V|, P, Q at the head bus, into the area
    objective, degrees_of_freedom, iterations : (m,) of the weighted least squares; iterations -1 = not converged
    """

    level: EstimateLevel
    area: str
    buses: tuple[str, ...]
    value: Floats
    sigma: Floats
    head: Floats
    head_covariance: Floats
    objective: Floats
    degrees_of_freedom: NDArray[np.int64]
    iterations: NDArray[np.int64]


def result_of(
    level: EstimateLevel, area: str, buses: tuple[str, ...], *, value: Floats, sigma: Floats, state: EstimatedState
) -> AreaResult:
    """Return the result of an area from the estimator's state and the values chosen for its buses."""
    return AreaResult(
        level=level,
        area=area,
        buses=buses,
        value=value,
        sigma=sigma,
        head=state.head,
        head_covariance=state.head_covariance,
        objective=state.objective,
        degrees_of_freedom=state.degrees_of_freedom,
        iterations=state.iterations,
    )


def estimate_message(
    result: AreaResult,
    *,
    source: str,
    boot: int,
    seq: int,
    grid: str,
    time_ms: int,
    clock: Clock,
    topology: int = 0,
    column: int = 0,
) -> Estimate:
    """Return the message of one minute of a result (`column` of its last axis)."""
    head = Head(result.head[:, column], result.head_covariance[:, :, column])
    return Estimate(
        source=source,
        boot=boot,
        seq=seq,
        grid=grid,
        level=result.level,
        area=result.area,
        topology=topology,
        time_ms=time_ms,
        status=_status(result, column),
        iterations=max(int(result.iterations[column]), 0),
        objective=float(result.objective[column]),
        degrees_of_freedom=int(result.degrees_of_freedom[column]),
        elements=result.buses,
        columns=COLUMNS,
        values=result.value[..., column].transpose(0, 2, 1).reshape(len(COLUMNS), -1),
        sigma=result.sigma[..., column].transpose(0, 2, 1).reshape(len(COLUMNS), -1),
        head=head,
        clock=clock,
    )


def _status(result: AreaResult, column: int) -> Status:
    if result.iterations[column] < 0:
        return "not_converged"
    return "partly_unobservable" if np.isnan(result.head[:, column]).any() else "ok"


def reports(heads: Sequence[Head | None], handover: Handover = "joint") -> Reports:
    """Return the reports of the areas below for one minute, None = did not report."""
    value = np.full((len(heads), 9, 1), np.nan)
    covariance = np.full((len(heads), 9, 9, 1), np.nan)
    for k, head in enumerate(heads):
        if head is not None:
            value[k, :, 0] = head.values
            covariance[k, :, :, 0] = head.covariance
    return handed_over(Reports(value, covariance), handover)


def handed_over(joint: Reports, handover: Handover) -> Reports:
    """Return the reports as they are, or with the diagonal of their covariance only, as in the paper (section 4)."""
    if handover == "joint":
        return joint
    mask = np.eye(9)[None, :, :, None]
    return Reports(joint.value, np.where(mask > 0, joint.covariance, 0.0 * joint.covariance))


def customers_below(grid: Grid, area: str) -> NDArray[np.int64]:
    """Return the number of single-phase customers (3,) per phase in an area and the areas inside it."""
    inside = {area}
    while True:
        more = {item.id for item in grid.areas if item.parent in inside} - inside
        if not more:
            break
        inside |= more
    home = {bus.id for bus in grid.buses if bus.area in inside}
    phases = [load.phases for load in grid.loads if load.bus in home and load.kind == "customer"]
    return np.array([sum(phase in one for one in phases) for phase in ABC], np.int64)


def forecast(grid: Grid, network: Network) -> Forecast:
    """Return what is assumed of loads that are not read and areas that do not report: households, by their number."""
    active, reactive = network.power_w.copy(), network.power_var.copy()
    sigma_w = np.maximum(np.abs(active), CUSTOMER_SIGMA_W)
    sigma_var = np.maximum(np.abs(reactive), CUSTOMER_SIGMA_VAR)
    kinds = {load.id: load.kind for load in grid.loads}
    for row, (name, _) in enumerate(network.injections):
        if kinds.get(name) == "customer" and active[row] == 0:
            active[row], reactive[row] = CUSTOMER_W, CUSTOMER_VAR
    first = len(network.injections) - 3 * len(network.aggregates)
    for k, (area, _) in enumerate(network.aggregates):
        count = customers_below(grid, area)
        rows = slice(first + 3 * k, first + 3 * k + 3)
        active[rows], reactive[rows] = count * CUSTOMER_W, count * CUSTOMER_VAR
        sigma_w[rows] = np.maximum(AREA_SHARE * active[rows], CUSTOMER_SIGMA_W)
        sigma_var[rows] = np.maximum(AREA_SHARE * reactive[rows], CUSTOMER_SIGMA_VAR)
    return Forecast(active, sigma_w, reactive, sigma_var)
