"""Make the record of a run: the true state under the switch vectors that were in force, beside the estimates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid import Grid
from flexmeter.reconfiguration import best_tree, network_from_grid
from flexmeter.scenario.nodes import levels
from flexmeter.scenario.options import DayOptions
from flexmeter.scenario.record import (
    Counts,
    DayRecord,
    Deviation,
    Floats,
    Losses,
    Timing,
    Tracked,
    Unmonitored,
    changes_of,
    runs,
)
from flexmeter.scenario.truth import TrueState, Truth, medium_voltage_lines

BLOCK_MINUTES = 60


@dataclass(frozen=True)
class Estimated:
    """What the estimators said over the run, and the switch vectors in force.

    Rows of the voltages follow `nodes.levels`; nan where there was no estimate.
    """

    mv_voltage: Floats
    mv_voltage_sigma: Floats
    lv_voltage: Floats
    lv_voltage_sigma: Floats
    substation_w: Floats
    substation_sigma_w: Floats
    vectors: NDArray[np.bool_]


@dataclass(frozen=True)
class _Actual:
    """True figures over the run under one sequence of vectors; shapes (rows, n_minute) or (n_minute,)."""

    mv_voltage: Floats
    lv_voltage: Floats
    substation_w: Floats
    losses_w: Floats
    mv_power_w: Floats
    mv_power_var: Floats
    last_line_w: Floats


def assemble(
    options: DayOptions,
    grid: Grid,
    truth: Truth,
    estimated: Estimated,
    *,
    unmonitored: Unmonitored | None = None,
    counts: Counts | None = None,
    rows_stored: int = 0,
    timing: Timing | None = None,
) -> DayRecord:
    """Return the record of a run."""
    places = levels(grid)
    minutes = estimated.vectors.shape[0]
    actual = _follow(grid, truth, estimated.vectors)
    fixed = _follow(grid, truth, np.tile(np.array(grid.switch_vector, bool), (minutes, 1)))
    meshed = _follow(grid, truth, np.ones_like(estimated.vectors)) if grid.switches else fixed
    nominal = next(bus.voltage_v for bus in grid.buses if bus.id == grid.sources[0].bus)
    return DayRecord(
        grid_id=grid.id,
        seed=options.seed,
        customers=sum(load.kind == "customer" for load in grid.loads),
        minutes=minutes,
        mv_nodes=places.mv,
        mv_nominal_v=nominal,
        lv_nominal_v=next(bus.voltage_v for bus in grid.buses if bus.id == places.lv[0][0]),
        mv_voltage=Tracked(actual.mv_voltage, estimated.mv_voltage, estimated.mv_voltage_sigma),
        lv_voltage=Tracked(actual.lv_voltage, estimated.lv_voltage, estimated.lv_voltage_sigma),
        substation_power=Tracked(actual.substation_w, estimated.substation_w, estimated.substation_sigma_w),
        vectors=estimated.vectors,
        changes=changes_of(estimated.vectors, tuple(switch.branch for switch in grid.switches)),
        losses=Losses(
            meshed=meshed.losses_w / 1e3,
            fixed=fixed.losses_w / 1e3,
            reconfigured=actual.losses_w / 1e3,
            best_radial=_best_radial(grid, actual) / 1e3,
        ),
        deviation=Deviation(*(_deviation(one.mv_voltage, nominal) for one in (meshed, fixed, actual))),
        reverse_flow=fixed.last_line_w > 0,
        unmonitored=unmonitored,
        counts=counts,
        rows_stored=rows_stored,
        timing=timing or Timing(),
    )


def _follow(grid: Grid, truth: Truth, vectors: NDArray[np.bool_]) -> _Actual:
    """Compute the true figures minute by minute under the vectors in force, a block at a time."""
    stretches = runs(vectors, BLOCK_MINUTES)
    parts = [_figures(grid, truth.state(minutes, vector)) for minutes, vector in stretches]
    fields = _Actual.__dataclass_fields__
    return _Actual(**{name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in fields})


def _figures(grid: Grid, state: TrueState) -> _Actual:
    places = levels(grid)
    row = {node: k for k, node in enumerate(state.network.nodes)}
    mv, lv = [row[node] for node in places.mv], [row[node] for node in places.lv]
    lines = medium_voltage_lines(grid)
    current = state.line_current_a(lines)
    buses = list(dict.fromkeys(bus for bus, _ in places.mv))
    voltage = state.voltage_v[mv].reshape(len(buses), 3, -1)
    power = (voltage * _net_current(grid, buses, lines, current).conj()).sum(axis=1)
    power[buses.index(grid.sources[0].bus)] = 0.0  # what the source delivers is no consumption
    last = (voltage[buses.index(_end(grid, lines))] * current[-1].conj()).sum(axis=0).real if lines else power[0].real
    return _Actual(
        mv_voltage=np.abs(state.voltage_v[mv]),
        lv_voltage=np.abs(state.voltage_v[lv]),
        substation_w=state.source_va.real,
        losses_w=state.line_losses_w(lines).sum(axis=0) if lines else np.zeros(state.minutes.size),
        mv_power_w=power.real,
        mv_power_var=power.imag,
        last_line_w=last,
    )


def _net_current(
    grid: Grid, buses: list[str], lines: tuple[str, ...], current: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """Return (n_bus, 3, m): what the lines bring to each bus minus what they take away (Kirchhoff) [A]."""
    place = {bus: k for k, bus in enumerate(buses)}
    ends = {line.id: (place[line.from_bus], place[line.to_bus]) for line in grid.lines if line.id in set(lines)}
    net = np.zeros((len(buses), *current.shape[1:]), complex)
    for k, name in enumerate(lines):
        start, end = ends[name]
        net[start] -= current[k]
        net[end] += current[k]
    return net


def _end(grid: Grid, lines: tuple[str, ...]) -> str:
    """Return the far end of the last line of the ring, which leads back to the substation."""
    return next(line.to_bus for line in grid.lines if line.id == lines[-1])


def _best_radial(grid: Grid, actual: _Actual) -> Floats:
    """Return the losses [W] of the best tree of every minute, by enumeration, with the true bus powers."""
    if not grid.switches:
        return actual.losses_w
    feeder = network_from_grid(grid)
    powers = (np.ascontiguousarray(actual.mv_power_w.T), np.ascontiguousarray(actual.mv_power_var.T))
    return best_tree(feeder, *powers).losses_w


def _deviation(voltage: Floats, nominal: float) -> Floats:
    return np.asarray(100 * np.abs(voltage / (nominal / 3**0.5) - 1).max(axis=0))
