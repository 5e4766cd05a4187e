"""From the three-phase grid model to the feeder network of the search, and back to a switch status vector."""

from __future__ import annotations

import numpy as np

from flexmeter.grid import Grid, Line, LineType, Transformer
from flexmeter.grid.impedance import line_admittance_per_km, line_impedance_per_km, transformer_shunt
from flexmeter.grid.topology import branches, closed_branches
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, build_network

MEDIUM_VOLTAGE_V = 1000.0
# Bus behind the internal impedance of the source with the id that follows.
BEHIND_SOURCE = "source_"


def network_from_grid(grid: Grid, *, least_voltage_v: float = MEDIUM_VOLTAGE_V) -> FeederNetwork:
    """Return the balanced equivalent of the part of a grid at or above `least_voltage_v`, line to line.

    Lines and transformers get their positive-sequence impedance (mean self minus mean mutual impedance). A branch is
    switchable when it has a switch, all of them remote. Loads below the voltage limit count at the bus above it, at
    nominal power and without their own network's losses; estimated powers replace them by `with_power`. The branch
    names are those of the grid. A source's own impedance becomes a branch `source_<id>`.

    Raises
    ------
    GridError
        The part is no valid feeder network (nothing at that voltage, buses out of reach, loops without a switch).
    """
    inside = {bus.id: bus.voltage_v for bus in grid.buses if bus.voltage_v >= least_voltage_v}
    types = {line_type.id: line_type for line_type in grid.line_types}
    remote: dict[str, bool] = {}
    for switch in grid.switches:
        remote[switch.branch] = remote.get(switch.branch, True) and switch.remote
    kept = [
        (branch, closed)
        for branch, closed in zip(branches(grid), closed_branches(grid), strict=True)
        if branch.from_bus in inside and branch.to_bus in inside
    ]
    records = [_record(branch, types, inside, grid.frequency_hz) for branch, _ in kept]
    stiff = [source for source in grid.sources if source.r1_ohm == 0 and source.x1_ohm == 0]
    soft = [source for source in grid.sources if source not in stiff]
    bus_ids = [*inside, *(f"{BEHIND_SOURCE}{source.id}" for source in soft)]
    power = _powers(grid, inside)
    p = np.array([power.get(bus, 0j).real for bus in bus_ids])
    q = np.array([power.get(bus, 0j).imag for bus in bus_ids])
    shunt = _shunts(grid, inside)
    return build_network(
        name=grid.id,
        bus_ids=bus_ids,
        branch_ids=[*(branch.id for branch, _ in kept), *(f"{BEHIND_SOURCE}{source.id}" for source in soft)],
        from_bus=[*(branch.from_bus for branch, _ in kept), *(f"{BEHIND_SOURCE}{source.id}" for source in soft)],
        to_bus=[*(branch.to_bus for branch, _ in kept), *(source.bus for source in soft)],
        r_ohm=[*(record[0].real for record in records), *(source.r1_ohm for source in soft)],
        x_ohm=[*(record[0].imag for record in records), *(source.x1_ohm for source in soft)],
        nominal_voltage_v=[*inside.values(), *(inside[source.bus] for source in soft)],
        slack_buses=[*(source.bus for source in stiff), *(f"{BEHIND_SOURCE}{source.id}" for source in soft)],
        slack_voltage_v=[source.voltage_v for source in (*stiff, *soft)],
        p_w=p,
        q_var=q,
        closed=[*(closed for _, closed in kept), *(True for _ in soft)],
        switchable=[*(remote.get(branch.id, False) for branch, _ in kept), *(False for _ in soft)],
        rated_current_a=[*(record[3] or np.nan for record in records), *(np.nan for _ in soft)],
        charging_s=[*(record[1] for record in records), *(0.0 for _ in soft)],
        ratio=[*(record[2] for record in records), *(1.0 for _ in soft)],
        kind=["transformer" if isinstance(branch, Transformer) else "line" for branch, _ in kept]
        + ["line"] * len(soft),
        shunt_g_s=[shunt.get(bus, 0j).real for bus in bus_ids],
        shunt_b_s=[shunt.get(bus, 0j).imag for bus in bus_ids],
    )


def switch_vector(grid: Grid, network: FeederNetwork, closed: BoolArray) -> tuple[bool, ...]:
    """Return the grid's switch status vector (paper, section 5) for a state of its feeder network.

    All switches of a closed branch are closed, those of an open one open; switches elsewhere keep their status.
    """
    state = dict(zip(network.branch_ids, closed.tolist(), strict=True))
    return tuple(state.get(switch.branch, switch.closed) for switch in grid.switches)


def _record(
    branch: Line | Transformer, types: dict[str, LineType], nominal: dict[str, float], frequency_hz: float
) -> tuple[complex, float, float, float]:
    """Impedance at the to-bus [ohm], charging [S], ratio and rated current [A] of a branch."""
    if isinstance(branch, Line):
        line_type = types[branch.type]
        z = positive_sequence(line_impedance_per_km(line_type)) * branch.length_km
        y = positive_sequence(line_admittance_per_km(line_type, frequency_hz)) * branch.length_km
        return z, y.imag, 1.0, line_type.rated_current_a
    base = branch.rated_to_v**2 / branch.rated_power_va
    reactive = max(branch.uk_percent**2 - branch.ukr_percent**2, 0.0) ** 0.5
    z = complex(branch.ukr_percent, reactive) / 100 * base
    tap = 1 + (branch.tap_position - branch.tap_neutral) * branch.tap_step_percent / 100
    high, low = (tap, 1.0) if branch.tap_side == "from" else (1.0, tap)
    ratio = branch.rated_from_v * high / nominal[branch.from_bus] / (branch.rated_to_v * low / nominal[branch.to_bus])
    return z, 0.0, ratio, branch.rated_power_va / (np.sqrt(3.0) * branch.rated_to_v)


def positive_sequence(matrix: np.ndarray) -> complex:
    """Return the mean diagonal minus the mean off-diagonal element of a 3x3 phase matrix."""
    diagonal = np.trace(matrix) / 3
    return complex(diagonal - (matrix.sum() - np.trace(matrix)) / 6)


def _powers(grid: Grid, inside: dict[str, float]) -> dict[str, complex]:
    """Sum the loads of every bus inside and of what hangs below it."""
    head = _heads(grid, inside)
    power: dict[str, complex] = {}
    for load in grid.loads:
        total = complex(sum(load.power_w), sum(load.power_var))
        if load.bus in head:
            power[head[load.bus]] = power.get(head[load.bus], 0j) + total
    return power


def _heads(grid: Grid, inside: dict[str, float]) -> dict[str, str]:
    """Return for every bus the bus inside that feeds it: itself, or the first one above."""
    head = {bus: bus for bus in inside}
    waiting = {bus.id: [] for bus in grid.buses}  # type: dict[str, list[str]]
    for branch, closed in zip(branches(grid), closed_branches(grid), strict=True):
        if closed:
            waiting[branch.from_bus].append(branch.to_bus)
            waiting[branch.to_bus].append(branch.from_bus)
    queue = list(head)
    for bus in queue:
        for other in waiting[bus]:
            if other not in head:
                head[other] = head[bus]
                queue.append(other)
    return head


def _shunts(grid: Grid, inside: dict[str, float]) -> dict[str, complex]:
    """Sum capacitors, reactors and transformer iron per bus, mean of the phases [S]."""
    total: dict[str, complex] = {}
    for shunt in grid.shunts:
        if shunt.bus in inside:
            y = complex(sum(shunt.g_s), sum(shunt.b_s)) / 3
            total[shunt.bus] = total.get(shunt.bus, 0j) + y
    for transformer in grid.transformers:
        if transformer.from_bus in inside and transformer.to_bus in inside:
            total[transformer.from_bus] = total.get(transformer.from_bus, 0j) + transformer_shunt(transformer)
    return total
