"""The simulated field: grid, meters and concentrators, in place of the real ones (paper section 6.1).

For every minute the true state under the switch vector in force, the meters' readings of it, and what each
concentrator makes of them: a batch of readings and its estimate. `Field` is pure; `app.field` publishes it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid import Grid
from flexmeter.messages import topics
from flexmeter.messages.codec import encode_estimate, encode_readings
from flexmeter.messages.notices import Register, Roster, RosterEntry
from flexmeter.messages.quantities import ABC, Quality
from flexmeter.messages.readings import Column, Flag, Readings
from flexmeter.scenario import european_lv
from flexmeter.scenario.meters import (
    FLOOR_VAR,
    FLOOR_W,
    SIGMA_P,
    SIGMA_Q,
    SIGMA_V,
    Fleet,
    meter_fleet,
)
from flexmeter.scenario.meters import Readings as FleetReadings
from flexmeter.scenario.options import DayOptions, instant_ms
from flexmeter.scenario.reference_grid import reference_grid
from flexmeter.scenario.truth import DayPowers, Truth, reference_powers
from flexmeter.services.areas import QUANTITIES, estimate_message
from flexmeter.services.concentrator import Concentrator
from flexmeter.services.mv import MvArea

Floats = NDArray[np.float64]
BOOT = 1
SIMULATED = (Flag(int(Quality.SIMULATED)),)


def day_grid(options: DayOptions) -> Grid:
    """Return the grid of a run."""
    return european_lv.european_lv_grid() if options.grid == "eulv" else reference_grid(options.seed)


def day_powers(options: DayOptions, grid: Grid) -> DayPowers:
    """Return the powers of every load of a run."""
    if options.grid == "eulv":
        return european_lv.european_lv_powers()
    return reference_powers(grid, options.seed, options.profiles)


@dataclass(frozen=True)
class Device:
    """A publishing device: its name, its meters in order, its rows in the fleet, its roster.

    A device with one three-phase meter (a plant) has a row per phase.
    """

    name: str
    meters: tuple[str, ...]
    rows: NDArray[np.int64]
    concentrator: Concentrator | None
    roster: Roster
    roster_hash: str


@dataclass(frozen=True)
class Outgoing:
    """A message that a device publishes."""

    device: str
    topic: str
    payload: bytes


@dataclass(frozen=True)
class Minute:
    """Everything the field publishes for one minute, and how long single concentrators took [ms]."""

    minute: int
    vector: tuple[bool, ...]
    messages: tuple[Outgoing, ...]
    elapsed_ms: tuple[float, ...]


class Field:
    """Grid, truth, meters and concentrators of a run; not `estimating`, the concentrators' estimators are left out."""

    def __init__(self, options: DayOptions, tenant: str, *, estimating: bool = True) -> None:
        self.options = options
        self.tenant = tenant
        self.grid = day_grid(options)
        self.truth = Truth(self.grid, day_powers(options, self.grid))
        self.fleet = meter_fleet(self.grid, options.seed, options.meters)
        self.devices = devices(self.grid, self.fleet, estimating=estimating)

    def plant_readings(self, readings: FleetReadings, mv: MvArea) -> Floats:
        """Return the readings (6 n_plant, m) of the plants in the MV area: P of the phases, then Q, plant by plant."""
        rows = {device.name: device.rows for device in self.devices}
        place = np.array([rows[plant.id] for plant in mv.plants], np.int64).reshape(-1, 3)
        value = np.concatenate([readings.active_power_w[place], readings.reactive_power_var[place]], axis=1)
        return value.reshape(6 * len(place), readings.active_power_w.shape[-1])

    def minute(self, minute: int, vector: tuple[bool, ...]) -> Minute:
        """Simulate one minute (from 1) under a switch vector."""
        return self.minutes(range(minute, minute + 1), vector)[0]

    def minutes(self, minutes: range, vector: tuple[bool, ...]) -> list[Minute]:
        """Simulate consecutive minutes (from 1) under a switch vector, each concentrator's estimates in one call.

        What one estimate takes is measured apart, on one concentrator after the other.
        """
        state = self.truth.state(range(minutes.start - 1, minutes.stop - 1), vector)
        readings = self.truth.readings(self.fleet, state)
        messages: list[list[Outgoing]] = [[] for _ in minutes]
        for device in self.devices:
            made = self._device_messages(device, minutes, readings)
            for k, one in enumerate(made):
                messages[k] += one
        elapsed = self._time_one(minutes, readings)
        return [Minute(minute, vector, tuple(messages[k]), elapsed) for k, minute in enumerate(minutes)]

    def _time_one(self, minutes: range, readings: FleetReadings) -> tuple[float, ...]:
        """Return how long one concentrator takes from readings to messages for one minute [ms]."""
        concentrators = [device for device in self.devices if device.concentrator is not None]
        device, first = concentrators[minutes.start % len(concentrators)], readings.first(1)
        began = time.perf_counter()
        self._device_messages(device, minutes[:1], first)
        return (1e3 * (time.perf_counter() - began),)

    def _device_messages(self, device: Device, minutes: range, readings: FleetReadings) -> list[list[Outgoing]]:
        """Return what a device publishes, minute by minute."""
        topic = topics.readings(self.tenant, device.name)
        batches = [readings_batch(device, minute, readings, k) for k, minute in enumerate(minutes)]
        sent = [[Outgoing(device.name, topic, encode_readings(batch))] for batch in batches]
        if device.concentrator is not None:
            result = device.concentrator.estimate(*stacked(readings, device.rows))
            topic = topics.estimate(self.tenant, "concentrator", device.concentrator.area)
            for k, minute in enumerate(minutes):
                estimate = estimate_message(
                    result,
                    source=device.name,
                    boot=BOOT,
                    seq=minute,
                    grid=self.grid.id,
                    time_ms=instant_ms(minute),
                    clock="simulated",
                    column=k,
                )
                sent[k].append(Outgoing(device.name, topic, encode_estimate(estimate)))
        return sent


def stacked(readings: FleetReadings, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return values and sigmas (3 n, m) of a concentrator's meters: voltages, active, then reactive powers."""
    value = (readings.voltage_v, readings.active_power_w, readings.reactive_power_var)
    sigma = (readings.sigma_voltage_v, readings.sigma_active_power_w, readings.sigma_reactive_power_var)
    return np.concatenate([part[rows] for part in value]), np.concatenate([part[rows] for part in sigma])


def devices(grid: Grid, fleet: Fleet, *, estimating: bool = True) -> tuple[Device, ...]:
    """Return the publishing devices: a concentrator per concentrator area with meters, and every other meter itself."""
    rows_of: dict[str, list[int]] = {}
    inside = {area.id for area in grid.areas if area.level == "concentrator"}
    for row, (area, meter) in enumerate(zip(fleet.areas, fleet.meters, strict=True)):
        rows_of.setdefault(area if area in inside else meter, []).append(row)
    made = []
    for name, rows in rows_of.items():
        if name in inside:
            channels = tuple((fleet.meters[k], fleet.phases[k]) for k in rows)
            concentrator = Concentrator(grid, name, channels) if estimating else None
            meters = tuple(fleet.meters[k] for k in rows)
            phases = tuple(fleet.phases[k] for k in rows)
        else:
            concentrator, meters, phases = None, (name,), ("",)
        roster = _roster(name, meters, phases, [float(fleet.nominal_v[k]) for k in rows])
        made.append(Device(name, meters, np.array(rows), concentrator, roster, roster.hash))
    return tuple(made)


def _roster(name: str, meters: tuple[str, ...], phases: tuple[str, ...], nominal_v: list[float]) -> Roster:
    power = (
        Register(quantity="active_power", sigma=FLOOR_W, sigma_percent=100 * SIGMA_P),
        Register(quantity="reactive_power", sigma=FLOOR_VAR, sigma_percent=100 * SIGMA_Q),
    )
    entries = []
    for meter, phase, nominal in zip(meters, phases, nominal_v, strict=False):
        voltage = (Register(quantity="voltage", sigma=SIGMA_V * nominal),) if phase else ()
        entries.append(RosterEntry(meter=meter, phase=phase, bus=meter, registers=voltage + power))  # type: ignore[arg-type]
    return Roster(source=name, entries=tuple(entries))


def readings_batch(device: Device, minute: int, readings: FleetReadings, column: int) -> Readings:
    """Return a device's batch of one minute; a concentrator's meters are single-phase, a plant's three-phase."""
    rows = device.rows
    active, reactive = readings.active_power_w[rows, column], readings.reactive_power_var[rows, column]
    if device.concentrator is not None:
        columns = tuple(Column(quantity) for quantity in QUANTITIES)
        values = np.stack([readings.voltage_v[rows, column], active, reactive])
    else:
        columns = tuple(Column(quantity, phase) for quantity in QUANTITIES[1:] for phase in ABC)
        values = np.concatenate([active, reactive])[:, None]
    return Readings(
        source=device.name,
        boot=BOOT,
        seq=minute,
        time_ms=instant_ms(minute),
        columns=columns,
        values=values,
        roster=device.roster_hash,
        flags=SIMULATED,
        clock="simulated",
    )
