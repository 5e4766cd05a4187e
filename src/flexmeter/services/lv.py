"""LV-level state estimation (paper section 4.2): the feeders below one MV/LV substation.

In: the concentrators' summaries `se/concentrator/AREA` of one interval. Out: `se/lv/AREA`: voltages and consumption of
the feeder buses, and the summary of the busbar for the level above. `LvArea` is the pure part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import numpy as np

from flexmeter.errors import MessageError
from flexmeter.estimation import Estimator, Reports
from flexmeter.grid import Grid
from flexmeter.messages import topics
from flexmeter.messages.estimate import Head
from flexmeter.messages.quantities import ABC
from flexmeter.powerflow import Network, compile_network
from flexmeter.services.areas import AreaResult, Handover, forecast, reports, result_of
from flexmeter.services.desk import Desk, Sender, publish, received_summary, release_overdue
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


def lv_desk(area: LvArea, topic: str, sender: Sender, handover: Handover = "joint") -> Desk[Head]:
    """Return an LV area at work: it waits for the summaries of its concentrators."""

    def estimate(_: int, heads: Mapping[str, Head]) -> tuple[AreaResult, int]:
        return area.estimate(reports([heads.get(name) for name in area.concentrators], handover)), 0

    return Desk("lv", area.area, topic, area.concentrators, estimate=estimate, sender=sender)


async def serve(link: Link, settings: ServiceSettings) -> None:
    """Estimate every LV area of the grid, interval by interval, until cancelled."""
    grid = await link.rest.grid(settings.grid)
    sender = Sender(link.name, link.boot, grid.id)
    desks = {
        area.id: lv_desk(LvArea(grid, area.id), topics.estimate(link.tenant, "lv", area.id), sender, settings.handover)
        for area in grid.areas
        if area.level == "lv"
    }
    parent = {area.id: area.parent for area in grid.areas if area.level == "concentrator"}
    await link.mqtt.subscribe(f"{topics.PREFIX}/{link.tenant}/se/concentrator/+")
    for one in desks.values():
        one.warm()
    await link.online()
    overdue = asyncio.create_task(release_overdue(link, desks.values(), settings.deadline_s))
    try:
        async for message in link.mqtt.messages():
            desk = desks.get(parent.get(topics.parse(message.topic).area, ""))
            if desk is None:
                continue
            try:
                summary = received_summary(message.payload)
            except MessageError as error:
                log.warning("event=refused topic=%s error=%s", message.topic, error)
                continue
            if summary is not None:
                await publish(link, desk, desk.take(summary))
    finally:
        overdue.cancel()
