"""The true state of every minute: a load flow over the whole grid, MV and all LV (paper section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid import Grid, Line
from flexmeter.powerflow import Network, PowerFlowModel, PowerFlowResult, compile_network, powerflow, prepare
from flexmeter.scenario.data import reference_day
from flexmeter.scenario.households import Source, household_day
from flexmeter.scenario.meters import Fleet, Readings
from flexmeter.scenario.profiles import MINUTES, industrial_w, photovoltaic_w, reactive_factor

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
PSEUDO_WINDOW = 15
PSEUDO_FACTOR = 1.2
PSEUDO_SIGMA = 0.5


@dataclass(frozen=True)
class DayPowers:
    """Consumption of every load and phase over the day, (n_injection, 1440) [W], [var].

    Rows are those of `Network.injections`: the loads in file order, phase by phase.
    """

    active_power_w: Floats
    reactive_power_var: Floats


def reference_powers(grid: Grid, seed: int = 1, source: Source = "generator") -> DayPowers:
    """Return the powers of the reference day: households, two plants and PV (paper figure 5).

    Plants and PV are balanced; their power is shared equally by the three phases.
    """
    day = reference_day()
    households = household_day(sum(load.kind == "customer" for load in grid.loads), seed, source)
    active, reactive, customer = [], [], 0
    for load in grid.loads:
        if load.kind == "customer":
            active.append(households.active_power_w[customer])
            reactive.append(households.reactive_power_var[customer])
            customer += 1
            continue
        if load.id in day.industrial:
            plant = day.industrial[load.id]
            power, ratio = industrial_w(plant), reactive_factor(plant.power_factor)
        else:
            power, ratio = -photovoltaic_w(day.pv[load.id]), 0.0
        active += [power / len(load.phases)] * len(load.phases)
        reactive += [ratio * power / len(load.phases)] * len(load.phases)
    return DayPowers(np.array(active), np.array(reactive))


@dataclass(frozen=True)
class TrueState:
    """The true state of some minutes under one switch status vector.

    Attributes
    ----------
    minutes : (m,) minute of the day, from 0
    vector : the switch status vector in force
    network : the whole grid under it; `nodes` and `injections` have the same order under every vector
    voltage_v : (n_node, m) complex phase-to-earth voltages [V], rows as `network.nodes`
    active_power_w, reactive_power_var : (n_injection, m) consumption [W], [var], rows as `network.injections`
    result : the load flow it comes from
    """

    minutes: NDArray[np.int64]
    vector: tuple[bool, ...]
    network: Network
    voltage_v: Complexes
    active_power_w: Floats
    reactive_power_var: Floats
    result: PowerFlowResult

    @property
    def source_va(self) -> Complexes:
        """(3, m) power from the source into the grid, per phase [VA]; negative = fed back."""
        return self.result.source_va

    def line_current_a(self, lines: Sequence[str]) -> Complexes:
        """Return (n, 3, m) currents [A] of lines from their own from-bus to their to-bus; 0 where open."""
        network, result = self.network, self.result
        rows = {name: k for k, name in enumerate(network.branch_ids) if name}
        loops = {loop.branch: k for k, loop in enumerate(network.loops)}
        current = np.zeros((len(lines), 3, self.minutes.size), complex)
        for k, name in enumerate(lines):
            if name in rows:
                row = rows[name]
                current[k] = result.branch_current_a[row] * (1 if network.forward[row] else -1)
            elif name in loops:
                current[k] = result.loop_a.reshape(-1, 3, self.minutes.size)[loops[name]]
        return current

    def line_losses_w(self, lines: Sequence[str]) -> Floats:
        """Return (n, m) series losses J^H Re(Z) J [W] of lines; 0 where open."""
        network, current = self.network, self.line_current_a(lines)
        impedance = {name: network.impedance[k] for k, name in enumerate(network.branch_ids)}
        impedance |= {loop.branch: loop.impedance for loop in network.loops}
        r = np.array([impedance.get(name, np.zeros((3, 3))) for name in lines]).real
        return np.asarray(np.einsum("kpm,kpq,kqm->km", current.conj(), r, current).real)

    def branch_power_va(self, bus: str) -> Complexes:
        """Return (3, m) power that flows through a bus into everything below it [VA], per phase.

        For the head of an area (the low-voltage busbar of a substation) this is the area's consumption.
        """
        row = self.network.bus_row[bus]
        nodes = [self.network.node_row[bus, phase] for phase in "abc"]
        return np.asarray(self.voltage_v[nodes] * self.result.branch_current_a[row].conj())


class Truth:
    """Computes true states of a grid whose loads follow a day's powers; one prepared load flow per switch vector."""

    def __init__(self, grid: Grid, powers: DayPowers) -> None:
        self.grid = grid
        self.powers = powers
        self._models: dict[tuple[bool, ...], PowerFlowModel] = {}
        self._rows: dict[Fleet, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def model(self, vector: tuple[bool, ...]) -> PowerFlowModel:
        """Return the load-flow model under a switch vector, prepared at its first use."""
        if vector not in self._models:
            self._models[vector] = prepare(compile_network(self.grid, vector))
        return self._models[vector]

    def state(self, minutes: range, vector: tuple[bool, ...] | None = None) -> TrueState:
        """Return the true state of consecutive minutes (from 0) under one switch vector (default: the grid's).

        Raises
        ------
        DidNotConverge
            the load flow of a minute has no solution.
        """
        vector = self.grid.switch_vector if vector is None else vector
        model, part = self.model(vector), slice(minutes.start, minutes.stop)
        active = np.ascontiguousarray(self.powers.active_power_w[:, part])
        reactive = np.ascontiguousarray(self.powers.reactive_power_var[:, part])
        result = powerflow(model, active, reactive)
        result.raise_if_diverged()
        return TrueState(
            minutes=np.arange(minutes.start, minutes.stop),
            vector=vector,
            network=model.network,
            voltage_v=result.voltage_v,
            active_power_w=active,
            reactive_power_var=reactive,
            result=result,
        )

    def readings(self, fleet: Fleet, state: TrueState) -> Readings:
        """Return what the meters of a fleet read in a true state."""
        node, injection = self._fleet_rows(fleet, state.network)
        return fleet.read(
            state.minutes,
            np.abs(state.voltage_v[node]),
            state.active_power_w[injection],
            state.reactive_power_var[injection],
        )

    def _fleet_rows(self, fleet: Fleet, network: Network) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the node and injection row of every channel."""
        if fleet not in self._rows:
            nodes, injections = network.node_row, network.injection_row
            self._rows[fleet] = (
                np.array([nodes[key] for key in zip(fleet.buses, fleet.phases, strict=True)], np.int64),
                np.array([injections[key] for key in zip(fleet.meters, fleet.phases, strict=True)], np.int64),
            )
        return self._rows[fleet]


@dataclass(frozen=True)
class PseudoMeasurement:
    """Forecast consumption of an unmonitored area, per phase: (3, 1440) [W], [var] and their standard deviations."""

    area: str
    active_power_w: Floats
    reactive_power_var: Floats
    sigma_active_power_w: Floats
    sigma_reactive_power_var: Floats


def pseudo_measurement(truth: Truth, area: str, day: TrueState | None = None) -> PseudoMeasurement:
    """Return the pseudo-measurement of an LV area as the paper makes it (section 6.3, partial deployment).

    The mean of the true consumption over each quarter hour, 20 % too high, with a standard deviation of 50 %. The
    truth is that of the whole day under the grid's own switch vector (`day`, computed if it is not given).
    """
    head = next(item.head_bus for item in truth.grid.areas if item.id == area)
    power = (day or truth.state(range(MINUTES))).branch_power_va(head)
    quarters = power.reshape(3, -1, PSEUDO_WINDOW).mean(axis=2)
    forecast = PSEUDO_FACTOR * np.repeat(quarters, PSEUDO_WINDOW, axis=1)
    return PseudoMeasurement(
        area=area,
        active_power_w=forecast.real,
        reactive_power_var=forecast.imag,
        sigma_active_power_w=PSEUDO_SIGMA * np.abs(forecast.real),
        sigma_reactive_power_var=PSEUDO_SIGMA * np.abs(forecast.imag),
    )


def medium_voltage_lines(grid: Grid) -> tuple[str, ...]:
    """Return the ids of the lines between the buses with the highest voltage, in file order."""
    top = max(bus.voltage_v for bus in grid.buses)
    high = {bus.id for bus in grid.buses if bus.voltage_v == top}
    return tuple(line.id for line in _between(grid.lines, high))


def _between(lines: Sequence[Line], buses: set[str]) -> list[Line]:
    return [line for line in lines if line.from_bus in buses and line.to_bus in buses]
