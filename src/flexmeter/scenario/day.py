"""The day with the library alone: truth, meters, three levels, decisions, block by block.

A block of minutes is estimated in one call under the switch vector in force; if a decision changes the vector inside
it, the rest of the block is played again under the new one. Estimates and decisions are those of `demo`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from flexmeter.estimation import Reports
from flexmeter.scenario.assemble import Estimated, assemble
from flexmeter.scenario.display import Display
from flexmeter.scenario.field import Field, stacked
from flexmeter.scenario.nodes import levels
from flexmeter.scenario.options import DayOptions, instant_ms
from flexmeter.scenario.partial import Partial, unmonitored
from flexmeter.scenario.record import Timing, changes_of
from flexmeter.scenario.results import Run
from flexmeter.services.advisor import Advisor, Loads
from flexmeter.services.areas import AreaResult, Handover, handed_over
from flexmeter.services.lv import LvArea
from flexmeter.services.mv import MvArea, plant_sigma

BLOCK_MINUTES = 60
TENANT = "study"
Vector = tuple[bool, ...]


@dataclass(frozen=True)
class Block:
    """Estimates of consecutive minutes under one switch vector: of the MV area and the LV areas."""

    vector: Vector
    mv: AreaResult
    lv: tuple[AreaResult, ...]

    def first(self, count: int) -> Block:
        """Return the first minutes only."""
        return Block(self.vector, _first(self.mv, count), tuple(_first(one, count) for one in self.lv))


def _first(result: AreaResult, count: int) -> AreaResult:
    return AreaResult(
        level=result.level,
        area=result.area,
        buses=result.buses,
        value=result.value[..., :count],
        sigma=result.sigma[..., :count],
        head=result.head[..., :count],
        head_covariance=result.head_covariance[..., :count],
        objective=result.objective[:count],
        degrees_of_freedom=result.degrees_of_freedom[:count],
        iterations=result.iterations[:count],
    )


class Levels:
    """The estimators of all levels over the simulated field."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.mv = MvArea(field.grid)
        self.lv = tuple(LvArea(field.grid, area) for area in self.mv.lv_areas)
        self._devices = {device.name: device for device in field.devices}
        self._partial = Partial(field.truth, self.mv) if field.options.partial else None

    def block(self, minutes: range, vector: Vector) -> Block:
        """Estimate consecutive minutes (from 0) under one switch vector."""
        field, handover = self.field, self.field.options.handover
        state = field.truth.state(minutes, vector)
        readings = field.truth.readings(field.fleet, state)
        lv = []
        for area in self.lv:
            below = []
            for name in area.concentrators:
                device = self._devices.get(name)
                made = device.concentrator if device else None
                below.append(made.estimate(*stacked(readings, device.rows)) if device and made else None)
            lv.append(area.estimate(_reports(below, len(minutes), handover)))
        summaries = _reports(lv, len(minutes), handover)
        if self._partial is not None:
            summaries = self._partial.reports(summaries, minutes)
        value = field.plant_readings(readings, self.mv)
        return Block(vector, self.mv.estimate(vector, summaries, value, plant_sigma(value)), tuple(lv))


def _reports(results: list[AreaResult | None] | list[AreaResult], count: int, handover: Handover) -> Reports:
    value = np.full((len(results), 9, count), np.nan)
    covariance = np.full((len(results), 9, 9, count), np.nan)
    for k, result in enumerate(results):
        if result is not None:
            value[k], covariance[k] = result.head, result.head_covariance
    return handed_over(Reports(value, covariance), handover)


def play(levels_: Levels, minutes: int) -> Iterator[Block]:
    """Yield the estimates of the day in blocks, each under the switch vector that was in force."""
    field = levels_.field
    advisor = Advisor(field.grid) if field.grid.switches else None
    vector, minute = field.grid.switch_vector, 0
    while minute < minutes:
        block = levels_.block(range(minute, min(minute + BLOCK_MINUTES, minutes)), vector)
        count, following = _decide(advisor, block, minute)
        yield block.first(count)
        minute, vector = minute + count, following


def _decide(advisor: Advisor | None, block: Block, minute: int) -> tuple[int, Vector]:
    """Return how many minutes of a block hold, and the vector after them."""
    count = block.mv.value.shape[-1]
    if advisor is None:
        return count, block.vector
    rows = [block.mv.buses.index(bus) for bus in advisor.network.bus_ids]
    power = block.mv.value[1:, rows].swapaxes(1, 2)
    for k in range(count):
        interval = instant_ms(minute + k + 1) // 60_000
        wanted = advisor.decide(interval, block.vector, Loads(power[0, :, :, k], power[1, :, :, k])).wanted
        if wanted != block.vector:
            return k + 1, wanted
    return count, block.vector


def run_day(options: DayOptions, *, quiet: bool = False) -> Run:
    """Play the day and return its record."""
    began = time.perf_counter()
    field = Field(options, TENANT)
    blocks: list[Block] = []
    with Display("day", options.minutes, quiet=quiet) as display:
        display.say(f"grid {field.grid.id}: {len(field.grid.buses):,} buses, {len(field.grid.loads):,} loads")
        levels_ = Levels(field)
        for block in play(levels_, options.minutes):
            blocks.append(block)
            _show(display, field, blocks)
    estimated = _estimated(field, blocks)
    timing = Timing(wall_s=time.perf_counter() - began, simulated_s=60.0 * options.minutes)
    heads = [_reports(list(block.lv), block.mv.value.shape[-1], options.handover) for block in blocks]
    summaries = Reports(*(np.concatenate([getattr(h, name) for h in heads], -1) for name in ("value", "covariance")))
    fig12 = unmonitored(field, levels_.mv, estimated.vectors, summaries)
    return Run(field.grid, assemble(options, field.grid, field.truth, estimated, unmonitored=fig12, timing=timing))


def _show(display: Display, field: Field, blocks: list[Block]) -> None:
    now, block = display.snapshot, blocks[-1]
    if len(blocks) > 1 and blocks[-2].vector != block.vector:
        both = np.array([blocks[-2].vector, block.vector])
        change = changes_of(both, tuple(switch.branch for switch in field.grid.switches))[0]
        now.changes.append(replace(change, minute=now.minute + 1))
    now.minute += block.mv.value.shape[-1]
    level = field.grid.sources[0].voltage_v / 3**0.5
    now.lowest_percent = 100 * float(block.mv.value[0, :, :, -1].min()) / level
    now.highest_percent = 100 * float(block.mv.value[0, :, :, -1].max()) / level
    if field.grid.switches:
        power = block.mv.value[1:, :, :, -1].sum(axis=2)
        now.losses_kw = Advisor(field.grid).losses_w(block.vector, power[0], power[1]) / 1e3
    display.refresh()


def _estimated(field: Field, blocks: list[Block]) -> Estimated:
    places = levels(field.grid)
    mv_value = np.concatenate([block.mv.value for block in blocks], axis=-1)
    mv_sigma = np.concatenate([block.mv.sigma for block in blocks], axis=-1)
    head = np.concatenate([block.mv.head for block in blocks], axis=-1)
    variance = np.concatenate([block.mv.head_covariance[np.arange(9), np.arange(9)] for block in blocks], axis=-1)
    rows = {bus: k for k, bus in enumerate(blocks[0].mv.buses)}
    mv = [(rows[bus], "abc".index(phase)) for bus, phase in places.mv]
    at_mv = tuple(np.array(mv).T)
    lv_value, lv_sigma = _lv_voltage(blocks, places.lv)
    vectors = np.concatenate([np.tile(np.array(b.vector, bool), (b.mv.value.shape[-1], 1)) for b in blocks])
    return Estimated(
        mv_voltage=mv_value[0][at_mv],
        mv_voltage_sigma=mv_sigma[0][at_mv],
        lv_voltage=lv_value,
        lv_voltage_sigma=lv_sigma,
        substation_w=head[3:6],
        substation_sigma_w=np.sqrt(variance[3:6]),
        vectors=vectors,
    )


def _lv_voltage(blocks: list[Block], nodes: tuple[tuple[str, str], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return |V| and sigma of the LV nodes over the run."""
    place = {
        (bus, phase): (area, row, column)
        for area, result in enumerate(blocks[0].lv)
        for row, bus in enumerate(result.buses)
        for column, phase in enumerate("abc")
    }
    at = [place[node] for node in nodes]
    value, sigma = [], []
    for block in blocks:
        value.append(np.array([block.lv[area].value[0, row, column] for area, row, column in at]))
        sigma.append(np.array([block.lv[area].sigma[0, row, column] for area, row, column in at]))
    return np.concatenate(value, axis=-1), np.concatenate(sigma, axis=-1)
