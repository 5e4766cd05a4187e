"""Watches a demo over MQTT like any other service: estimates, decisions, timings, and a probe of the broker."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field

import numpy as np

from flexmeter.errors import MessageError
from flexmeter.estimation import Reports
from flexmeter.grid import Grid
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_estimate, decode_notice
from flexmeter.messages.estimate import Estimate
from flexmeter.messages.events import Decision, Timing, decode_event
from flexmeter.messages.notices import State
from flexmeter.messages.quantities import ABC
from flexmeter.messaging.client import Client
from flexmeter.scenario.assemble import Estimated
from flexmeter.scenario.display import Display
from flexmeter.scenario.nodes import levels
from flexmeter.scenario.options import minute_of
from flexmeter.scenario.record import changes_of
from flexmeter.services.advisor import Advisor
from flexmeter.services.reconfiguration import bus_power

PROBE_BYTES = 1300
PROBE_EVERY_S = 0.25


@dataclass
class Timings:
    """Latencies collected so far [ms], and the messages each publisher says the broker has acknowledged."""

    latency_ms: dict[str, list[float]] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    began_ms: dict[int, float] = field(default_factory=dict)

    def add(self, kind: str, values: tuple[float, ...] | list[float]) -> None:
        """Add latencies of a kind."""
        self.latency_ms.setdefault(kind, []).extend(values)


class Monitor:
    """Collects the results of a run; arrays have a column per minute."""

    def __init__(self, grid: Grid, tenant: str, minutes: int, lv_areas: tuple[str, ...]) -> None:
        places = levels(grid)
        self.timings = Timings()
        self.online: set[str] = set()
        self.done = asyncio.Event()
        self._grid, self._tenant, self._minutes = grid, tenant, minutes
        self._mv_nodes, self._lv_nodes = places.mv, places.lv
        self._mv_area = places.mv_area
        self._lv_areas = {area: k for k, area in enumerate(lv_areas)}
        self._row = {node: k for k, node in enumerate(places.lv)}
        self._mv = np.full((2, len(places.mv), minutes), np.nan)
        self._lv = np.full((2, len(places.lv), minutes), np.nan)
        self._head = np.full((2, 3, minutes), np.nan)
        self._report = np.full((len(lv_areas), 9, minutes), np.nan)
        self._report_covariance = np.full((len(lv_areas), 9, 9, minutes), np.nan)
        self._vectors = np.tile(np.array(grid.switch_vector, bool)[:, None], (1, minutes))
        self._advisor = Advisor(grid) if grid.switches else None
        self._seen_mv: set[int] = set()
        self._seen_lv = 0
        self._decided: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether every minute was estimated and decided on."""
        decided = len(self._decided) if self._advisor else self._minutes
        lv = self._seen_lv >= self._minutes * len(self._lv_areas)
        return lv and min(len(self._seen_mv), decided) >= self._minutes

    async def subscribe(self, mqtt: Client) -> None:
        """Hear estimates, events and states."""
        base = f"{topics.PREFIX}/{self._tenant}"
        await mqtt.subscribe(f"{base}/se/lv/+", f"{base}/se/mv/+", f"{base}/+/event", f"{base}/+/state")

    async def listen(self, mqtt: Client, display: Display) -> None:
        """Take messages until cancelled."""
        async for message in mqtt.messages():
            topic = topics.parse(message.topic)
            if topic.kind == "estimate":
                self._take_estimate(decode_estimate(message.payload), display)
            elif topic.kind == "state":
                self._take_state(topic.device, message.payload)
            elif topic.kind == "event":
                self._take_event(topic.device, message.payload, display)
            display.snapshot.messages = sum(self.timings.published.values())
            if self.complete:
                self.done.set()

    def _take_state(self, device: str, payload: bytes) -> None:
        if decode_notice(payload, State).online:
            self.online.add(device)
        else:
            self.online.discard(device)

    def _take_estimate(self, estimate: Estimate, display: Display) -> None:
        column = minute_of(estimate.time_ms) - 1
        if not 0 <= column < self._minutes:
            return
        if estimate.level == "lv":
            self._take_lv(estimate, column)
        else:
            self._take_mv(estimate, column, display)

    def _take_lv(self, estimate: Estimate, column: int) -> None:
        self._seen_lv += 1
        for phase in ABC:
            rows = [self._row[bus, phase] for bus in estimate.elements]
            self._lv[0, rows, column], self._lv[1, rows, column] = estimate.column("voltage", phase)
        if estimate.head is not None:
            area = self._lv_areas[estimate.area]
            self._report[area, :, column] = estimate.head.values
            self._report_covariance[area, :, :, column] = estimate.head.covariance

    def _take_mv(self, estimate: Estimate, column: int, display: Display) -> None:
        minute = column + 1
        self._seen_mv.add(minute)
        if minute in self.timings.began_ms:
            self.timings.add("end_to_end", [1e3 * time.time() - self.timings.began_ms.pop(minute)])
        place = {bus: k for k, bus in enumerate(estimate.elements)}
        columns = {phase: estimate.column("voltage", phase) for phase in ABC}
        for row, (bus, phase) in enumerate(self._mv_nodes):
            value, sigma = columns[phase]  # type: ignore[index]
            self._mv[:, row, column] = value[place[bus]], sigma[place[bus]]
        if estimate.head is not None:
            self._head[0, :, column] = estimate.head.values[3:6]
            self._head[1, :, column] = np.sqrt(estimate.head.covariance.diagonal()[3:6])
        self._show(estimate, column, display)

    def _show(self, estimate: Estimate, column: int, display: Display) -> None:
        now, level = display.snapshot, self._grid.sources[0].voltage_v / 3**0.5
        now.minute = max(now.minute, column + 1)
        now.lowest_percent = 100 * float(self._mv[0, :, column].min()) / level
        now.highest_percent = 100 * float(self._mv[0, :, column].max()) / level
        if self._advisor is not None:
            vector = tuple(bool(closed) for closed in self._vectors[:, column])
            power = bus_power(estimate, self._advisor.network.bus_ids)
            now.losses_kw = self._advisor.losses_w(vector, *power) / 1e3
        display.refresh()

    def _take_event(self, device: str, payload: bytes, display: Display) -> None:
        try:
            event = decode_event(payload)
        except MessageError:
            return  # the probe
        if isinstance(event, Timing):
            self.timings.add(event.level, event.elapsed_ms)
            self.timings.published[device] = max(event.published, self.timings.published.get(device, 0))
            if event.level == "concentrator":
                self.timings.began_ms[minute_of(event.time_ms)] = event.began_ms
        elif isinstance(event, Decision):
            minute = minute_of(event.time_ms)
            self._decided.add(minute)
            if event.changed and minute < self._minutes:
                self._vectors[:, minute:] = np.array(event.proposed, bool)[:, None]
                branches = tuple(switch.branch for switch in self._grid.switches)
                both = self._vectors[:, minute - 1 : minute + 1].T
                for change in changes_of(both, branches):
                    display.snapshot.changes.append(type(change)(minute + 1, change.opened, change.closed))

    def estimated(self) -> Estimated:
        """Return the estimates of the run."""
        return Estimated(
            mv_voltage=self._mv[0],
            mv_voltage_sigma=self._mv[1],
            lv_voltage=self._lv[0],
            lv_voltage_sigma=self._lv[1],
            substation_w=self._head[0],
            substation_sigma_w=self._head[1],
            vectors=np.ascontiguousarray(self._vectors.T),
        )

    def summaries(self) -> Reports:
        """Return what the LV areas handed upward over the run."""
        return Reports(self._report, self._report_covariance)


async def probe(mqtt: Client, tenant: str, name: str, timings: Timings) -> None:
    """Send packets of 1.3 kB to ourselves over the broker and note their round trip, until cancelled (paper 6.2)."""
    topic = topics.event(tenant, name)
    await mqtt.subscribe(topic)
    arrivals = mqtt.messages()
    while True:
        began = time.perf_counter()
        await mqtt.publish(topic, os.urandom(PROBE_BYTES))
        await anext(arrivals)
        timings.add("mqtt_round_trip", [1e3 * (time.perf_counter() - began)])
        await asyncio.sleep(PROBE_EVERY_S)
