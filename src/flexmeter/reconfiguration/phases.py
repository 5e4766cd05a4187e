"""The unbalanced three-phase evaluation of states that a search on the balanced equivalent proposes."""

from __future__ import annotations

from collections import OrderedDict

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import DidNotConverge, Finding, GridError
from flexmeter.grid import Bus, Grid, Line, LineType, Load, Source, Transformer
from flexmeter.powerflow import Network, compile_network, powerflow
from flexmeter.reconfiguration.adapter import MEDIUM_VOLTAGE_V
from flexmeter.reconfiguration.figures import Figures, figures_of
from flexmeter.reconfiguration.goals import Constraints
from flexmeter.reconfiguration.network import FloatArray

KEPT = 32
_BUSBAR = "joined_substations"


class PhaseModel:
    """Three-phase load flows of the part of a grid at or above a voltage, compiled once per switch vector.

    Every bus has one load of constant power per phase, from phase to neutral, as the estimator reports consumption.
    Untransposed lines, single-phase laterals and the source's zero sequence count; a voltage is that of a phase to
    earth over its nominal value, a loading that of one conductor. Several substations count as one busbar: their
    voltages must be equal.

    Raises
    ------
    GridError
        Sources of different voltage, angle or impedance.
    """

    def __init__(self, grid: Grid, *, least_voltage_v: float = MEDIUM_VOLTAGE_V) -> None:
        self.grid, self._places = _part(grid, least_voltage_v)
        self.bus_ids = tuple(load.bus for load in self.grid.loads)
        self._rated = _ratings(self.grid)
        self._networks: OrderedDict[tuple[bool, ...], Network] = OrderedDict()

    def figures(
        self, vector: tuple[bool, ...], power_w: ArrayLike, power_var: ArrayLike, limits: Constraints
    ) -> Figures:
        """Return the figures of one switch status vector of the whole grid.

        Parameters
        ----------
        power_w, power_var : (3, n_bus) consumption per phase [W, var], buses as `bus_ids`; of phases that a bus does
            not have nothing is taken

        Raises
        ------
        DidNotConverge
            The loads cannot be supplied.
        """
        network = self._network(tuple(vector[place] for place in self._places))
        p, q = (self._rows(network, np.asarray(power, dtype=np.float64)) for power in (power_w, power_var))
        result = powerflow(network, p, q)
        result.raise_if_diverged()
        voltage = np.abs(result.voltage_v[:, 0]) / network.nominal_v[network.node_bus]
        current = np.abs(result.branch_current_a[:, :, 0])
        rated = np.array([self._rated.get(branch, np.nan) for branch in network.branch_ids])
        phases = [f"{bus} phase {phase}" for bus, phase in network.nodes]
        conductors = [f"{branch} phase {phase}" for branch in network.branch_ids for phase in "abc"]
        loading: FloatArray = (current / rated[:, None]).ravel()
        losses_w = float(result.branch_losses_w.sum())
        return figures_of(losses_w, voltage, loading, limits, tuple(phases), tuple(conductors))

    def _network(self, vector: tuple[bool, ...]) -> Network:
        if vector not in self._networks:
            if len(self._networks) >= KEPT:
                self._networks.popitem(last=False)
            self._networks[vector] = compile_network(self.grid, vector)
        self._networks.move_to_end(vector)
        return self._networks[vector]

    def _rows(self, network: Network, power: FloatArray) -> FloatArray:
        if power.shape != (3, len(self.bus_ids)):
            raise ValueError(f"powers have shape {power.shape}, expected (3, {len(self.bus_ids)})")
        column = {bus: k for k, bus in enumerate(self.bus_ids)}
        return np.array([power["abc".index(phase), column[bus]] for bus, phase in network.injections])


def _part(grid: Grid, least_voltage_v: float) -> tuple[Grid, list[int]]:
    """Return the part with one load per bus and one source, and the places of its switches in the whole vector."""
    inside = {bus.id: bus for bus in grid.buses if bus.voltage_v >= least_voltage_v}
    lines = tuple(line for line in grid.lines if line.from_bus in inside and line.to_bus in inside)
    transformers = tuple(one for one in grid.transformers if one.from_bus in inside and one.to_bus in inside)
    names = {branch.id for branch in (*lines, *transformers)}
    places = [k for k, switch in enumerate(grid.switches) if switch.branch in names]
    buses, types, source = tuple(inside.values()), grid.line_types, grid.sources[:1]
    if len(grid.sources) > 1:
        buses, lines, types, source = _joined(grid, buses, lines)
    part = msgspec.structs.replace(
        grid,
        buses=buses,
        lines=lines,
        line_types=types,
        transformers=transformers,
        switches=tuple(grid.switches[k] for k in places),
        sources=source,
        loads=tuple(Load(bus.id, bus.id, bus.phases) for bus in inside.values()),
        shunts=tuple(shunt for shunt in grid.shunts if shunt.bus in inside),
        areas=(),
    )
    return part, places


def _joined(
    grid: Grid, buses: tuple[Bus, ...], lines: tuple[Line, ...]
) -> tuple[tuple[Bus, ...], tuple[Line, ...], tuple[LineType, ...], tuple[Source, ...]]:
    """Feed several stiff and equal substations from one busbar."""
    first = grid.sources[0]
    for one in grid.sources:
        if (one.voltage_v, one.angle_rad) != (first.voltage_v, first.angle_rad) or one.r1_ohm or one.x1_ohm:
            text = "a three-phase load flow of several sources needs equal voltages and no internal impedance"
            raise GridError([Finding("source", (one.id,), "voltage_v", text)], grid.id)
    nominal = next(bus.voltage_v for bus in buses if bus.id == first.bus)
    nothing = ((0.0, 0.0, 0.0),) * 3
    ways = tuple(Line(f"{_BUSBAR}_{one.id}", _BUSBAR, one.bus, _BUSBAR, 0.0) for one in grid.sources)
    busbar = msgspec.structs.replace(first, bus=_BUSBAR)
    return (
        (Bus(_BUSBAR, nominal), *buses),
        (*ways, *lines),
        (*grid.line_types, LineType(_BUSBAR, nothing, nothing)),
        (busbar,),
    )


def _ratings(grid: Grid) -> dict[str, float]:
    """Return the rated current of every branch that has one [A]: of a transformer at its to-side."""
    types = {one.id: one.rated_current_a for one in grid.line_types}
    rated = {line.id: types[line.type] for line in grid.lines if types[line.type] > 0}
    return rated | {one.id: _rated_current(one) for one in grid.transformers}


def _rated_current(transformer: Transformer) -> float:
    return float(transformer.rated_power_va / (np.sqrt(3.0) * transformer.rated_to_v))


def solved_figures(
    model: PhaseModel, vector: tuple[bool, ...], power_w: ArrayLike, power_var: ArrayLike, limits: Constraints
) -> Figures | None:
    """Return the figures of a state, none when it cannot supply the loads."""
    try:
        return model.figures(vector, power_w, power_var, limits)
    except DidNotConverge:
        return None
