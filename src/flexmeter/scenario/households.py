"""Household power profiles of one-minute resolution (paper section 6.1, reference [56], figure 5a).

Every household has standby, a refrigerator and appliance events; how often an event happens over the day is chosen
such that the ensemble's mean follows the standard profile H0.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from flexmeter.scenario.data import data_bytes, reference_day
from flexmeter.scenario.profiles import MINUTES, reactive_factor, standard_household_w

Floats = NDArray[np.float64]
Source = Literal["generator", "european"]
STANDBY_W = 55.0
REFRIGERATOR_W = 95.0
REFRIGERATOR_DUTY = 0.32
SIZE_SPREAD = 0.45


@dataclass(frozen=True)
class HouseholdDay:
    """Powers of households over a day: `active_power_w` and `reactive_power_var`, both (households, 1440)."""

    active_power_w: Floats
    reactive_power_var: Floats


@dataclass(frozen=True)
class Appliance:
    """A kind of event: share of the event energy, power [W] and duration [min] (mean, log-normal spread), Q / P."""

    share: float
    power_w: float
    power_spread: float
    duration_min: float
    duration_spread: float
    reactive: float


APPLIANCES = (
    Appliance(0.26, 190.0, 0.6, 110.0, 0.6, 0.55),  # light, television, computers
    Appliance(0.28, 1500.0, 0.35, 32.0, 0.6, 0.0),  # stove, oven
    Appliance(0.14, 2100.0, 0.15, 4.0, 0.4, 0.0),  # kettle, microwave, hair dryer
    Appliance(0.16, 1900.0, 0.15, 18.0, 0.3, 0.1),  # heating of washing machine and dishwasher
    Appliance(0.16, 700.0, 0.5, 60.0, 0.5, 0.8),  # motors: vacuum cleaner, pumps, spinning, dryer
)


@dataclass(frozen=True)
class Events:
    """Rectangular pulses: household (n,), start and duration (n,) [min], power (n,) [W], Q / P of the appliance."""

    household: NDArray[np.int64]
    start_min: Floats
    duration_min: Floats
    power_w: Floats
    reactive: float


def household_day(count: int, seed: int = 1, source: Source = "generator") -> HouseholdDay:
    """Return the day of `count` households from the seed, by the event generator or the European feeder's shapes.

    The energy of all households together is that of the standard profile (3,000 kWh per year and household), their
    power factor over the day that of the reference day (0.95); a single household's varies from minute to minute.
    """
    rng = np.random.default_rng([seed, 0x40D5])
    active, reactive = _generated(count, rng) if source == "generator" else _bootstrapped(count, rng)
    scale = standard_household_w().mean() / active.mean()
    ratio = reactive_factor(reference_day().household_power_factor) * active.sum() / reactive.sum()
    return HouseholdDay(active * scale, reactive * (scale * ratio))


def european_shapes_w() -> Floats:
    """Return the 100 one-minute shapes of the IEEE European LV Test Feeder, (100, 1440) [W]."""
    with np.load(BytesIO(data_bytes("ieee_european_lv/shapes.npz"))) as archive:
        return np.asarray(archive["watts"], float)


def _generated(count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    size = _sizes(count, rng)
    standby, refrigerator = STANDBY_W * size[:, None], _refrigerators(count, rng)
    events_w = standard_household_w() - (STANDBY_W + REFRIGERATOR_W * REFRIGERATOR_DUTY)
    events = [_events(appliance, events_w, size, rng) for appliance in APPLIANCES]
    active = standby + refrigerator + _pulses(events, [item.power_w for item in events], count)
    reactive_power = [item.reactive * item.power_w for item in events]
    reactive = 0.4 * standby + 0.7 * refrigerator + _pulses(events, reactive_power, count)
    return active, reactive


def _sizes(count: int, rng: np.random.Generator) -> Floats:
    """Return the households' relative consumption: log-normal, stratified, mean one."""
    strata = (rng.permutation(count) + rng.random(count)) / count
    size = np.exp(SIZE_SPREAD * ndtri(strata))
    return np.asarray(size / size.mean())


def _refrigerators(count: int, rng: np.random.Generator) -> Floats:
    """Return compressors that run a fixed share of a period of their own, (count, 1440) [W]."""
    period = rng.uniform(40, 80, (count, 1))
    phase = rng.random((count, 1))
    power = REFRIGERATOR_W * rng.uniform(0.7, 1.3, (count, 1))
    running = (np.arange(MINUTES) / period + phase) % 1.0 < REFRIGERATOR_DUTY
    return running * power


def _events(appliance: Appliance, mean_w: Floats, size: Floats, rng: np.random.Generator) -> Events:
    """Return the events of one appliance in all households.

    The number per household is Poisson with its size. An event covers a point drawn from the density of `mean_w`,
    at a uniform position within the event, so its mean is that density smoothed by the event's length; the density
    is sharpened beforehand by what this smoothing takes away.
    """
    energy_wmin = appliance.power_w * appliance.duration_min
    mean_number = appliance.share * mean_w.sum() / energy_wmin
    household = np.repeat(np.arange(size.size), rng.poisson(mean_number * size))
    n = household.size
    duration = _lognormal(rng, appliance.duration_min, appliance.duration_spread, n)
    power = _lognormal(rng, appliance.power_w, appliance.power_spread, n)
    density = _sharpened(mean_w, appliance)
    covered = np.interp(rng.random(n), np.append(0, np.cumsum(density)) / density.sum(), np.arange(MINUTES + 1))
    return Events(household, covered - duration * rng.random(n), duration, power, appliance.reactive)


def _lognormal(rng: np.random.Generator, mean: float, spread: float, n: int) -> Floats:
    return mean * np.exp(spread * rng.standard_normal(n) - spread**2 / 2)


def _sharpened(mean_w: Floats, appliance: Appliance) -> Floats:
    """Return the density which, smoothed by events of the appliance's duration, is `mean_w` (three corrections)."""
    kernel = _smoothing(appliance)
    density = mean_w.copy()
    for _ in range(3):
        density += mean_w - np.fft.irfft(np.fft.rfft(density) * kernel, MINUTES)
    return np.maximum(density, 0.0)


def _smoothing(appliance: Appliance) -> NDArray[np.complex128]:
    """Return the transfer function of covering a point at random: |sinc|^2 of the duration, by energy averaged."""
    spread = appliance.duration_spread
    quantiles = ndtri((np.arange(15) + 0.5) / 15)
    durations = appliance.duration_min * np.exp(spread * quantiles + spread**2 / 2)  # weighted by their energy
    frequency = np.fft.rfftfreq(MINUTES)
    return np.asarray(np.mean(np.sinc(frequency[:, None] * durations) ** 2, axis=1), complex)


def _pulses(events: list[Events], height: list[Floats], households: int) -> Floats:
    """Return the pulses of all appliances added up per household and minute, (households, 1440); midnight wraps round.

    height : power of each event [W or var]. An edge within a minute counts for the rest of that minute, so energy is
    kept exactly.
    """
    household = np.concatenate([item.household for item in events])
    start = np.concatenate([item.start_min for item in events])
    end = start + np.concatenate([item.duration_min for item in events])
    power = np.concatenate(height)
    width = MINUTES + 1
    edges = np.mod(np.concatenate([start, end]), MINUTES)
    minute = edges.astype(np.int64)
    inside = edges - minute
    at = np.tile(household * width, 2) + minute
    step = np.concatenate([power, -power])
    steps = np.bincount(
        np.concatenate([at, at + 1]), np.concatenate([step * (1 - inside), step * inside]), households * width
    ).reshape(households, width)
    steps[:, 0] += np.bincount(household, power * _crossings(start, end), households)
    return np.asarray(np.cumsum(steps, axis=1)[:, :MINUTES])


def _crossings(start: Floats, end: Floats) -> Floats:
    """Return how often midnight lies within each pulse: it then already runs when the day begins."""
    return np.floor(end / MINUTES) - np.floor(start / MINUTES)


def _bootstrapped(count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return shapes of the European feeder drawn with replacement, shifted by up to a quarter hour, with own Q."""
    shapes = european_shapes_w()
    chosen = rng.integers(len(shapes), size=count)
    shift = rng.integers(-15, 16, size=count)
    active = shapes[chosen[:, None], (np.arange(MINUTES) - shift[:, None]) % MINUTES]
    ratio = rng.uniform(0.6, 1.4, (count, 1)) * (0.3 + 0.7 * np.exp(-active / 2000.0))
    return active, ratio * active
