"""State estimation: batch, single, uncertainty, forest, against power-grid-model on the same cases; one JSON line each.

    python benchmarks/estimation.py [--steps 1440] [--cases mv13,lv101,lv1001,eulv] [--forest 10000] [--no-large]

"true problem" is one meter per single-phase customer. power-grid-model cannot say that: its customers have three
phases, two of them idle, and three voltages; "identical data" gives Flexmeter the same padded problem.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from power_grid_model import CalculationMethod, PowerGridModel, initialize_array
from power_grid_model.errors import PowerGridError

from benchmarks._feeders import (
    Feeder,
    european_lv,
    lv_feeder,
    multipliers,
    mv_feeder,
    padded,
    peer_grid,
    peer_sensors,
    source_node,
    street,
)
from benchmarks._stopwatch import best
from flexmeter.estimation import Estimate, Estimator, Forest, Meter, load_meters, relative_sigma, warm
from flexmeter.estimation.estimate import terminal_voltage
from flexmeter.estimation.estimator import PHASE_TURN
from flexmeter.grid import Grid
from flexmeter.machine import machine
from flexmeter.powerflow import Network, compile_network, powerflow

PEER_SECONDS, PEER_SCENARIOS = 5.0, 16
"""For how long a peer's batch is run, and with at least so many scenarios."""
METHODS = (CalculationMethod.newton_raphson, CalculationMethod.iterative_linear)


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
            [
                np.repeat(0.01 * network.load_v[:, None], steps, 1),
                0.01 * np.abs(p),
                0.02 * np.abs(q),
                np.full_like(head, 0.01 * network.nominal_v[0]),
            ]
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


def failure(error: PowerGridError) -> str:
    failed = getattr(error, "failed_scenarios", None)
    return f"{type(error).__name__}: {1 if failed is None else len(failed)}"


class Peer:
    """power-grid-model with one of its methods and the readings of a padded case."""

    def __init__(self, feeder: Feeder, case: Case, method: CalculationMethod) -> None:
        self.feeder, self.case, self.method = feeder, case, method
        self.model = PowerGridModel({**peer_grid(feeder), **peer_sensors(feeder)})
        self.update = peer_update(case, feeder)

    def run(self, part: slice, tolerance: float = 1e-5) -> dict[str, np.ndarray]:
        return self.model.calculate_state_estimation(
            symmetric=False,
            update_data={name: np.ascontiguousarray(rows[part]) for name, rows in self.update.items()},
            calculation_method=self.method,
            error_tolerance=tolerance,
            max_iterations=30,
        )

    def seconds(self) -> tuple[float | None, float | None, int, int | str]:
        """Return those of a batch and of one estimation at a tolerance of 1e-5, its scenarios, and what failed of them.

        Of a slow case only the first scenarios are run, for some `PEER_SECONDS`.
        """
        start = time.perf_counter()
        with suppress(PowerGridError):
            self.run(slice(0, PEER_SCENARIOS))
        each = (time.perf_counter() - start) / PEER_SCENARIOS
        scenarios = min(self.case.value.shape[1], max(PEER_SCENARIOS, int(PEER_SECONDS / each)))
        try:
            start = time.perf_counter()
            self.run(slice(0, scenarios))
            batch = time.perf_counter() - start
            return batch, best(lambda: self.run(slice(0, 1)), 5), scenarios, 0
        except PowerGridError as error:
            return None, None, scenarios, failure(error)

    def gaps(self, steps: int = 16) -> dict[str, object]:
        """Compare optima at the tightest tolerance the peer reaches in the first steps: |V| of all nodes [pu], and J.

        J is evaluated alike for both, over the readings, from voltages and powers. The peer leaves the three source
        angles free and holds them to 0, -120, 120 degrees with the sigma of the source's voltage in pu, 0.01 rad: so
        does Flexmeter where a phasor is read, here one angle of 0, which only fixes the reference.
        """
        for tolerance in 10.0 ** -np.arange(11, 4, -1):
            try:
                result = self.run(slice(0, steps), tolerance)
                break
            except PowerGridError:
                continue
        else:
            return {"optimum_gap": None, "j_gap": None}
        case, network = self.case, self.case.network
        z, s = case.value[:, :steps], case.sigma[:, :steps]
        angle = Meter("voltage_angle", "bus", network.head_bus, "a")
        free = Estimator(network, (*case.estimator.meters, angle))
        estimate = free.estimate(
            np.vstack([z, np.zeros(z.shape[1])]), np.vstack([s, np.full(z.shape[1], 0.01)]), covariance=False
        )
        number = {bus.id: k for k, bus in enumerate(self.feeder.grid.buses)}
        u = result["node"]["u"].transpose(1, 2, 0)
        theirs = u[tuple(np.array([(number[bus], "abc".index(phase)) for bus, phase in network.nodes]).T)]
        powers = [result["asym_load"][name].transpose(1, 2, 0).reshape(-1, z.shape[1]) for name in "pq"]
        fitted = np.vstack([u[self.feeder.bus].reshape(-1, z.shape[1]), *powers, u[source_node(self.feeder)]])
        j = [np.sum(((z - h) / s) ** 2, axis=0) for h in (estimate.fitted[:-1], fitted)]
        nominal = network.nominal_v[network.node_bus][:, None]
        return {
            "optimum_gap": float(np.max(np.abs(np.abs(estimate.voltage_v) - theirs) / nominal)),
            "j_gap": float(np.max(np.abs(j[1] - j[0]) / j[0])),
            "gap_tolerance": float(tolerance),
        }


def line(case: str, mine: float | None, **more: object) -> None:
    print(
        json.dumps({"bench": "estimation", "case": case, "flexmeter_s": mine, **more, "machine": machine()}), flush=True
    )


def exactness(case: Case, estimate: Estimate) -> dict[str, object]:
    """Return how far the worst scenario's fitted readings are from the optimum, and J's gradient there, both in sigmas.

    The optimum is the estimate at a tolerance of 1e-13; the gradient is independent of it, see `gradient`.
    """
    exact = case.estimator.estimate(case.value, case.sigma, covariance=False, tolerance_pu=1e-13, max_iterations=50)
    off = np.max(np.abs(estimate.fitted - exact.fitted) / case.sigma, axis=0)
    return {"off_optimum_sigma": float(off.max()), "gradient_sigma": gradient(case, int(off.argmax()))}


def gradient(case: Case, scenario: int) -> float | None:
    """Return the largest derivative of J / 2 by a state times the state's standard deviation, from load flows alone.

    States are the head magnitudes and all P and Q; central differences of a tenth of a standard deviation.
    """
    network = replace(case.network, source_impedance=np.zeros_like(case.network.source_impedance))
    n = len(network.injections)
    if network.symmetry != "free" or 3 + 2 * n > 2000:
        return None
    z, s = case.value[:, scenario], case.sigma[:, scenario]
    estimate = case.estimator.estimate(z, s)
    head = np.sqrt(np.diag(estimate.head_covariance[:3, :3, 0]))
    deviation = np.concatenate([head, estimate.sigma_active_power_w[:, 0], estimate.sigma_reactive_power_var[:, 0]])
    power = estimate.power_va[:, 0]
    x = np.concatenate([np.abs(estimate.spine_v[:3, 0]), power.real, power.imag])
    step = 0.1 * np.diag(deviation)
    points = x[:, None] + np.hstack([step, -step, np.zeros((len(x), 1))])
    m, p, q = points[:3], points[3 : 3 + n], points[3 + n :]
    flow = powerflow(network, p, q, source_voltage_v=m * PHASE_TURN[:, None], tolerance_va=0.0, max_iterations=30)
    h = np.vstack([np.abs(terminal_voltage(network, flow.voltage_v)), p, q, m])
    slope = (h[:, : len(x)] - h[:, len(x) : 2 * len(x)]) / 0.2
    force = np.where(np.isnan(z), 0.0, (z - h[:, -1]) / s**2)
    return float(np.max(np.abs(slope.T @ force)))


def alone(feeder: Feeder, steps: int, pseudo: float = 0.0) -> None:
    """One feeder without a peer: batch, one estimation cold and from the last, uncertainty."""
    case, name = Case(feeder, feeder.grid, steps, pseudo), feeder.name + (", 30 % pseudo-measured" if pseudo else "")
    estimator = case.estimator
    one = (np.ascontiguousarray(case.value[:, 1:2]), np.ascontiguousarray(case.sigma[:, 1:2]))
    estimate = estimator.estimate(case.value, case.sigma, covariance=False)
    last = estimator.estimate(np.ascontiguousarray(case.value[:, :1]), np.ascontiguousarray(case.sigma[:, :1]))
    failures = int((~estimate.converged).sum())
    batch = best(lambda: estimator.estimate(case.value, case.sigma, covariance=False), 3)
    line(f"{name} batch {steps}", batch, failures=failures, **exactness(case, estimate))
    line(f"{name} single", best(lambda: estimator.estimate(*one, covariance=False), 50))
    line(
        f"{name} single from the last estimate",
        best(lambda: estimator.estimate(*one, covariance=False, start=last), 50),
    )
    note = "all standard deviations and head 9x9, estimation included"
    line(f"{name} single with uncertainty", best(lambda: estimator.estimate(*one), 50), note=note)
    optimum = estimator.estimate(*one, covariance=False)
    line(
        f"{name} uncertainty alone",
        best(lambda: estimator.estimate(*one, start=optimum, max_iterations=1), 50),
        note="from the optimum: one iteration, then one factorisation, all standard deviations and head 9x9",
    )


def compare(feeder: Feeder, steps: int) -> None:
    true, full = Case(feeder, feeder.grid, steps), Case(feeder, padded(feeder), steps)
    peers = [Peer(feeder, full, method) for method in METHODS]
    theirs = [(peer, *peer.seconds(), peer.gaps()) for peer in peers]
    for kind, case in (("true problem", true), ("identical data", full)):
        one = (np.ascontiguousarray(case.value[:, :1]), np.ascontiguousarray(case.sigma[:, :1]))
        failures = int((~case.estimator.estimate(case.value, case.sigma, covariance=False).converged).sum())
        batch = best(lambda case=case: case.estimator.estimate(case.value, case.sigma, covariance=False), 3)
        single = best(lambda case=case, one=one: case.estimator.estimate(*one, covariance=False), 50)
        for peer, peer_batch, peer_single, scenarios, failed, gaps in theirs:
            runs = (f"batch {steps}", batch, peer_batch, steps, scenarios), ("single", single, peer_single, 1, 1)
            for what, mine, seconds, count, peer_count in runs:
                line(
                    f"{feeder.name} {what}, {kind}",
                    mine,
                    peer=f"power-grid-model {peer.method.name}",
                    peer_s=seconds,
                    peer_scenarios=peer_count,
                    ratio=seconds and (seconds / peer_count) / (mine / count),
                    failures=failures,
                    peer_failures=failed and f"{failed} of {scenarios} scenarios",
                    **(gaps if full is case else {}),
                    note="peer timed at tolerance 1e-5, ratio per scenario; gaps in runs of their own at gap_tolerance",
                )
    import pandapower.estimation  # here: the forest's memory is to be its own

    three_phase = [name for name in dir(pandapower.estimation) if "3ph" in name]
    if not three_phase:
        text = f"pandapower {pandapower.__version__} estimates the positive sequence only"
        line(f"{feeder.name}, three phases", None, peer="pandapower", peer_s=None, peer_failures=text)
    alone(feeder, steps)
    alone(feeder, steps, pseudo=0.3)


class Streets(Sequence[Estimator]):
    """Estimators of grids that all differ, in network and in meters, made whenever one is asked for.

    P and Q of every customer are read, the voltage of four in five, the head's in half of the grids. Readings of all
    grids made fill `value` and `sigma` up to `end`; `seconds` went into networks, meters and estimators.
    """

    def __init__(self, grids: int) -> None:
        self.value, self.sigma = np.empty((2, 600 * grids))  # what is not touched takes no memory
        self.grids, self.made, self.end, self.seconds, self.customers = grids, 0, 0, 0.0, 0

    def __len__(self) -> int:
        return self.grids

    def __getitem__(self, number: int) -> Estimator:
        if number >= self.grids:
            raise IndexError(number)
        grid, rng = street(number), np.random.default_rng([7, number])
        start = time.perf_counter()
        network = compile_network(grid)
        mute = {load.id for load in grid.loads if rng.random() < 0.2}
        meters = [meter for meter in load_meters(network) if meter.quantity != "voltage" or meter.id not in mute]
        meters += [Meter("voltage", "bus", network.head_bus, phase) for phase in "abc" if number % 2]
        estimator = Estimator(network, meters)
        self.seconds += time.perf_counter() - start
        if number == self.made:
            rows = slice(self.end, self.end + len(meters))
            self.value[rows], self.sigma[rows] = read(estimator, rng)
            self.made, self.end, self.customers = number + 1, rows.stop, self.customers + len(grid.loads)
        return estimator


def read(estimator: Estimator, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy readings and sigmas of the load flow of the loads' own powers."""
    network = estimator.network
    flow = powerflow(network)
    volt = dict(zip(network.injections, np.abs(terminal_voltage(network, flow.voltage_v)[:, 0]), strict=True))
    head = dict(zip("abc", np.abs(flow.voltage_v[:3, 0]), strict=True))
    row, truth = network.injection_row, []
    for meter in estimator.meters:
        at = row.get((meter.id, meter.phase), -1)
        if meter.quantity == "voltage":
            truth.append(head[meter.phase] if at < 0 else volt[meter.id, meter.phase])
        else:
            truth.append((network.power_w if meter.quantity == "active_power" else network.power_var)[at])
    share = np.array([0.02 if meter.quantity == "reactive_power" else 0.01 for meter in estimator.meters])
    sigma = np.maximum(share * np.abs(truth), 1.0)
    return truth + sigma * rng.standard_normal(len(truth)), sigma


def peak_mb() -> float:
    """Return the most memory this process ever had [MiB]; `getrusage` would count the process that started it."""
    return float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def minute(trees: Forest, value: np.ndarray, sigma: np.ndarray, what: str, **more: object) -> None:
    """Time one minute of a forest with its summaries for the level above, on one thread and on two."""
    warm()
    for threads in (1, 2):
        start = time.perf_counter()
        estimate = trees.estimate(value, sigma, threads=threads)
        estimate.head, estimate.head_covariance  # noqa: B018
        line(
            f"{len(trees)} {what}, one minute, with hand-over covariance, threads: {threads}",
            time.perf_counter() - start,
            readings=len(value),
            failures=int((~estimate.converged).sum()),
            peak_rss_mb=peak_mb(),
            **more,
        )
        del estimate


def forest(grids: int) -> None:
    """Estimate many grids of 80 customers and one minute each: 20 different ones, each many times."""
    kinds = [Case(feeder, feeder.grid, 1) for feeder in (lv_feeder(80, seed) for seed in range(20))]
    members = [kinds[k % len(kinds)] for k in range(grids)]
    value, sigma = (np.concatenate([getattr(case, name) for case in members]) for name in ("value", "sigma"))
    trees = Forest([case.estimator for case in members])
    minute(trees, value, sigma, "grids of 20 kinds", note="one call; 80 customers per grid; 20 grids, each many times")


def different_forest(grids: int) -> None:
    """Estimate many grids of some 100 customers and one minute each, all of them different."""
    streets = Streets(grids)
    start = time.perf_counter()
    trees = Forest(streets)
    whole, models = time.perf_counter() - start, streets.seconds
    line(f"{grids} different grids, networks and estimators", models, note=f"{whole:.0f} s with drawing and load flows")
    value, sigma = streets.value[: streets.end], streets.sigma[: streets.end]
    minute(trees, value, sigma, "different grids", customers=streets.customers, note="one call; no two grids alike")


def alone_in_a_process(task: str, grids: int) -> None:
    """Run a forest in a process of its own: its memory is its own."""
    code = f"from benchmarks.estimation import {task}; {task}({grids})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1440)
    parser.add_argument("--cases", default="mv13,lv101,lv1001,eulv", help="compared with the peers; '' for none")
    parser.add_argument("--forest", type=int, default=10_000, help="grids, 0 for none")
    parser.add_argument("--large", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    makers = {"mv13": mv_feeder, "lv101": lambda: lv_feeder(80), "lv1001": lambda: lv_feeder(800), "eulv": european_lv}
    for name in filter(None, options.cases.split(",")):
        compare(makers[name](), options.steps)
    if options.large:
        alone(lv_feeder(8000), 16)
    if options.forest:
        alone_in_a_process("forest", options.forest)
        alone_in_a_process("different_forest", options.forest)
