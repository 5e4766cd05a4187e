"""MV-level state estimation (paper section 4.3): the MV grid below the HV/MV substation, transformers included.

In: the summaries `se/lv/AREA` of one interval, the readings of meters in the MV grid, the switch vector (REST, asked
again at every alert). Out: `se/mv/AREA`: voltages and consumption of the MV buses. `MvArea` is the pure part.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import MessageError
from flexmeter.estimation import Estimate as EstimatedState
from flexmeter.estimation import Estimator, Meter, Reports, relative_sigma
from flexmeter.grid import Grid, Load
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_readings
from flexmeter.messages.estimate import Head
from flexmeter.messages.quantities import ABC
from flexmeter.messages.readings import Readings
from flexmeter.powerflow import Network, compile_network
from flexmeter.services.areas import AreaResult, Floats, Handover, forecast, reports, result_of
from flexmeter.services.desk import Desk, Received, Sender, publish, received_summary, release_overdue
from flexmeter.services.link import Link
from flexmeter.services.lv import aggregate_power
from flexmeter.services.rest import Topology
from flexmeter.services.settings import ServiceSettings

log = logging.getLogger(__name__)
Vector = tuple[bool, ...]
SHARE_P, SHARE_Q, FLOOR_W, FLOOR_VAR = 0.01, 0.02, 1.0, 1.0
"""Uncertainty of a plant's meter, classes 1 and 2, where no roster says otherwise."""
MODELS_KEPT = 32


class MvArea:
    """The estimators of the MV area, one per switch vector, compiled when a vector is first met."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.area = next(area.id for area in grid.areas if area.level == "mv")
        top = next(bus.voltage_v for bus in grid.buses if bus.id == grid.sources[0].bus)
        self.buses = tuple(bus.id for bus in grid.buses if bus.voltage_v == top)
        network = compile_network(grid, area=self.area)
        self.lv_areas = tuple(name for name, _ in network.aggregates)
        own = {name for name, _ in network.injections}
        self.plants: tuple[Load, ...] = tuple(load for load in grid.loads if load.id in own)
        self._models: OrderedDict[Vector, _MvModel] = OrderedDict()

    def estimate(self, vector: Vector, summaries: Reports, value: Floats, sigma: Floats) -> AreaResult:
        """Return the estimate of some minutes under one switch vector.

        Parameters
        ----------
        summaries : of the LV areas, in the order of `lv_areas`
        value, sigma : (6 n_plant, m) P of the phases [W], then Q [var], plant by plant; nan = missing
        """
        return self._model(vector).estimate(summaries, value, sigma)

    def _model(self, vector: Vector) -> _MvModel:
        if vector not in self._models:
            if len(self._models) >= MODELS_KEPT:
                self._models.popitem(last=False)
            self._models[vector] = _MvModel(self, vector)
        self._models.move_to_end(vector)
        return self._models[vector]


class _MvModel:
    """The compiled estimator under one switch vector."""

    def __init__(self, area: MvArea, vector: Vector) -> None:
        self._area = area
        self.network = compile_network(area.grid, vector, area=area.area)
        meters = [
            Meter(quantity, "load", plant.id, phase)
            for plant in area.plants
            for quantity in ("active_power", "reactive_power")
            for phase in plant.phases
        ]
        self._estimator = Estimator(self.network, meters, forecast(area.grid, self.network))
        self._nodes = [[self.network.node_row[bus, phase] for phase in ABC] for bus in area.buses]

    def estimate(self, summaries: Reports, value: Floats, sigma: Floats) -> AreaResult:
        state = self._estimator.estimate(value, sigma, reports=summaries)
        buses = self._area.buses
        shape = (3, len(buses), 3, value.shape[1])
        values, sigmas = np.zeros(shape), np.zeros(shape)
        values[0] = np.abs(state.voltage_v[self._nodes])
        sigmas[0] = state.sigma_voltage_v[self._nodes]
        power = consumption(self.network, state, buses)
        values[1], values[2] = power.real, power.imag
        sigmas[1], sigmas[2] = self._power_sigma(state)
        return result_of("mv", self._area.area, buses, value=values, sigma=sigmas, state=state)

    def _power_sigma(self, state: EstimatedState) -> tuple[Floats, Floats]:
        """Return sigma of P and Q (n_bus, 3, m): of the plants at a bus and of the area behind its transformer."""
        network, place = self.network, {bus: k for k, bus in enumerate(self._area.buses)}
        variance = np.zeros((2, len(place), 3, state.iterations.size))
        rows, below = aggregate_power(network)
        feeders = [(place[network.bus_ids[network.parent[bus]]], power) for bus, power in zip(rows, below, strict=True)]
        for plant in self._area.plants:
            rows_of = [network.injection_row[plant.id, phase] for phase in plant.phases]
            feeders.append((place[plant.bus], rows_of))
        for bus, power in feeders:
            variance[0, bus] += state.sigma_active_power_w[power] ** 2
            variance[1, bus] += state.sigma_reactive_power_var[power] ** 2
        return np.sqrt(variance[0]), np.sqrt(variance[1])


def consumption(network: Network, state: EstimatedState, buses: tuple[str, ...]) -> NDArray[np.complex128]:
    """Return the power (n_bus, 3, m) [VA] consumed at each bus: what the lines bring minus what they take away."""
    current = _edge_current(state)
    lines = {branch for branch in network.branch_ids if branch}
    net = current.copy()
    level = {bus: network.nominal_v[k] for k, bus in enumerate(network.bus_ids)}
    for k, parent in enumerate(network.parent):
        if parent >= 0 and network.branch_ids[k] in lines and level[network.bus_ids[k]] == network.nominal_v[parent]:
            net[parent] -= current[k]
    rows = [network.bus_row[bus] for bus in buses]
    nodes = [[network.node_row[bus, phase] for phase in ABC] for bus in buses]
    return np.asarray(state.voltage_v[nodes] * net[rows].conj())


def _edge_current(state: EstimatedState) -> NDArray[np.complex128]:
    """Return (n_bus, 3, m): the current of the branch to each bus's parent, into the bus; at the head the source's."""
    tree = state.tree
    current = np.zeros((len(state.network.bus_ids), 3, state.iterations.size), complex)
    edges = state.edge_a[: 3 * tree.n_spine].reshape(tree.n_spine, 3, -1)
    on_spine = (tree.branch_edge >= 0) & (tree.branch_edge < tree.n_spine)
    current[on_spine] = edges[tree.branch_edge[on_spine]]
    current[0] = edges[0]
    return current


Arrival = Head | Readings


class MvDesk(Desk[Arrival]):
    """The MV area at work: it waits for the summaries of the LV areas and the readings of its plants."""

    def __init__(self, area: MvArea, topic: str, sender: Sender, handover: Handover = "joint") -> None:
        plants = (plant.id for plant in area.plants)
        expected = {*plants, *area.lv_areas}
        super().__init__("mv", area.area, topic, expected, estimate=self._estimate_under, sender=sender)
        self.versions: list[Topology] = []
        self._mv = area
        self._handover: Handover = handover

    def learn(self, topology: Topology) -> None:
        """Take a new version of the switch vector, in force from its own instant on."""
        if not self.versions or topology.version > self.versions[-1].version:
            self.versions = [*self.versions[-MODELS_KEPT:], topology]

    def in_force(self, time_ms: int) -> Topology:
        """Return the version in force at an instant, the oldest known one before all."""
        return next((one for one in reversed(self.versions) if one.time_ms <= time_ms), self.versions[0])

    def _estimate_under(self, time_ms: int, items: Mapping[str, Arrival]) -> tuple[AreaResult, int]:
        topology = self.in_force(time_ms)
        heads = [item if isinstance(item := items.get(name), Head) else None for name in self._mv.lv_areas]
        value = self._plant_readings(items)
        result = self._mv.estimate(topology.closed, reports(heads, self._handover), value, plant_sigma(value))
        return result, topology.version

    def _plant_readings(self, items: Mapping[str, Arrival]) -> Floats:
        """Return the plants' readings (6 n_plant, 1), nan where a plant did not report."""
        value = np.full((len(self._mv.plants), 2, 3), np.nan)
        for row, plant in enumerate(self._mv.plants):
            batch = items.get(plant.id)
            if isinstance(batch, Readings):
                value[row, 0] = [batch.column("active_power", phase)[0] for phase in ABC]
                value[row, 1] = [batch.column("reactive_power", phase)[0] for phase in ABC]
        return value.reshape(-1, 1)


def received_readings(device: str, payload: bytes) -> Received[Arrival]:
    """Return the readings of a plant."""
    began = time.perf_counter()
    batch = decode_readings(payload)
    return Received(batch.time_ms, device, batch, batch.clock, time.perf_counter() - began)


def plant_sigma(value: Floats) -> Floats:
    """Return the standard deviations (6 n_plant, m) of the plants' readings: P 1 %, Q 2 % of the reading."""
    parts = value.reshape(-1, 2, 3, value.shape[1])
    active = relative_sigma(parts[:, 0], SHARE_P, FLOOR_W)
    reactive = relative_sigma(parts[:, 1], SHARE_Q, FLOOR_VAR)
    return np.stack([active, reactive], axis=1).reshape(value.shape)


async def serve(link: Link, settings: ServiceSettings) -> None:
    """Estimate the MV area, interval by interval, until cancelled."""
    area = MvArea(await link.rest.grid(settings.grid))
    topic = topics.estimate(link.tenant, "mv", area.area)
    desk = MvDesk(area, topic, Sender(link.name, link.boot, settings.grid), settings.handover)
    plants = [topics.readings(link.tenant, plant.id) for plant in area.plants]
    lv = f"{topics.PREFIX}/{link.tenant}/se/lv/+"
    await link.mqtt.subscribe(lv, topics.topology(link.tenant, settings.grid), *plants)
    desk.learn(await link.rest.topology(settings.grid))
    desk.warm()
    await link.online()
    overdue = asyncio.create_task(release_overdue(link, (desk,), settings.deadline_s))
    try:
        async for message in link.mqtt.messages():
            heard = topics.parse(message.topic)
            if heard.kind == "topology":
                desk.learn(await link.rest.topology(settings.grid))
                continue
            try:
                summary = heard.kind == "estimate"
                received: Received[Arrival] | None = (
                    received_summary(message.payload) if summary else received_readings(heard.device, message.payload)
                )
            except MessageError as error:
                log.warning("event=refused topic=%s error=%s", message.topic, error)
                continue
            if received is not None:
                await publish(link, desk, desk.take(received))
    finally:
        overdue.cancel()
