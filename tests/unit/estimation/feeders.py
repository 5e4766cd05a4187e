"""An LV feeder of 101 buses with 80 metered customers, its true state, and its readings."""

from dataclasses import dataclass

import numpy as np
from grids import CABLE, SERVICE

from flexmeter.estimation import Estimator, load_meters
from flexmeter.estimation.estimate import terminal_voltage
from flexmeter.grid import Bus, Grid, Line, Load, Source
from flexmeter.powerflow import compile_network, powerflow

SIGMA_V = 2.3


def lv100(n=20, per_bus=4, seed=0):
    """A main cable of `n` buses, at each four single-phase customers on service lines of their own."""
    rng = np.random.default_rng(seed)
    buses, lines, loads = [Bus("head", 400.0)], [], []
    for k in range(n):
        buses.append(Bus(f"m{k}", 400.0))
        lines.append(Line(f"l{k}", "head" if k == 0 else f"m{k - 1}", f"m{k}", "cable", float(rng.uniform(0.01, 0.03))))
        for c in range(per_bus):
            phase, end = "abc"[(k * per_bus + c) % 3], f"m{k}c{c}"
            buses.append(Bus(end, 400.0, phases=phase))
            length = float(rng.uniform(0.01, 0.03))
            lines.append(Line("s" + end, f"m{k}", end, "service", length, phases=phase))
            p = float(rng.gamma(2.0, 500.0) + 100)
            loads.append(Load("d" + end, end, phases=phase, power_w=(p,), power_var=(0.3 * p,)))
    return Grid(
        id="lv100",
        buses=tuple(buses),
        line_types=(CABLE, SERVICE),
        lines=tuple(lines),
        sources=(Source("s", "head", 410.0),),
        loads=tuple(loads),
    )


@dataclass(frozen=True)
class Feeder:
    """Rows: |V|, P, Q of all customers; `true` and `sigma` (3 n_load, n_scenario)."""

    grid: Grid
    estimator: Estimator
    true: np.ndarray
    sigma: np.ndarray

    @property
    def meters(self):
        return self.estimator.meters

    @property
    def n_load(self):
        return len(self.true) // 3

    def read(self, rng, n):
        return self.true + self.sigma * rng.standard_normal((len(self.true), n))


def metered(grid, power_w=None, power_var=None):
    """Customers' true |V|, P, Q from a load flow, sigmas of the paper's meters."""
    network = compile_network(grid)
    p = network.power_w[:, None] if power_w is None else power_w
    q = network.power_var[:, None] if power_var is None else power_var
    flow = powerflow(network, p, q)
    voltage = np.abs(terminal_voltage(network, flow.voltage_v))
    sigma = (np.full_like(voltage, SIGMA_V), np.maximum(0.01 * np.abs(p), 1), np.maximum(0.02 * np.abs(q), 1))
    estimator = Estimator(network, load_meters(network))
    return Feeder(grid, estimator, np.concatenate([voltage, p, q]), np.concatenate(sigma))
