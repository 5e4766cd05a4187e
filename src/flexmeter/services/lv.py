"""LV-level state estimation (paper section 4.2): the feeders below one MV/LV substation.

In: the concentrators' summaries `se/concentrator/AREA` of one interval. Out: `se/lv/AREA`: voltages and consumption of
the feeder buses, and the summary of the busbar for the level above. `LvArea` is the pure part.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import numpy as np

from flexmeter.errors import MessageError
from flexmeter.estimation import Estimator, Reports
from flexmeter.grid import Grid
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_estimate, encode_estimate
from flexmeter.messages.estimate import Head
from flexmeter.messages.quantities import ABC
from flexmeter.messages.readings import Clock
from flexmeter.powerflow import Network, compile_network
from flexmeter.services.areas import AreaResult, Handover, estimate_message, forecast, reports, result_of
from flexmeter.services.collect import Collector, Interval
from flexmeter.services.desk import Answer, publish, release_overdue
from flexmeter.services.link import Link
from flexmeter.services.settings import ServiceSettings

log = logging.getLogger(__name__)


class LvArea:
    """The compiled estimator of one LV area."""

    def __init__(self, grid: Grid, area: str) -> None:
        self.area = area
        self.network = compile_network(grid, area=area)
        self.concentrators = tuple(name for name, _ in self.network.aggregates)
        self.buses = self.network.bus_ids
        self._estimator = Estimator(self.network, (), forecast(grid, self.network))
        self._bus_nodes = [[self.network.node_row[bus, phase] for phase in ABC] for bus in self.buses]

    def estimate(self, summaries: Reports) -> AreaResult:
        """Return the estimate of some minutes from the summaries of the concentrators, in their order."""
        nothing = np.empty((0, summaries.value.shape[2]))
        state = self._estimator.estimate(nothing, nothing, reports=summaries)
        shape = (3, len(self.buses), 3, nothing.shape[1])
        value, sigma = np.zeros(shape), np.zeros(shape)
        value[0] = np.abs(state.voltage_v[self._bus_nodes])
        sigma[0] = state.sigma_voltage_v[self._bus_nodes]
        rows, power = aggregate_power(self.network)
        value[1][rows], sigma[1][rows] = state.power_va.real[power], state.sigma_active_power_w[power]
        value[2][rows], sigma[2][rows] = state.power_va.imag[power], state.sigma_reactive_power_var[power]
        return result_of("lv", self.area, self.buses, value=value, sigma=sigma, state=state)


def aggregate_power(network: Network) -> tuple[list[int], list[list[int]]]:
    """Return the bus positions of a network's aggregates and the injection rows (3) of each."""
    first = len(network.injections) - 3 * len(network.aggregates)
    rows = [bus for _, bus in network.aggregates]
    return rows, [[first + 3 * k + phase for phase in range(3)] for k in range(len(rows))]


@dataclass(frozen=True)
class Received:
    """A concentrator's summary, its clock, and how long decoding it took [s]."""

    head: Head
    clock: Clock
    decoding_s: float


@dataclass
class LvDesk:
    """One LV area at work: collects the concentrators' estimates of an interval, answers with what to publish."""

    area: LvArea
    grid_id: str
    topic: str
    source: str
    boot: int
    handover: Handover = "joint"
    seq: int = 0

    def __post_init__(self) -> None:
        self._collector: Collector[Received] = Collector(self.area.concentrators)

    @property
    def waiting(self) -> tuple[int, ...]:
        """The instants that wait for more concentrators."""
        return self._collector.waiting

    def take(self, payload: bytes) -> list[Answer]:
        """Take a concentrator's estimate; return the estimates that are ready."""
        began = time.perf_counter()
        estimate = decode_estimate(payload)
        if estimate.head is None or estimate.status == "not_converged":
            return []
        received = Received(estimate.head, estimate.clock, time.perf_counter() - began)
        ready = self._collector.add(estimate.time_ms, estimate.area, received)
        return [self._answer(interval) for interval in ready]

    def release(self, until_ms: int) -> list[Answer]:
        """Estimate what waits up to an instant with what there is."""
        return [self._answer(interval) for interval in self._collector.release(until_ms)]

    def _answer(self, interval: Interval[Received]) -> Answer:
        began = time.perf_counter()
        if interval.missing:
            log.warning("event=missing level=lv area=%s count=%d", self.area.area, len(interval.missing))
        heads = [interval.items[name].head if name in interval.items else None for name in self.area.concentrators]
        result = self.area.estimate(reports(heads, self.handover))
        self.seq += 1
        message = estimate_message(
            result,
            source=self.source,
            boot=self.boot,
            seq=self.seq,
            grid=self.grid_id,
            time_ms=interval.time_ms,
            clock=next(iter(interval.items.values())).clock,
        )
        payload = encode_estimate(message)
        decoding_s = sum(item.decoding_s for item in interval.items.values())
        return Answer(interval.time_ms, payload, 1e3 * (decoding_s + time.perf_counter() - began))


async def serve(link: Link, settings: ServiceSettings) -> None:
    """Estimate every LV area of the grid, interval by interval, until cancelled."""
    grid = await link.rest.grid(settings.grid)
    desks = {
        area.id: LvDesk(
            LvArea(grid, area.id),
            grid.id,
            topics.estimate(link.tenant, "lv", area.id),
            link.name,
            link.boot,
            settings.handover,
        )
        for area in grid.areas
        if area.level == "lv"
    }
    parent = {area.id: area.parent for area in grid.areas if area.level == "concentrator"}
    await link.mqtt.subscribe(f"{topics.PREFIX}/{link.tenant}/se/concentrator/+")
    await link.online()
    overdue = asyncio.create_task(release_overdue(link, "lv", desks.values(), settings.deadline_s))
    try:
        async for message in link.mqtt.messages():
            desk = desks.get(parent.get(topics.parse(message.topic).area, ""))
            if desk is None:
                continue
            try:
                answers = desk.take(message.payload)
            except MessageError as error:
                log.warning("event=refused topic=%s error=%s", message.topic, error)
                continue
            await publish(link, "lv", desk.topic, answers)
    finally:
        overdue.cancel()
