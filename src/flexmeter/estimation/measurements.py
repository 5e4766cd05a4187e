"""What is measured where: scalars of one phase, each with its own standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding
from flexmeter.powerflow.compiling import kernel
from flexmeter.powerflow.injections import is_aggregate
from flexmeter.powerflow.lanes import FloatArray, IntArray
from flexmeter.powerflow.network import Network

Quantity = Literal[
    "voltage", "active_power", "reactive_power", "current", "voltage_angle", "voltage_real", "voltage_imaginary",
    "current_angle", "current_real", "current_imaginary",
]  # fmt: skip
Place = Literal["load", "bus", "branch_from", "branch_to", "head"]


@dataclass(frozen=True, slots=True)
class Meter:
    """One scalar that is read: `voltage`, `current` magnitudes [V], [A], `active_power` [W], `reactive_power` [var].

    `at` a `load` (its own terminals, consumption positive: voltage and powers), a `bus` (voltage), either end of a
    branch (`branch_from`, `branch_to`: powers positive from from- to to-bus, and current; a line's own charging counts
    as beyond the meter) or the `head` of the network (all that flows in; `id` is the head bus). `phase` is a, b or c,
    or a pair of phases for a load or voltmeter between two.

    A phasor is two such scalars, wherever the magnitude can be read: `voltage` and `voltage_angle` [rad], or
    `voltage_real` and `voltage_imaginary` [V]; `current` and `current_angle`, or `current_real` and
    `current_imaginary` [A], positive from from- to to-bus. Angles are those of the network's common time reference.
    """

    quantity: Quantity
    at: Place
    id: str
    phase: str


NEVER_EXACT = ("voltage", "voltage_angle", "voltage_real", "voltage_imaginary")
"""Quantities of the voltage: a reading of sigma 0 would fix a state, which the elimination has no room for."""


def check_readings(meters: Sequence[Meter], value: FloatArray, sigma: FloatArray) -> list[Finding]:
    """Return everything that is wrong with the numbers."""
    rows = len(meters)
    if value.ndim != 2 or len(value) != rows or sigma.ndim != 2 or sigma.shape not in (value.shape, (rows, 1)):
        text = f"shapes {value.shape} and {sigma.shape} (sigma), expected ({rows}, n_scenario)"
        return [Finding("measurement", (), "value", text)]
    is_voltage = np.array([meter.quantity == "voltage" for meter in meters], bool)[:, None]
    is_inexact = np.array([meter.quantity in NEVER_EXACT for meter in meters], bool)[:, None]
    present = ~np.isnan(value)
    bad = (
        ("sigma", present & ~(sigma >= 0), "negative or nan, expected a standard deviation"),
        ("sigma", present & np.isinf(sigma), "infinite: leave the reading out (nan) instead"),
        ("sigma", present & is_inexact & (sigma == 0), "0: a voltage reading cannot be exact"),
        ("value", np.isinf(value), "infinite"),
        ("value", present & is_voltage & (value <= 0), "not positive, expected a voltage magnitude"),
    )
    return [
        Finding("measurement", tuple(describe(meters[int(k)]) for k in np.flatnonzero(where.any(1))), field, text)
        for field, where, text in bad
        if where.any()
    ]


@kernel
def count_bad(value: FloatArray, sigma: FloatArray, is_inexact: FloatArray, is_voltage: FloatArray) -> int:
    """Return how many readings `check_readings` would complain about."""
    bad = 0
    for row in range(value.shape[0]):
        for s in range(value.shape[1]):
            z, deviation = value[row, s], sigma[row, s]
            if not math.isnan(z):
                fine = deviation >= 0.0 and z - z == 0.0 and deviation - deviation == 0.0
                exact = is_inexact[row] > 0.0 and deviation == 0.0
                if not fine or exact or (is_voltage[row] > 0.0 and z <= 0.0):
                    bad += 1
    return bad


@kernel
def count_known(value: FloatArray, rows: IntArray) -> IntArray:
    """Return (n_scenario,) how many of some rows have a reading."""
    known = np.zeros(value.shape[1], np.int64)
    for row in rows:
        for s in range(value.shape[1]):
            known[s] += not math.isnan(value[row, s])
    return known


def describe(meter: Meter) -> str:
    """Return a meter's name for messages."""
    return f"{meter.quantity} {meter.at} {meter.id} {meter.phase}"


def load_meters(
    network: Network, quantities: Sequence[Quantity] = ("voltage", "active_power", "reactive_power")
) -> tuple[Meter, ...]:
    """Return a meter for every load and phase: all voltages in the order of `network.injections`, then P, then Q."""
    loads = [row for row in network.injections if not is_aggregate(row[0])]
    return tuple(Meter(quantity, "load", name, phase) for quantity in quantities for name, phase in loads)


def relative_sigma(value: ArrayLike, fraction: float, floor: float) -> FloatArray:
    """Return max(fraction * |value|, floor): the paper's meters have P 1 %, Q 2 % (section 6.1).

    The floor matters: a sigma taken from the reading itself trusts a reading that happens to be too small more than
    one that is too large, without limit at zero. 1 W and 1 var (the smallest step of a household meter's register)
    are used throughout.
    """
    return np.asarray(np.maximum(fraction * np.abs(np.asarray(value, float)), floor))
