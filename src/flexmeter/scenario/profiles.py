"""Powers over the day: the standard household profile, industrial plants and photovoltaics (paper figure 5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from flexmeter.scenario.data import Industrial, Photovoltaic, reference_day

Floats = NDArray[np.float64]
MINUTES = 1440


def standard_household_w() -> Floats:
    """Return the mean household's active power at every minute of the day, (1440,) [W].

    BDEW profile H0 at 3,000 kWh per year on a summer workday (paper figure 5a), linear between the quarter hours,
    which are taken at their beginning as in the calibration.
    """
    quarters = np.asarray(reference_day().household_mean_kw) * 1e3
    minute = np.arange(MINUTES)
    return np.asarray(np.interp(minute, 15 * np.arange(97), np.append(quarters, quarters[0])))


def reactive_factor(power_factor: float) -> float:
    """Return Q / P of an inductive power factor."""
    return math.tan(math.acos(power_factor))


def industrial_w(plant: Industrial) -> Floats:
    """Return the active power of a plant at every minute of the day, (1440,) [W] (paper figure 5b).

    Night level, linear ramp to the morning level, which moves to the afternoon level over lunch while half a sine
    of depth `lunch_depth` is taken out of it, linear ramp down to the evening level.
    """
    shape, minute = plant.shape, np.arange(MINUTES, dtype=float)
    lunch = np.clip((minute - shape.lunch_start_min) / shape.lunch_min, 0, 1)
    level = shape.morning + (shape.afternoon - shape.morning) * lunch
    level *= 1 - shape.lunch_depth * np.sin(np.pi * lunch)
    up = np.clip((minute - shape.start_min) / shape.ramp_up_min, 0, 1)
    down = np.clip((minute - shape.end_min) / shape.ramp_down_min, 0, 1)
    share = shape.night + (level - shape.night) * up
    share += (shape.evening - share) * down
    return plant.rated_w * share


def photovoltaic_w(plant: Photovoltaic) -> Floats:
    """Return the power a PV plant feeds in at every minute of the day, (1440,) [W], positive (paper figure 5c).

    peak * max(0, cos(pi / 2 * (t - noon) / half_day)) ** exponent: a clear day.
    """
    angle = np.pi / 2 * np.clip((np.arange(MINUTES) - plant.noon_min) / plant.half_day_min, -1, 1)
    shape = np.where(np.abs(angle) < np.pi / 2, np.cos(angle), 0.0)
    return np.asarray(plant.peak_w * shape**plant.exponent)


def clouds(seed: int, *, depth: float = 0.25, correlation_min: float = 10.0) -> Floats:
    """Return the share of clear-sky power at every minute, (1440,) in 0..1: one minus |AR(1) noise|.

    depth : standard deviation of the noise; correlation_min : minutes after which it has decayed to 1/e.
    """
    decay = math.exp(-1 / correlation_min)
    noise = np.random.default_rng([seed, 0x5C1]).standard_normal(MINUTES)
    level = noise[0]
    share = np.empty(MINUTES)
    for minute in range(MINUTES):
        level = decay * level + math.sqrt(1 - decay**2) * noise[minute]
        share[minute] = max(0.0, 1 - depth * abs(level))
    return share
