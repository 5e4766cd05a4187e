"""State estimation: batch, single, uncertainty, forest, against power-grid-model on the same cases; one JSON line each.

    python benchmarks/estimation.py [--steps 1440] [--cases mv13,lv101,lv1001] [--forest 10000] [--no-large]

"true problem" is one meter per single-phase customer. power-grid-model cannot say that: its customers have three
phases, two of them idle, and three voltages; "identical data" gives Flexmeter the same padded problem.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from power_grid_model import CalculationMethod, PowerGridModel, initialize_array
from power_grid_model.errors import PowerGridBatchError, PowerGridError

from benchmarks._feeders import (
    Feeder,
    european_lv,
    lv_feeder,
    machine,
    multipliers,
    mv_feeder,
    padded,
    peer_grid,
    peer_sensors,
)
from flexmeter.estimation import Estimate, Estimator, Forest, Meter, load_meters, relative_sigma
from flexmeter.estimation.estimate import terminal_voltage
from flexmeter.grid import Grid
from flexmeter.powerflow import Network, compile_network, powerflow

METHODS = (CalculationMethod.newton_raphson, CalculationMethod.iterative_linear)


def best(function: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


class Case:
    """Readings of a day: P 1 %, Q 2 % (own sigma per reading, at least 1 W), |V| 1 % of nominal."""

    def __init__(self, feeder: Feeder, grid: Grid, steps: int, pseudo: float = 0.0) -> None:
        self.network: Network = compile_network(grid)
        network, rng = self.network, np.random.default_rng(9)
        row = {load.id: k for k, load in enumerate(grid.loads)}
        scale = multipliers(feeder, steps).T[[row[name] for name, _ in network.injections]]
        p, q = network.power_w[:, None] * scale, network.power_var[:, None] * scale
        self.flow = powerflow(network, p, q)
        v = np.abs(terminal_voltage(network, self.flow.voltage_v))
        head = np.abs(self.flow.voltage_v[[network.node_row[network.head_bus, phase] for phase in "abc"]])
        truth = np.vstack([v, p, q, head])
        share = np.vstack(
            [np.repeat(0.01 * network.load_v[:, None], steps, 1), 0.01 * np.abs(p), 0.02 * np.abs(q), 0.01 * head]
        )
        z = truth + share * rng.standard_normal(truth.shape)
        n = len(p)
        s = share.copy()
        s[n : 2 * n], s[2 * n : 3 * n] = (
            relative_sigma(z[n : 2 * n], 0.01, 1),
            relative_sigma(z[2 * n : 3 * n], 0.02, 1),
        )
        for k in np.flatnonzero(rng.random(n) < pseudo):  # no meter: yesterday's power, sigma 50 %
            z[k] = np.nan
            for at in (n + k, 2 * n + k):
                s[at] = relative_sigma(truth[at], 0.5, 10.0)
                z[at] = truth[at] + s[at] * rng.standard_normal(z.shape[1])
        self.value, self.sigma = z, s
        meters = load_meters(network) + tuple(Meter("voltage", "bus", network.head_bus, phase) for phase in "abc")
        self.estimator = Estimator(network, meters)


def peer_update(case: Case, feeder: Feeder) -> dict[str, np.ndarray]:
    """The padded case's readings as update of power-grid-model's sensors."""
    n, steps = len(feeder.power), case.value.shape[1]
    value, sigma = case.value[: 9 * n].reshape(3, n, 3, steps), case.sigma[: 9 * n].reshape(3, n, 3, steps)
    power = initialize_array("update", "asym_power_sensor", (steps, n))
    power["id"] = 3 * 10**6 + np.arange(n)
    for field, source in (
        ("p_measured", value[1]),
        ("q_measured", value[2]),
        ("p_sigma", sigma[1]),
        ("q_sigma", sigma[2]),
    ):
        power[field] = source.transpose(2, 0, 1)
    voltage = initialize_array("update", "asym_voltage_sensor", (steps, n + 1))
    voltage["id"] = 4 * 10**6 + np.arange(n + 1)
    voltage["u_measured"][:, 0] = case.value[9 * n :].T
    voltage["u_measured"][:, 1:] = value[0].transpose(2, 0, 1)
    return {"asym_power_sensor": power, "asym_voltage_sensor": voltage}


def run_peer(feeder: Feeder, case: Case, method: CalculationMethod) -> tuple[float | None, float | None, object]:
    """Return seconds of the batch, seconds of one estimation, and either the result or why there is none."""
    model = PowerGridModel({**peer_grid(feeder), **peer_sensors(feeder)})
    update = peer_update(case, feeder)
    tolerance = 1e-5

    def run(part: slice) -> dict[str, np.ndarray]:
        return model.calculate_state_estimation(
            symmetric=False,
            update_data={name: np.ascontiguousarray(rows[part]) for name, rows in update.items()},
            calculation_method=method,
            error_tolerance=tolerance,
            max_iterations=30,
        )

    try:
        start = time.perf_counter()
        result = run(slice(None))
        batch = time.perf_counter() - start
        return batch, best(lambda: run(slice(0, 1)), 5), result
    except (PowerGridBatchError, PowerGridError) as error:
        failed = getattr(error, "failed_scenarios", None)
        return (
            float("nan"),
            float("nan"),
            f"{type(error).__name__}: {1 if failed is None else len(failed)} of the batch",
        )


def line(case: str, mine: float, **more: object) -> None:
    print(
        json.dumps({"bench": "estimation", "case": case, "flexmeter_s": mine, **more, "machine": machine()}), flush=True
    )


def off_optimum(case: Case, estimate: Estimate) -> float:
    """Return the largest difference of a fitted reading from that at a tolerance of 1e-13, in units of its sigma."""
    exact = case.estimator.estimate(case.value, case.sigma, covariance=False, tolerance_pu=1e-13, max_iterations=300)
    return float(np.max(np.abs(estimate.fitted - exact.fitted) / case.sigma))


def alone(feeder: Feeder, steps: int, pseudo: float = 0.0) -> None:
    """One feeder without a peer: batch, one estimation cold and from the last, uncertainty."""
    case, name = Case(feeder, feeder.grid, steps, pseudo), feeder.name + (", 30 % pseudo-measured" if pseudo else "")
    estimator = case.estimator
    one = (np.ascontiguousarray(case.value[:, 1:2]), np.ascontiguousarray(case.sigma[:, 1:2]))
    estimate = estimator.estimate(case.value, case.sigma, covariance=False)
    last = estimator.estimate(np.ascontiguousarray(case.value[:, :1]), np.ascontiguousarray(case.sigma[:, :1]))
    failures = int((~estimate.converged).sum())
    batch = best(lambda: estimator.estimate(case.value, case.sigma, covariance=False), 3)
    line(f"{name} batch {steps}", batch, failures=failures, off_optimum_sigma=off_optimum(case, estimate))
    line(f"{name} single", best(lambda: estimator.estimate(*one, covariance=False), 50))
    line(
        f"{name} single from the last estimate",
        best(lambda: estimator.estimate(*one, covariance=False, start=last), 50),
    )
    note = "all standard deviations and head 9x9, estimation included"
    line(f"{name} single with uncertainty", best(lambda: estimator.estimate(*one), 50), note=note)


def compare(feeder: Feeder, steps: int) -> None:
    true, full = Case(feeder, feeder.grid, steps), Case(feeder, padded(feeder), steps)
    for kind, case in (("true problem", true), ("identical data", full)):
        one = (np.ascontiguousarray(case.value[:, :1]), np.ascontiguousarray(case.sigma[:, :1]))
        estimate = case.estimator.estimate(case.value, case.sigma, covariance=False)
        batch = best(lambda case=case: case.estimator.estimate(case.value, case.sigma, covariance=False), 3)
        single = best(lambda case=case, one=one: case.estimator.estimate(*one, covariance=False), 50)
        for method in METHODS:
            peer_batch, peer_single, result = run_peer(feeder, full, method)
            failures = 0 if isinstance(result, dict) else result
            gap = None
            if kind == "identical data" and isinstance(result, dict):
                number = {bus.id: k for k, bus in enumerate(feeder.grid.buses)}
                rows = np.array([(number[bus], "abc".index(phase)) for bus, phase in case.network.nodes]).T
                u = result["node"]["u"].transpose(1, 2, 0)[tuple(rows)]
                gap = float(np.max(np.abs(np.abs(estimate.voltage_v) - u)) / (feeder.voltage_v / np.sqrt(3)))
            for what, mine, theirs in ((f"batch {steps}", batch, peer_batch), ("single", single, peer_single)):
                line(
                    f"{feeder.name} {what}, {kind}",
                    mine,
                    peer=f"power-grid-model {method.name}",
                    peer_s=theirs,
                    ratio=theirs and theirs / mine,
                    optimum_gap=gap,
                    failures=int((~estimate.converged).sum()),
                    peer_failures=failures,
                    note="optimum_gap: largest |V| difference in pu; peer tolerance 1e-5",
                )
    alone(feeder, steps)
    alone(feeder, steps, pseudo=0.3)


def forest(grids: int) -> None:
    """Estimate many grids of 80 customers and one minute each, with their summaries for the level above."""
    kinds = [Case(feeder, feeder.grid, 1) for feeder in (lv_feeder(80, seed) for seed in range(20))]
    members = [kinds[k % len(kinds)] for k in range(grids)]
    value, sigma = (np.concatenate([getattr(case, name) for case in members]) for name in ("value", "sigma"))
    trees = Forest([case.estimator for case in members])
    for threads in (1, 2):
        start = time.perf_counter()
        estimate = trees.estimate(value, sigma, threads=threads)
        estimate.head, estimate.head_covariance  # noqa: B018
        line(
            f"{grids} grids, one minute, with hand-over covariance, threads: {threads}",
            time.perf_counter() - start,
            readings=len(value),
            failures=int((~estimate.converged).sum()),
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            note="one call; 20 different grids, each many times",
        )
        del estimate


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1440)
    parser.add_argument("--cases", default="mv13,lv101,lv1001")
    parser.add_argument("--forest", type=int, default=10_000)
    parser.add_argument("--large", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    makers = {"mv13": mv_feeder, "lv101": lambda: lv_feeder(80), "lv1001": lambda: lv_feeder(800)}
    for name in options.cases.split(","):
        compare(makers[name](), options.steps)
    if options.large:
        alone(european_lv(), options.steps)
        alone(european_lv(), options.steps, pseudo=0.3)
        alone(lv_feeder(8000), 16)
    if options.forest:
        forest(options.forest)
