"""Results as Arrow tables: one row per scenario and bus, load or meter; ids, phases, units in the column names.

`to_pandas` turns any of them into a data frame where pandas is installed. A study of many scenarios stays small in
memory if it is estimated and written block by block: `in_blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc

from flexmeter.errors import InputError
from flexmeter.estimation.estimate import Estimate
from flexmeter.estimation.estimator import Estimator
from flexmeter.estimation.measurements import Meter, Quantity
from flexmeter.estimation.residuals import residuals
from flexmeter.powerflow.lanes import FloatArray
from flexmeter.powerflow.network import Network

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]
    import pyarrow as pa

UNITS: dict[str, str] = {
    "voltage": "V",
    "voltage_real": "V",
    "voltage_imaginary": "V",
    "voltage_angle": "rad",
    "active_power": "W",
    "reactive_power": "var",
    "current": "A",
    "current_real": "A",
    "current_imaginary": "A",
    "current_angle": "rad",
}
"""Unit of every quantity."""


def branch_meters(
    network: Network,
    quantities: Sequence[Quantity] = ("active_power", "reactive_power", "current"),
    ends: Sequence[Literal["branch_from", "branch_to"]] = ("branch_from", "branch_to"),
) -> tuple[Meter, ...]:
    """Return a meter at both ends of every branch and phase: without readings (nan), flows with standard deviations.

    They keep every bus of the network apart, so that nothing collapses: slower by what the buses are more.
    """
    return tuple(
        Meter(quantity, end, name, phase)
        for name, phases in network.branch_phases.items()
        for end, quantity, phase in product(ends, quantities, phases)
    )


def in_blocks(
    estimator: Estimator,
    value: ArrayLike,
    sigma: ArrayLike,
    *,
    scenarios: int = 256,
    covariance: bool = True,
    losses: bool = False,
    threads: int = 1,
) -> Iterator[tuple[slice, Estimate]]:
    """Yield blocks of scenarios and their estimates, one after the other: memory is that of one block."""
    z, s = np.asarray(value, float), np.asarray(sigma, float)
    for first in range(0, z.shape[1], scenarios):
        part = slice(first, min(first + scenarios, z.shape[1]))
        own = s[:, part] if s.ndim == 2 and s.shape[1] > 1 else s
        yield part, estimator.estimate(z[:, part], own, covariance=covariance, losses=losses, threads=threads)


def voltage_table(estimate: Estimate, scenarios: Sequence[str] | None = None) -> pa.Table:
    """Return scenario, bus, phase, voltage_v, angle_rad, sigma_voltage_v, observable."""
    columns = _columns(("bus", "phase"), estimate.network.nodes, estimate.voltage_v.shape[1], scenarios)
    columns["voltage_v"] = _long(np.abs(estimate.voltage_v))
    columns["angle_rad"] = _long(np.angle(estimate.voltage_v))
    if estimate.sigma_voltage_v.size:
        columns["sigma_voltage_v"] = _long(estimate.sigma_voltage_v)
        columns["observable"] = np.ascontiguousarray(estimate.observable.T).ravel()
    return _table(columns)


def injection_table(estimate: Estimate, scenarios: Sequence[str] | None = None) -> pa.Table:
    """Return scenario, load, phase, P and Q drawn by every load or aggregate with their standard deviations."""
    columns = _columns(("load", "phase"), estimate.network.injections, estimate.voltage_v.shape[1], scenarios)
    columns["active_power_w"] = _long(estimate.power_va.real)
    columns["reactive_power_var"] = _long(estimate.power_va.imag)
    if estimate.sigma_voltage_v.size:
        columns["sigma_active_power_w"] = _long(estimate.sigma_active_power_w)
        columns["sigma_reactive_power_var"] = _long(estimate.sigma_reactive_power_var)
    return _table(columns)


def meter_table(
    estimate: Estimate,
    meters: Sequence[Meter],
    value: ArrayLike,
    sigma: ArrayLike,
    scenarios: Sequence[str] | None = None,
) -> pa.Table:
    """Return what every meter read and should have read: branch flows, residuals, normalised residuals; nulls for nan.

    `unit` is that of reading, sigma, fitted, sigma_fitted and residual in its row; `left_out`: a current that does
    not count.
    """
    found = residuals(estimate, meters, value, sigma)
    names = tuple((meter.quantity, meter.at, meter.id, meter.phase, UNITS[meter.quantity]) for meter in meters)
    n = estimate.voltage_v.shape[1]
    columns = _columns(("quantity", "at", "id", "phase", "unit"), names, n, scenarios)
    z = np.asarray(value, float).reshape(len(names), n)
    numbers = {
        "reading": z,
        "sigma": found.sigma,
        "fitted": estimate.fitted,
        "sigma_fitted": estimate.sigma_fitted,
        "residual": found.residual,
        "normalised_residual": found.normalised,
    }
    arrow = import_module("pyarrow")
    columns["left_out"] = np.ascontiguousarray(estimate.left_out.T).ravel()
    return _table(columns | {name: arrow.array(_long(array), from_pandas=True) for name, array in numbers.items()})


def scenario_table(estimate: Estimate, scenarios: Sequence[str] | None = None) -> pa.Table:
    """Return scenario, status, J, degrees of freedom, the chance of a larger J, iterations, losses."""
    n = estimate.voltage_v.shape[1]
    columns: dict[str, np.ndarray] = {
        "scenario": np.array(_names(scenarios, n)),
        "status": np.array(estimate.status, dtype=np.str_),
        "objective": estimate.objective,
        "degrees_of_freedom": estimate.degrees_of_freedom,
        "probability_of_larger": np.asarray(chdtrc(np.maximum(estimate.degrees_of_freedom, 1), estimate.objective)),
        "iterations": estimate.iterations,
        "losses_w": estimate.losses_w,
    }
    if estimate.sigma_losses_w.size:
        columns["sigma_losses_w"] = estimate.sigma_losses_w
    return _table(columns)


def to_pandas(table: pa.Table) -> pandas.DataFrame:
    """Return a table as a pandas data frame; `InputError` where pandas is not installed."""
    if find_spec("pandas") is None:
        raise InputError("pandas is not installed: `pip install pandas`, or use the Arrow table as it is")
    return table.to_pandas()


def _table(columns: Mapping[str, object]) -> pa.Table:
    """Return an Arrow table; Arrow is loaded here only, it takes 30 MB."""
    return import_module("pyarrow").table(columns)


def _names(scenarios: Sequence[str] | None, n: int) -> list[str]:
    names = [str(k) for k in range(n)] if scenarios is None else list(scenarios)
    if len(names) != n:
        raise InputError(f"{len(names)} names of scenarios, expected {n}")
    return names


def _columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], n: int, scenarios: Sequence[str] | None
) -> dict[str, np.ndarray]:
    columns = {"scenario": np.repeat(np.array(_names(scenarios, n), dtype=np.str_), len(rows))}
    for k, heading in enumerate(headings):
        columns[heading] = np.tile(np.array([row[k] for row in rows], dtype=np.str_), n)
    return columns


def _long(array: FloatArray) -> FloatArray:
    """Return (n_row, n_scenario) numbers scenario after scenario."""
    return np.ascontiguousarray(array.T).ravel()
