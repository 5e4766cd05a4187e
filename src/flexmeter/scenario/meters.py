"""Simulated smart meters: readings of a true state with the errors of real devices (paper section 6.1).

Noise is drawn from a counter, not from a stream: the error of a reading depends on the seed, the meter's name, its
phase, the quantity and the minute only. A whole day at once, blocks, single minutes and parts of the fleet in separate
processes all read the same values.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from flexmeter.grid import Grid

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Mode = Literal["noise", "realistic"]
SIGMA_V = 0.01
"""One standard deviation of a voltage reading, share of the nominal voltage (paper section 6.1)."""
SIGMA_P, SIGMA_Q = 0.01, 0.02
"""One standard deviation of an active and a reactive power reading, share of the value (classes 1 and 2)."""
FLOOR_W, FLOOR_VAR = 1.0, 1.0
"""Smallest standard deviation of a power reading [W], [var]."""
GAIN_SHARE = 0.9
"""In `realistic` mode, share of the standard deviation that is the fixed gain error of a meter."""
_VOLTAGE, _ACTIVE, _REACTIVE, _GAIN = 1, 2, 3, 16


@dataclass(frozen=True)
class Readings:
    """Readings of a fleet over some minutes; rows are the fleet's channels. SI units, consumption positive.

    Attributes
    ----------
    minutes : (m,) minute of the day
    voltage_v, active_power_w, reactive_power_var : (channels, m) values; nan where a quantity is not measured
    sigma_voltage_v, sigma_active_power_w, sigma_reactive_power_var : (channels, m) one standard deviation
    """

    minutes: NDArray[np.int64]
    voltage_v: Floats
    active_power_w: Floats
    reactive_power_var: Floats
    sigma_voltage_v: Floats
    sigma_active_power_w: Floats
    sigma_reactive_power_var: Floats

    def first(self, count: int) -> Readings:
        """Return the readings of the first minutes."""
        return Readings(
            minutes=self.minutes[:count],
            voltage_v=self.voltage_v[:, :count],
            active_power_w=self.active_power_w[:, :count],
            reactive_power_var=self.reactive_power_var[:, :count],
            sigma_voltage_v=self.sigma_voltage_v[:, :count],
            sigma_active_power_w=self.sigma_active_power_w[:, :count],
            sigma_reactive_power_var=self.sigma_reactive_power_var[:, :count],
        )


@dataclass(frozen=True, eq=False)
class Fleet:
    """Meters of a grid, one channel per meter and phase, in the order of the grid's loads.

    Attributes
    ----------
    meters : (channels,) id of the meter, which is that of its load
    phases : (channels,) phase of the channel
    buses : (channels,) bus at which it measures
    areas : (channels,) area of that bus (for a customer its concentrator)
    nominal_v : (channels,) nominal phase voltage [V]
    has_voltage : (channels,) whether the channel measures voltage (customers do, MV plants measure power only)
    seed, mode : the noise; see `read`
    """

    meters: tuple[str, ...]
    phases: tuple[str, ...]
    buses: tuple[str, ...]
    areas: tuple[str, ...]
    nominal_v: Floats
    has_voltage: NDArray[np.bool_]
    seed: int = 1
    mode: Mode = "noise"

    def part(self, area: str) -> Fleet:
        """Return the meters of one area, with the same noise as in the whole fleet."""
        rows = [k for k, name in enumerate(self.areas) if name == area]
        return Fleet(
            meters=tuple(self.meters[k] for k in rows),
            phases=tuple(self.phases[k] for k in rows),
            buses=tuple(self.buses[k] for k in rows),
            areas=tuple(self.areas[k] for k in rows),
            nominal_v=self.nominal_v[rows],
            has_voltage=self.has_voltage[rows],
            seed=self.seed,
            mode=self.mode,
        )

    def read(
        self, minutes: NDArray[np.int64], voltage_v: Floats, active_power_w: Floats, reactive_power_var: Floats
    ) -> Readings:
        """Return what the meters read of the true values, each (channels, minutes) [V], [W], [var].

        `noise` mode: value + N(0, sigma), fresh every minute (the paper's meters). `realistic` mode: a gain error,
        constant per meter and quantity, with 0.9 sigma, and fresh noise with the rest: sqrt(1 - 0.81) sigma. The
        sigmas returned are what a user of the readings knows: for powers the share of the value read.
        """
        true_v = np.where(self.has_voltage[:, None], voltage_v, np.nan)
        sigma_v = np.broadcast_to(SIGMA_V * self.nominal_v[:, None], true_v.shape)
        voltage = true_v + sigma_v * self._error(_VOLTAGE, minutes)
        active = active_power_w + _power_sigma(active_power_w, SIGMA_P, FLOOR_W) * self._error(_ACTIVE, minutes)
        true_sigma_var = _power_sigma(reactive_power_var, SIGMA_Q, FLOOR_VAR)
        reactive = reactive_power_var + true_sigma_var * self._error(_REACTIVE, minutes)
        return Readings(
            minutes=minutes,
            voltage_v=voltage,
            active_power_w=active,
            reactive_power_var=reactive,
            sigma_voltage_v=sigma_v,
            sigma_active_power_w=_power_sigma(active, SIGMA_P, FLOOR_W),
            sigma_reactive_power_var=_power_sigma(reactive, SIGMA_Q, FLOOR_VAR),
        )

    @cached_property
    def _channel_keys(self) -> Words:
        """One 64-bit number per channel, from names and seed only."""
        digests = [
            hashlib.blake2b(f"{meter}/{phase}".encode(), digest_size=8, key=str(self.seed).encode()).digest()
            for meter, phase in zip(self.meters, self.phases, strict=True)
        ]
        return np.frombuffer(b"".join(digests), np.uint64)

    def _error(self, quantity: int, minutes: NDArray[np.int64]) -> Floats:
        """Return the standardised error of every channel and minute, variance one over the fleet."""
        keys = self._channel_keys
        fresh = normal_noise(keys[:, None] ^ _scramble(np.uint64(quantity)), minutes.astype(np.uint64)[None, :])
        if self.mode == "noise":
            return fresh
        gain = normal_noise(keys ^ _scramble(np.uint64(_GAIN + quantity)), np.uint64(0))
        return GAIN_SHARE * gain[:, None] + math.sqrt(1 - GAIN_SHARE**2) * fresh


def meter_fleet(grid: Grid, seed: int = 1, mode: Mode = "noise", unmonitored: frozenset[str] = frozenset()) -> Fleet:
    """Return a meter at every load of the grid except those in the areas `unmonitored` (LV areas and below)."""
    buses = {bus.id: bus for bus in grid.buses}
    parents = {area.id: area.parent for area in grid.areas}
    metered = [
        (load, phase, buses[load.bus])
        for load in grid.loads
        if not {buses[load.bus].area, parents.get(buses[load.bus].area, "")} & unmonitored
        for phase in load.phases
    ]
    return Fleet(
        meters=tuple(load.id for load, _, _ in metered),
        phases=tuple(phase for _, phase, _ in metered),
        buses=tuple(bus.id for _, _, bus in metered),
        areas=tuple(bus.area for _, _, bus in metered),
        nominal_v=np.array([bus.voltage_v / math.sqrt(3) for _, _, bus in metered]),
        has_voltage=np.array([load.kind == "customer" for load, _, _ in metered], bool),
        seed=seed,
        mode=mode,
    )


def _power_sigma(power: Floats, share: float, floor: float) -> Floats:
    return np.asarray(np.maximum(share * np.abs(power), floor))


def normal_noise(keys: Words | np.uint64, counter: Words | np.uint64) -> Floats:
    """Return standard normal numbers of a counter-based generator, broadcast over keys and counters.

    Two rounds of the splitmix64 finaliser (Steele et al., doi:10.1145/2660193.2660195) over key and counter give a
    uniform number in (0, 1), the inverse distribution function the normal one.
    """
    with np.errstate(over="ignore"):
        word = _scramble(_scramble(counter * np.uint64(0x9E3779B97F4A7C15) + keys) ^ keys)
    return np.asarray(ndtri(((word >> np.uint64(11)).astype(float) + 0.5) * 2.0**-53))


def _scramble(word: Words | np.uint64) -> Words:
    with np.errstate(over="ignore"):
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(word ^ (word >> np.uint64(31)))
