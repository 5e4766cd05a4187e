"""The figures of the paper's section 6, redrawn from a run, and the map of the grid before and after.

Each function draws one figure from a `DayRecord` and returns it; `draw_all` writes the PNG files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flexmeter.grid import Grid
from flexmeter.scenario.record import DayRecord

TRUE, ESTIMATE, MESHED, FIXED, PSEUDO = "#222222", "#d1495b", "#30638e", "#c8102e", "#8d99ae"
RECONFIGURED, BEST = "#edae49", "#66a182"
Segment = list[tuple[float, float]]


def draw_all(record: DayRecord, grid: Grid, out: Path) -> dict[str, Path]:
    """Write every figure the record has data for into `out`; return name -> file."""
    drawn = {}
    for name, figure in _figures(record, grid):
        path = out / f"{name}.png"
        figure.savefig(path, dpi=130)
        drawn[name] = path
    return drawn


def _figures(record: DayRecord, grid: Grid) -> Iterator[tuple[str, Figure]]:
    latencies = record.timing.latency_ms
    if "mqtt_round_trip" in latencies:
        yield "fig06_transmission_latency", transmission_latency(record)
    if "lv" in latencies:
        yield "fig07_estimation_time", estimation_time(record)
    yield "fig08_voltage_profile", voltage_profile(record)
    yield "fig09_substation_power", substation_power(record)
    if record.vectors.shape[1]:
        yield "fig10_losses", losses(record)
        yield "fig11_voltage_deviation", voltage_deviation(record)
    if record.unmonitored is not None:
        yield "fig12_unmonitored_injection", unmonitored_injection(record)
    yield "map", topology_map(record, grid)


def _canvas(title: str, height: float = 4.0, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, k + 1) for k in range(columns)]
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def _over_the_day(title: str, ylabel: str, record: DayRecord) -> tuple[Figure, Axes, NDArray[np.float64]]:
    figure, (axis,) = _canvas(title)
    hours = (np.arange(record.minutes) + 1) / 60
    axis.set_xlabel("time of day [h]")
    axis.set_ylabel(ylabel)
    axis.set_xlim(0, max(record.minutes / 60, 0.1))
    return figure, axis, hours


def _band(axis: Axes, hours: NDArray[np.float64], estimate: NDArray[np.float64], sigma: NDArray[np.float64]) -> None:
    axis.fill_between(
        hours, estimate - 2 * sigma, estimate + 2 * sigma, color=ESTIMATE, alpha=0.25, linewidth=0, label="± 2 sigma"
    )


def transmission_latency(record: DayRecord) -> Figure:
    """Draw Fig. 6: round trip of packets of 1.3 kB over the broker, all and as a box plot."""
    values = record.timing.latency_ms["mqtt_round_trip"]
    figure, (left, right) = _canvas("Transmission latency, MQTT over TLS, QoS 1 (paper Fig. 6)", columns=2)
    left.plot(np.arange(values.size), values, ".", markersize=2, color=MESHED)
    left.set_xlabel("packet")
    left.set_ylabel("round trip [ms]")
    left.set_yscale("log")
    right.boxplot(values, widths=0.4, whis=1.5, flierprops={"marker": ".", "markersize": 2})
    right.set_xticks([1], [f"{values.size} packets, median {np.median(values):.2f} ms"])
    right.set_ylabel("round trip [ms]")
    right.set_yscale("log")
    return figure


def estimation_time(record: DayRecord) -> Figure:
    """Draw Fig. 7: time of one estimate with message decoding and encoding, per level."""
    levels = [level for level in ("concentrator", "lv", "mv") if level in record.timing.latency_ms]
    values = [record.timing.latency_ms[level] for level in levels]
    figure, (axis,) = _canvas("Estimation time with message handling (paper Fig. 7)")
    axis.boxplot(values, widths=0.4, whis=1.5, flierprops={"marker": ".", "markersize": 2})
    names = {"concentrator": "concentrator", "lv": "LV grid", "mv": "MV grid"}
    labels = [f"{names[level]}\nmedian {np.median(v):.2f} ms" for level, v in zip(levels, values, strict=True)]
    axis.set_xticks(range(1, len(levels) + 1), labels)
    axis.set_ylabel("time [ms]")
    axis.set_yscale("log")
    return figure


def voltage_profile(record: DayRecord, bus: str = "MV_007", phase: str = "a") -> Figure:
    """Draw Fig. 8: voltage of a bus over the day, truth and estimate with its band."""
    row = record.mv_nodes.index((bus, phase)) if (bus, phase) in record.mv_nodes else 0
    bus, phase = record.mv_nodes[row]
    figure, axis, hours = _over_the_day(f"Voltage at {bus}, phase {phase} (paper Fig. 8)", "|V| [V]", record)
    tracked = record.mv_voltage
    _band(axis, hours, tracked.estimate[row], tracked.sigma[row])
    axis.plot(hours, tracked.true[row], color=TRUE, linewidth=1.1, label="true")
    axis.plot(hours, tracked.estimate[row], color=ESTIMATE, linewidth=0.7, label="estimate")
    axis.legend(frameon=False)
    return figure


def substation_power(record: DayRecord) -> Figure:
    """Draw Fig. 9: active power of phase a at the head of the MV grid."""
    figure, axis, hours = _over_the_day("Active power at the substation, phase a (paper Fig. 9)", "P [kW]", record)
    tracked = record.substation_power
    _band(axis, hours, tracked.estimate[0] / 1e3, tracked.sigma[0] / 1e3)
    axis.plot(hours, tracked.true[0] / 1e3, color=TRUE, linewidth=1.1, label="true")
    axis.plot(hours, tracked.estimate[0] / 1e3, color=ESTIMATE, linewidth=0.7, label="estimate")
    axis.axhline(0, color="#999999", linewidth=0.6)
    axis.legend(frameon=False)
    return figure


def losses(record: DayRecord) -> Figure:
    """Draw Fig. 10: losses of the MV lines: ring closed, fixed topology, reconfigured."""
    figure, axis, hours = _over_the_day("Losses of the MV lines (paper Fig. 10)", "losses [kW]", record)
    for values, colour, name in (
        (record.losses.fixed, FIXED, "fixed topology"),
        (record.losses.reconfigured, RECONFIGURED, "reconfigured"),
        (record.losses.best_radial, BEST, "best tree of every minute"),
        (record.losses.meshed, MESHED, "ring closed"),
    ):
        axis.plot(hours, values, color=colour, linewidth=1, label=f"{name}: {values.sum() / 60:.4g} kWh")
    _mark_changes(axis, record)
    _legend_above(axis)
    return figure


def voltage_deviation(record: DayRecord) -> Figure:
    """Draw Fig. 11: largest deviation of an MV voltage from nominal."""
    title = "Largest voltage deviation in the MV grid (paper Fig. 11)"
    figure, axis, hours = _over_the_day(title, "|V - nominal| [%]", record)
    for values, colour, name in (
        (record.deviation.fixed, FIXED, "fixed topology"),
        (record.deviation.reconfigured, RECONFIGURED, "reconfigured"),
        (record.deviation.meshed, MESHED, "ring closed"),
    ):
        axis.plot(hours, values, color=colour, linewidth=1, label=f"{name}: up to {values.max():.2f} %")
    _mark_changes(axis, record)
    _legend_above(axis)
    return figure


def _legend_above(axis: Axes) -> None:
    """Put the legend above the highest of many lines, none of which is negative."""
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper right", ncols=2)


def _mark_changes(axis: Axes, record: DayRecord) -> None:
    for change in record.changes:
        axis.axvline(change.minute / 60, color="#999999", linewidth=0.6, linestyle=":")


def unmonitored_injection(record: DayRecord) -> Figure:
    """Draw Fig. 12: power at an MV bus without monitored LV grid: truth, pseudo-measurement, estimate."""
    data = record.unmonitored
    if data is None:
        raise ValueError("the record has no unmonitored bus")
    title = f"Active power at {data.bus}, not monitored (paper Fig. 12)"
    figure, axis, hours = _over_the_day(title, "P [kW]", record)
    _band(axis, hours, data.estimate, data.sigma)
    axis.plot(hours, data.pseudo, color=PSEUDO, linewidth=1, label="pseudo-measurement")
    axis.plot(hours, data.estimate, color=ESTIMATE, linewidth=0.8, label="estimate")
    axis.plot(hours, data.true, color=TRUE, linewidth=1.1, label="true")
    axis.set_ylim(0, 1.15 * max(float(data.pseudo.max()), float(data.estimate.max())))
    axis.legend(frameon=False)
    return figure


def topology_map(record: DayRecord, grid: Grid) -> Figure:
    """Draw the grid, with switches before the first and after the last change: lines by state, buses by level."""
    if not grid.switches:
        figure, (axis,) = _canvas("The grid", height=5.2)
        _draw_map(axis, grid, record.vectors[0])
        return figure
    figure, axes = _canvas("The grid before and after", height=5.2, columns=2)
    last = record.minutes - 1
    for axis, vector, when in (
        (axes[0], record.vectors[0], "start of the day"),
        (axes[1], record.vectors[last], "end of the day"),
    ):
        _draw_map(axis, grid, vector)
        axis.set_title(f"{when}: open {', '.join(_open_lines(grid, vector)) or 'none'}", fontsize=10)
    return figure


def _open_lines(grid: Grid, vector: NDArray[np.bool_]) -> list[str]:
    return [switch.branch for switch, closed in zip(grid.switches, vector, strict=True) if not closed]


def _draw_map(axis: Axes, grid: Grid, vector: NDArray[np.bool_]) -> None:
    where = {b.id: (b.x_m, b.y_m) for b in grid.buses if b.x_m is not None and b.y_m is not None}
    top = max(bus.voltage_v for bus in grid.buses)
    major = {bus.id for bus in grid.buses if bus.voltage_v == top}
    opened = set(_open_lines(grid, vector))
    minor: list[Segment] = []
    closed: list[Segment] = []
    open_: list[Segment] = []
    for branch in grid.lines + grid.transformers:
        if branch.from_bus not in where or branch.to_bus not in where:
            continue
        segment = [where[branch.from_bus], where[branch.to_bus]]
        group = open_ if branch.id in opened else closed if {branch.from_bus, branch.to_bus} <= major else minor
        group.append(segment)
    faint, thin = ("#b8c4d0", 0.4) if closed else (MESHED, 1.0)  # a grid of one level is drawn as such
    axis.add_collection(LineCollection(minor, colors=faint, linewidths=thin))
    axis.add_collection(LineCollection(closed, colors=MESHED, linewidths=1.8))
    axis.add_collection(LineCollection(open_, colors=FIXED, linewidths=1.8, linestyles="dashed"))
    for name in sorted(major & where.keys()):
        x, y = where[name]
        head = any(source.bus == name for source in grid.sources)
        axis.plot(x, y, "s" if head else "o", color=FIXED if head else TRUE, markersize=7 if head else 4, zorder=3)
        axis.annotate(name, (x, y), fontsize=7, xytext=(4, 4), textcoords="offset points")
    axis.autoscale()
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_axis_off()
