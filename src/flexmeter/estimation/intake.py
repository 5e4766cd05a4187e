"""Readings into the work array: of leaves, of aggregates and of meters on branches."""

from __future__ import annotations

import math
from typing import NamedTuple

from flexmeter.estimation.aggregate import AGGREGATE, STEP, Z_V, read_report
from flexmeter.estimation.blocks import clear
from flexmeter.estimation.flow import CURRENT, CURRENT_ANGLE, FLOW, KNOWN, LATER, READING, VARIANCE
from flexmeter.estimation.leaf import DV, LAST, LEAF, MAGNITUDE, POWER, POWER_VARIANCE, SHARE, SOFT, WEIGHT
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import BUS, BUS_DJ, BUS_DV
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, store, take, where_positive

ROOT_3, NAN = 3.0**0.5, float("nan")


class Readings(NamedTuple):
    """What is known of every scenario.

    `value`, `sigma` (n_slot, n_scenario), nan = missing; `report` (REPORT n_aggregate, n_scenario) of the areas below,
    see `condition_reports`; `angle_re`, `angle_im` (3, n_scenario) unit vectors of the head voltages; `above`
    (ABOVE, n_scenario) the answer of the level above, see `condition_answer`, or no rows; `start_re`, `start_im`
    (3 + n_leaf + 3 n_aggregate, n_scenario) a start: head voltages [pu], currents of leaves and aggregates, nan where
    there is none, or no rows.
    """

    value: FloatArray
    sigma: FloatArray
    report: FloatArray
    angle_re: FloatArray
    angle_im: FloatArray
    above: FloatArray
    start_re: FloatArray
    start_im: FloatArray


@inlined
def read_power(w: WorkArray, at: int, part: int, value: float, sigma: float, mean: float, spread: float) -> None:
    """Store a power reading and its variance, or the forecast where the reading is missing (nan)."""
    known = where_positive(value * value + 1.0, 1.0, 0.0)
    store(w, at + SOFT + part, 1.0 - known)
    store(w, at + SHARE + part, 1.0)
    store(w, at + POWER + part, where_positive(known, value, mean))
    store(w, at + POWER_VARIANCE + part, where_positive(known, sigma * sigma, spread * spread))


@routine
def read_meters(w: WorkArray, at: Places, m: EstimatorModel, readings: Readings, start: int, count: int) -> float:
    """Fill leaves and aggregates with readings; return the mean of the voltages read [pu], 1 where there is none."""
    value, sigma = readings.value, readings.sigma
    total, number = 0.0, 0.0
    for k in range(len(m.parent)):
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here = at.leaf + LEAF * leaf
            clear(w, here + DV, 4)
            clear(w, here + LAST, 2)
            missing = NAN
            p, sp, q, sq = missing, missing, missing, missing
            if m.row_p[leaf] >= 0:
                p, sp = take(w, value, m.row_p[leaf], start, count), take(w, sigma, m.row_p[leaf], start, count)
            if m.row_q[leaf] >= 0:
                q, sq = take(w, value, m.row_q[leaf], start, count), take(w, sigma, m.row_q[leaf], start, count)
            read_power(w, here, 0, p, sp, m.forecast[leaf, 0], m.forecast[leaf, 1])
            read_power(w, here, 1, q, sq, m.forecast[leaf, 2], m.forecast[leaf, 3])
            store(w, here + MAGNITUDE, 0.0)
            store(w, here + WEIGHT, 0.0)
            if m.row_v[leaf] >= 0:
                v, sv = take(w, value, m.row_v[leaf], start, count), take(w, sigma, m.row_v[leaf], start, count)
                known = where_positive(v, 1.0, 0.0)
                scale = 1.0 / m.nominal[k] if m.leaf_minus[leaf] < 0 else 1.0 / (m.nominal[k] * ROOT_3)
                v = where_positive(known, v, 0.0)
                store(w, here + MAGNITUDE, v)
                store(w, here + WEIGHT, where_positive(known, 1.0 / (sv * sv), 0.0))
                total, number = total + v * scale, number + known
    for k in range(len(m.aggregate_bus)):
        here = at.aggregate + AGGREGATE * k
        read_report(w, here, readings.report, k, start, count)
        clear(w, here + STEP, 6)
        clear(w, at.bus + BUS * m.aggregate_bus[k] + BUS_DV, 6)
        for phase in range(3):
            v = load(w, here + Z_V + phase)
            total = total + v * (1.0 / m.nominal[m.aggregate_bus[k]])
            number = number + where_positive(v, 1.0, 0.0)
    return where_positive(number, total / where_positive(number, number, 1.0), 1.0)


@routine
def read_flows(w: WorkArray, at: Places, m: EstimatorModel, readings: Readings, start: int, count: int) -> None:
    """Fill the meters on branches with readings."""
    for k in range(len(m.parent)):
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, bus = at.flow + FLOW * flow, at.bus + BUS * k
            clear(w, bus + BUS_DV, 6)
            clear(w, bus + BUS_DJ, 6)
            z = take(w, readings.value, m.flow_row[flow], start, count)
            if m.flow_kind[flow] == CURRENT_ANGLE:
                z = z + (0.0 if m.flow_sign[flow] > 0 else math.pi)
            else:
                z = z * m.flow_sign[flow]
            deviation = take(w, readings.sigma, m.flow_row[flow], start, count)
            known = where_positive(z * z + 1.0, 1.0, 0.0)
            store(w, here + LATER, known)
            store(w, here + KNOWN, known * (0.0 if m.flow_kind[flow] == CURRENT else 1.0))
            store(w, here + READING, where_positive(known, z, 0.0))
            store(w, here + VARIANCE, where_positive(known, deviation * deviation, 0.0))
