"""The benchmark cases as OpenDSS circuits."""

from __future__ import annotations

import numpy as np
import opendssdirect as dss

from benchmarks._feeders import Feeder, per_phase
from flexmeter.grid import Grid

STIFF = (1e-9, 1e-9)
"""Resistance and reactance [ohm] of a source without impedance, which OpenDSS does not know."""


def compile_opendss(feeder: Feeder, scale: np.ndarray) -> None:
    """Build the circuit; every customer has its own load shape with `scale` (steps, n_load), one minute a step."""
    for line in [
        *_network(feeder.grid),
        *_loads(feeder, scale),
        "set controlmode=off tolerance=1e-8 maxiterations=100",
    ]:
        dss.Text.Command(line)


def solve_days(steps: int) -> None:
    """Solve the next steps, one after the other, inside OpenDSS."""
    dss.Text.Command(f"set number={steps}")
    dss.Solution.Solve()
    if not dss.Solution.Converged():
        raise RuntimeError("OpenDSS did not converge")


def start_day() -> None:
    """Put the clock back before the first step."""
    dss.Text.Command("set mode=daily stepsize=1m hour=0 sec=0")


def voltages(nodes: tuple[tuple[str, str], ...]) -> np.ndarray:
    """Return (n_node,) complex voltages [V] of the last step."""
    pairs = np.asarray(dss.Circuit.AllBusVolts()).reshape(-1, 2)
    row = {name.lower(): k for k, name in enumerate(dss.Circuit.AllNodeNames())}
    of_node = [row[f"{bus.lower()}.{'abc'.index(phase) + 1}"] for bus, phase in nodes]
    return np.asarray(pairs[of_node, 0] + 1j * pairs[of_node, 1])


def _network(grid: Grid) -> list[str]:
    source = grid.sources[0]
    z1 = (source.r1_ohm, source.x1_ohm) if source.x1_ohm else STIFF
    z0 = (source.r0_ohm, source.x0_ohm) if source.x0_ohm else STIFF
    voltage = {bus.id: bus.voltage_v for bus in grid.buses}
    base = voltage[source.bus]
    script = [
        "clear",
        f"set defaultbasefrequency={grid.frequency_hz!r}",
        f"new circuit.case bus1={source.bus} phases=3 basekv={base / 1e3!r} pu={source.voltage_v / base!r} "
        f"angle={float(np.degrees(source.angle_rad))!r} Z1=[{z1[0]!r} {z1[1]!r}] Z0=[{z0[0]!r} {z0[1]!r}]",
    ]
    for item in grid.line_types:
        r, x = _triangle(item.r_ohm_per_km), _triangle(item.x_ohm_per_km)
        script.append(f"new linecode.{item.id} nphases=3 units=km rmatrix={r} xmatrix={x} cmatrix=[0 | 0 0 | 0 0 0]")
    script += [
        f"new line.{x.id} bus1={x.from_bus} bus2={x.to_bus} linecode={x.type} length={x.length_km!r} units=km"
        for x in grid.lines
    ]
    for t in grid.transformers:
        xhl = (t.uk_percent**2 - t.ukr_percent**2) ** 0.5
        kva = t.rated_power_va / 1e3
        script.append(
            f"new transformer.{t.id} windings=2 buses=[{t.from_bus} {t.to_bus}] conns=[delta wye] "
            f"kvs=[{t.rated_from_v / 1e3!r} {t.rated_to_v / 1e3!r}] kvas=[{kva!r} {kva!r}] "
            f"%rs=[{t.ukr_percent / 2!r} {t.ukr_percent / 2!r}] xhl={xhl!r}"
        )
    bases = sorted({v / 1e3 for v in voltage.values()}, reverse=True)
    return [*script, f"set voltagebases={bases}", "calcvoltagebases"]


def _triangle(matrix: tuple[tuple[float, ...], ...]) -> str:
    return "[" + " | ".join(" ".join(repr(float(v)) for v in row[: k + 1]) for k, row in enumerate(matrix)) + "]"


def _loads(feeder: Feeder, scale: np.ndarray) -> list[str]:
    power, script = per_phase(feeder) / 1e3, []
    voltage = {bus.id: bus.voltage_v for bus in feeder.grid.buses}
    for k, item in enumerate(feeder.grid.loads):
        values = " ".join(repr(v) for v in scale[:, k].tolist())
        script.append(f"new loadshape.s{k} npts={len(scale)} minterval=1 mult=[{values}]")
        s, kv, phase = complex(power[k].sum()), float(voltage[item.bus] / 1e3), int(feeder.phase[k])
        at = f"phases=3 bus1={item.bus} kv={kv!r}"
        if phase >= 0:
            at = f"phases=1 bus1={item.bus}.{phase + 1} kv={kv / 3**0.5!r}"
        limits = "model=1 vminpu=0.5 vmaxpu=1.5"
        script.append(f"new load.{item.id} {at} kw={s.real!r} kvar={s.imag!r} {limits} daily=s{k}")
    return script
