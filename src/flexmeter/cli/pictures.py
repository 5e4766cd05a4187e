"""Pictures of grids and voltages for `--plot`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flexmeter.errors import InputError
from flexmeter.grid import Grid, Line, branches, spanning_tree
from flexmeter.grid.topology import closed_branches
from flexmeter.powerflow import Network

Floats = NDArray[np.float64]
PHASE_COLOURS = ("#c0392b", "#b8860b", "#2563a8")
LEVEL_COLOURS = ("#334155", "#0f766e", "#64748b", "#a16207")
SUFFIXES = (".png", ".svg", ".pdf")


def check_picture(path: Path | None) -> None:
    """Refuse a picture file we cannot write before any work is done."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--plot {path}: {path.suffix or 'no'} extension, expected one of {', '.join(SUFFIXES)}")


def distances_km(grid: Grid, network: Network) -> Floats:
    """Return the length of line between the source and every bus of the network, (n_bus,) [km]."""
    length = {line.id: line.length_km for line in grid.lines}
    result = np.zeros(len(network.bus_ids))
    for k in range(1, len(network.bus_ids)):
        result[k] = result[network.parent[k]] + length.get(network.branch_ids[k], 0.0)
    return result


def voltage_profile(
    path: Path,
    grid: Grid,
    network: Network,
    voltage_v: Floats,
    sigma_v: Floats | None,
    title: str,
    readings: tuple[NDArray[np.int64], Floats] | None = None,
) -> None:
    """Draw |V| over the distance from the source, phase by phase, with +-2 sigma where sigma is given.

    voltage_v, sigma_v : (n_node,) [V], rows as `network.nodes`; readings : rows of nodes and what was read there [V]
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    distance = distances_km(grid, network)
    nominal = network.nominal_v[network.node_bus]
    per_unit = voltage_v / nominal
    for phase in range(3):
        rows = np.flatnonzero(network.node_phase == phase)
        at = np.full(len(network.bus_ids), np.nan)
        at[network.node_bus[rows]] = per_unit[rows]
        _phase(axes, network, distance, at, phase)
        _loops(axes, network, distance, at, phase)
        if sigma_v is not None:
            _band(axes, distance[network.node_bus[rows]], per_unit[rows], (sigma_v / nominal)[rows], phase)
    if readings is not None:
        _readings(axes, network, distance, readings[0], readings[1] / nominal[readings[0]])
    axes.set(xlabel="distance from the source in km of line", ylabel="voltage in per unit of nominal", title=title)
    axes.grid(alpha=0.25)
    axes.margins(x=0.02, y=0.08)
    axes.legend(frameon=False, ncols=3, loc="best", fontsize=9)
    _save(figure, path)


def _loops(axes: Axes, network: Network, distance: Floats, at: Floats, phase: int) -> None:
    """Draw the branches that close loops, dashed."""
    for loop in network.loops:
        ends = [loop.from_bus, loop.to_bus]
        if "abc"[phase] in loop.phases and network.nominal_v[ends[0]] == network.nominal_v[ends[1]]:
            axes.plot(
                distance[ends], at[ends], color=PHASE_COLOURS[phase], linestyle="dashed", linewidth=1.0, alpha=0.7
            )


def _readings(axes: Axes, network: Network, distance: Floats, nodes: NDArray[np.int64], per_unit: Floats) -> None:
    """Draw what was read, as hollow marks."""
    for phase in range(3):
        own = network.node_phase[nodes] == phase
        colour = PHASE_COLOURS[phase]
        x = distance[network.node_bus[nodes[own]]]
        axes.plot(
            x, per_unit[own], linestyle="none", marker="o", markersize=3.5, fillstyle="none", color=colour, alpha=0.6
        )
    axes.plot([], [], linestyle="none", marker="o", markersize=3.5, fillstyle="none", color="#475569", label="readings")


def _phase(axes: Axes, network: Network, distance: Floats, at: Floats, phase: int) -> None:
    child = np.arange(1, len(distance))
    parent = np.asarray(network.parent)[1:]
    both = np.isfinite(at[child]) & np.isfinite(at[parent])
    child, parent = child[both], parent[both]
    segments = np.stack(
        [np.column_stack([distance[parent], at[parent]]), np.column_stack([distance[child], at[child]])], axis=1
    )
    width = 1.3 if len(distance) < 400 else 0.6
    axes.add_collection(LineCollection(list(segments), colors=PHASE_COLOURS[phase], linewidths=width, alpha=0.85))
    axes.plot([], [], color=PHASE_COLOURS[phase], label=f"phase {'abc'[phase]}")
    axes.plot(distance, at, linestyle="none", marker=".", markersize=2.5, color=PHASE_COLOURS[phase])


def _band(axes: Axes, distance: Floats, per_unit: Floats, sigma: Floats, phase: int) -> None:
    known = np.isfinite(sigma)
    many = known.sum() > 200
    label = "$\\pm 2\\,\\sigma$" if phase == 0 else None
    axes.errorbar(
        distance[known],
        per_unit[known],
        yerr=2 * sigma[known],
        fmt="none",
        ecolor=PHASE_COLOURS[phase],
        elinewidth=0.4 if many else 1.0,
        alpha=0.25 if many else 0.5,
        label=label,
    )


def grid_map(path: Path, grid: Grid) -> None:
    """Draw the grid: by coordinates where all buses have them, else as a tree (distance over leaf order)."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    place, has_map = _places(grid)
    levels = sorted({bus.voltage_v for bus in grid.buses}, reverse=True)
    level = {bus.id: levels.index(bus.voltage_v) for bus in grid.buses}
    closed = closed_branches(grid)
    for rank, volts in enumerate(levels):
        own = [
            [place[branch.from_bus], place[branch.to_bus]]
            for branch, on in zip(branches(grid), closed, strict=True)
            if on and level[branch.to_bus] == rank
        ]
        colour = LEVEL_COLOURS[min(rank, len(LEVEL_COLOURS) - 1)]
        axes.add_collection(LineCollection(own, colors=colour, linewidths=2.2 if rank == 0 else 0.8))
        axes.plot([], [], color=colour, linewidth=2.2 if rank == 0 else 0.8, label=f"{volts / 1e3:g} kV")
    _open_branches(axes, grid, closed, place)
    _symbols(axes, grid, place)
    axes.autoscale()
    if has_map:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()
    axes.set_title(grid.id)
    axes.legend(frameon=False, loc="best", fontsize=9)
    _save(figure, path)


def _open_branches(axes: Axes, grid: Grid, closed: list[bool], place: dict[str, tuple[float, float]]) -> None:
    opened = [
        [place[branch.from_bus], place[branch.to_bus]]
        for branch, on in zip(branches(grid), closed, strict=True)
        if not on
    ]
    if opened:
        axes.add_collection(LineCollection(opened, colors="#dc2626", linewidths=1.8, linestyles="dashed"))
        axes.plot([], [], color="#dc2626", linestyle="dashed", label="open")


def _symbols(axes: Axes, grid: Grid, place: dict[str, tuple[float, float]]) -> None:
    groups = (
        ("source", [item.bus for item in grid.sources], "s", 70, "#111827"),
        ("transformer", [item.to_bus for item in grid.transformers], "^", 34, "#7c3aed"),
        ("load", [item.bus for item in grid.loads if item.kind in ("customer", "other")], ".", 7, "#475569"),
        ("industrial load", [item.bus for item in grid.loads if item.kind == "industrial"], "D", 40, "#b45309"),
        ("generation", [item.bus for item in grid.loads if item.kind == "generation"], "*", 80, "#ca8a04"),
    )
    for name, buses, marker, size, colour in groups:
        if buses:
            x, y = zip(*(place[bus] for bus in buses), strict=True)
            axes.scatter(x, y, s=size, marker=marker, color=colour, label=name, zorder=3)


def _places(grid: Grid) -> tuple[dict[str, tuple[float, float]], bool]:
    """Return map positions: the file's, a bus without one beside its neighbour; without any, those of a tree."""
    known = {bus.id: (bus.x_m, bus.y_m) for bus in grid.buses if bus.x_m is not None and bus.y_m is not None}
    places = {name: (float(x), float(y)) for name, (x, y) in known.items() if x is not None and y is not None}
    if len(places) < len(grid.buses) / 2:
        return _tree_places(grid), False
    missing = True
    while missing and len(places) < len(grid.buses):
        missing = False
        for branch in branches(grid):
            for one, other in ((branch.from_bus, branch.to_bus), (branch.to_bus, branch.from_bus)):
                if one in places and other not in places:
                    places[other], missing = places[one], True
    return (places, True) if len(places) == len(grid.buses) else (_tree_places(grid), False)


def _tree_places(grid: Grid) -> dict[str, tuple[float, float]]:
    """Return distance from the source and, upwards, the order of the leaves below, feeder by feeder."""
    tree = spanning_tree(grid)
    names = [bus.id for bus in grid.buses]
    length = [branch.length_km if isinstance(branch, Line) else 0.05 for branch in branches(grid)]
    x = dict.fromkeys(names, 0.0)
    children: dict[str, list[str]] = {name: [] for name in names}
    for here, parent, branch in zip(tree.order, tree.parent, tree.branch, strict=True):
        if parent >= 0:
            x[names[here]] = x[names[parent]] + max(length[branch], 1e-3)
            children[names[parent]].append(names[here])
    y: dict[str, float] = {}
    stack = [names[here] for here, parent in zip(tree.order, tree.parent, strict=True) if parent < 0]
    while stack:
        name = stack.pop()
        stack += children[name]
        if not children[name]:
            y[name] = float(len(y))
    for here in reversed(tree.order):
        name = names[here]
        if children[name]:
            y[name] = float(np.mean([y[child] for child in children[name]]))
    return {name: (x[name], y.get(name, -1.0)) for name in names}


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
