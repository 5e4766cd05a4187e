"""MV-level state estimation (paper section 4.3): the MV grid below the HV/MV substation, transformers included.

In: the summaries `se/lv/AREA` of one interval, the readings of meters in the MV grid, the switch vector (REST, asked
again at every alert). Out: `se/mv/AREA`: voltages and consumption of the MV buses. `MvArea` is the pure part.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import MessageError
from flexmeter.estimation import Estimate as EstimatedState
from flexmeter.estimation import Estimator, Meter, Reports, relative_sigma
from flexmeter.grid import Grid, Load
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_estimate, decode_readings, encode_estimate
from flexmeter.messages.estimate import Head
from flexmeter.messages.quantities import ABC
from flexmeter.messages.readings import Clock, Readings
from flexmeter.powerflow import Network, compile_network
from flexmeter.services.areas import AreaResult, Floats, Handover, estimate_message, forecast, reports, result_of
from flexmeter.services.collect import Collector, Interval
from flexmeter.services.desk import Answer, publish, release_overdue
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


@dataclass(frozen=True)
class Received:
    """A summary or the readings of a plant, its clock, and how long decoding it took [s]."""

    item: Arrival
    clock: Clock
    decoding_s: float


@dataclass
class MvDesk:
    """The MV area at work: collects summaries and readings of an interval, answers with what to publish."""

    area: MvArea
    topic: str
    source: str
    boot: int
    handover: Handover = "joint"
    seq: int = 0
    versions: list[Topology] = field(default_factory=list)

    def __post_init__(self) -> None:
        plants = {plant.id for plant in self.area.plants}
        self._collector: Collector[Received] = Collector(plants | set(self.area.lv_areas))

    @property
    def waiting(self) -> tuple[int, ...]:
        """The instants that wait for more inputs."""
        return self._collector.waiting

    def learn(self, topology: Topology) -> None:
        """Take a new version of the switch vector, in force from its own instant on."""
        if not self.versions or topology.version > self.versions[-1].version:
            self.versions = [*self.versions[-MODELS_KEPT:], topology]

    def in_force(self, time_ms: int) -> Topology:
        """Return the version in force at an instant, the oldest known one before all."""
        return next((one for one in reversed(self.versions) if one.time_ms <= time_ms), self.versions[0])

    def take_estimate(self, payload: bytes) -> list[Answer]:
        """Take an LV estimate; return the estimates that are ready."""
        began = time.perf_counter()
        estimate = decode_estimate(payload)
        if estimate.head is None or estimate.status == "not_converged":
            return []
        received = Received(estimate.head, estimate.clock, time.perf_counter() - began)
        return self._answers(self._collector.add(estimate.time_ms, estimate.area, received))

    def take_readings(self, device: str, payload: bytes) -> list[Answer]:
        """Take the readings of a plant; return the estimates that are ready."""
        began = time.perf_counter()
        batch = decode_readings(payload)
        received = Received(batch, batch.clock, time.perf_counter() - began)
        return self._answers(self._collector.add(batch.time_ms, device, received))

    def release(self, until_ms: int) -> list[Answer]:
        """Estimate what waits up to an instant with what there is."""
        return self._answers(self._collector.release(until_ms))

    def _answers(self, ready: list[Interval[Received]]) -> list[Answer]:
        return [self._answer(interval) for interval in ready]

    def _answer(self, interval: Interval[Received]) -> Answer:
        began = time.perf_counter()
        if interval.missing:
            log.warning("event=missing level=mv area=%s count=%d", self.area.area, len(interval.missing))
        topology = self.in_force(interval.time_ms)
        items = {name: received.item for name, received in interval.items.items()}
        heads = [item if isinstance(item := items.get(name), Head) else None for name in self.area.lv_areas]
        value = self._plant_readings(items)
        result = self.area.estimate(topology.closed, reports(heads, self.handover), value, plant_sigma(value))
        self.seq += 1
        message = estimate_message(
            result,
            source=self.source,
            boot=self.boot,
            seq=self.seq,
            grid=self.area.grid.id,
            time_ms=interval.time_ms,
            clock=next(iter(interval.items.values())).clock,
            topology=topology.version,
        )
        payload = encode_estimate(message)
        decoding_s = sum(received.decoding_s for received in interval.items.values())
        return Answer(interval.time_ms, payload, 1e3 * (decoding_s + time.perf_counter() - began))

    def _plant_readings(self, items: dict[str, Arrival]) -> Floats:
        """Return the plants' readings (6 n_plant, 1), nan where a plant did not report."""
        value = np.full((len(self.area.plants), 2, 3), np.nan)
        for row, plant in enumerate(self.area.plants):
            batch = items.get(plant.id)
            if isinstance(batch, Readings):
                value[row, 0] = [batch.column("active_power", phase)[0] for phase in ABC]
                value[row, 1] = [batch.column("reactive_power", phase)[0] for phase in ABC]
        return value.reshape(-1, 1)


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
    desk = MvDesk(area, topic, link.name, link.boot, settings.handover)
    plants = [topics.readings(link.tenant, plant.id) for plant in area.plants]
    lv = f"{topics.PREFIX}/{link.tenant}/se/lv/+"
    await link.mqtt.subscribe(lv, topics.topology(link.tenant, settings.grid), *plants)
    desk.learn(await link.rest.topology(settings.grid))
    await link.online()
    overdue = asyncio.create_task(release_overdue(link, "mv", (desk,), settings.deadline_s))
    try:
        async for message in link.mqtt.messages():
            heard = topics.parse(message.topic)
            if heard.kind == "topology":
                desk.learn(await link.rest.topology(settings.grid))
                continue
            try:
                if heard.kind == "estimate":
                    answers = desk.take_estimate(message.payload)
                else:
                    answers = desk.take_readings(heard.device, message.payload)
            except MessageError as error:
                log.warning("event=refused topic=%s error=%s", message.topic, error)
                continue
            await publish(link, "mv", topic, answers)
    finally:
        overdue.cancel()
