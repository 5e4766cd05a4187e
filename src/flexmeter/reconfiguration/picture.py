"""A picture of a network before and after: voltages of the buses, lines that carry current, open lines."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from flexmeter.reconfiguration.flow import StateFlow, meshed_flow
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, FloatArray


def draw_before_after(network: FeederNetwork, proposed: BoolArray, path: Path) -> None:
    """Write a picture (PNG, SVG or PDF by suffix) of the present and the proposed state beside each other.

    Buses are placed by the proposed tree, substations at the top; line width is current, colour voltage, dashed red
    an open branch, green one that is open in the other state.
    """
    flows = [meshed_flow(network, network.closed), meshed_flow(network, proposed)]
    place = tree_layout(network, proposed)
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    both = figure.subplots(1, 2, sharex=True, sharey=True)
    low = min(float(np.nanmin(np.abs(flow.voltage_pu))) for flow in flows)
    high = max(float(np.nanmax(np.abs(flow.voltage_pu))) for flow in flows)
    scale = mpl.colors.Normalize(low, max(high, low + 1e-6))
    widest = max(float(np.abs(flow.current_a).max()) for flow in flows)
    for axes, title, flow, other in zip(both, ("before", "after"), flows, (proposed, network.closed), strict=True):
        points = _draw_state(axes, network, flow, place, widest, flow.closed & ~other)
        points.set_norm(scale)
        least = float(np.nanmin(np.abs(flow.voltage_pu)))
        axes.set_title(f"{title}: losses {flow.losses_w / 1e3:,.1f} kW, lowest voltage {least:.4f} pu", fontsize=11)
    figure.colorbar(points, ax=both, label="voltage [pu of nominal]", shrink=0.8)
    figure.suptitle(f"{network.name}: width = current, red = open, green = open in the other state", fontsize=12)
    figure.savefig(path, dpi=130)


def _draw_state(
    axes: Axes, network: FeederNetwork, flow: StateFlow, place: FloatArray, widest: float, moved: BoolArray
) -> mpl.collections.PathCollection:
    ends = np.stack([place[network.from_bus], place[network.to_bus]], axis=1)
    closed = flow.closed
    width = np.where(moved[closed], 1.2, 0.4) + 3.5 * np.abs(flow.current_a[closed]) / max(widest, 1e-9)
    colours = np.where(moved[closed], "tab:green", "0.45")
    axes.add_collection(LineCollection(list(ends[closed]), linewidths=list(width), colors=list(colours), zorder=1))
    dashed = LineCollection(list(ends[~closed]), linewidths=1.1, colors="tab:red", linestyles="--", zorder=2)
    axes.add_collection(dashed)
    size = 26 if network.bus_count <= 150 else 7
    colour = np.abs(flow.voltage_pu)
    points = axes.scatter(place[:, 0], place[:, 1], c=colour, s=size, cmap="viridis", zorder=3)
    at = place[network.slack_buses]
    axes.scatter(at[:, 0], at[:, 1], marker="s", s=70, facecolors="none", edgecolors="black", zorder=4)
    if network.branch_count <= 150:
        for branch in np.flatnonzero(~closed):
            x, y = ends[branch].mean(axis=0)
            paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
            name = network.branch_ids[branch]
            axes.text(x, y, name, color="tab:red", fontsize=8, ha="center", va="center", bbox=paper, zorder=5)
    axes.set_axis_off()
    axes.margins(0.04)
    return points


def tree_layout(network: FeederNetwork, closed: BoolArray) -> FloatArray:
    """Place the buses of a radial state, (n, 2): depth downward, leaves side by side, parents over their children."""
    feeder = network.feeder
    children: list[list[int]] = [[] for _ in range(network.bus_count)]
    order = [int(bus) for bus in network.slack_buses]
    depth = dict.fromkeys(order, 0)
    for bus in order:
        for at in range(feeder.ptr[bus], feeder.ptr[bus + 1]):
            other = int(feeder.neighbour[at])
            if closed[feeder.via[at]] and other not in depth:
                depth[other] = depth[bus] + 1
                children[bus].append(other)
                order.append(other)
    x = np.zeros(network.bus_count)
    leaves = 0
    stack = [(int(bus), False) for bus in reversed(network.slack_buses)]
    while stack:
        bus, done = stack.pop()
        if done:
            x[bus] = np.mean([x[child] for child in children[bus]])
        elif children[bus]:
            stack.append((bus, True))
            stack += [(child, False) for child in reversed(children[bus])]
        else:
            x[bus] = leaves
            leaves += 1
    y = np.array([-depth.get(bus, 0) for bus in range(network.bus_count)], dtype=np.float64)
    return np.column_stack([x, y])
