"""Load flow: 1,440 steps with full output, against power-grid-model's fastest method; one JSON line per case.

python benchmarks/powerflow.py [--steps 1440]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from power_grid_model import CalculationMethod, PowerGridModel, initialize_array

from benchmarks._feeders import Feeder, lv_feeder, machine, multipliers, mv_feeder, peer_grid, per_phase
from flexmeter.powerflow import compile_network, powerflow, prepare


def best(function: Callable[[], object], repeat: int = 5) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def run(feeder: Feeder, steps: int) -> dict[str, object]:
    network = compile_network(feeder.grid)
    model = prepare(network)
    scale = multipliers(feeder, steps)
    row = {load.id: k for k, load in enumerate(feeder.grid.loads)}
    of_load = [row[name] for name, _ in network.injections]
    active = network.power_w[:, None] * scale.T[of_load]
    reactive = network.power_var[:, None] * scale.T[of_load]
    flow = powerflow(model, active, reactive, tolerance_va=1e-2)

    def everything() -> None:
        result = powerflow(model, active, reactive, tolerance_va=1e-2)
        result.losses_w, result.source_va  # noqa: B018

    peer = PowerGridModel(peer_grid(feeder))
    update = initialize_array("update", "asym_load", (steps, len(feeder.power)))
    update["id"] = 2 * 10**6 + np.arange(len(feeder.power))
    s = per_phase(feeder)
    update["p_specified"], update["q_specified"] = s.real * scale[:, :, None], s.imag * scale[:, :, None]
    methods = {}
    for method in (CalculationMethod.iterative_current, CalculationMethod.newton_raphson):

        def peer_run(method: CalculationMethod = method) -> dict[str, np.ndarray]:
            return peer.calculate_power_flow(
                symmetric=False,
                update_data={"asym_load": update},
                calculation_method=method,
                error_tolerance=1e-8,
                max_iterations=50,
            )

        methods[method.name] = best(peer_run, 3)
        result = peer_run()
    number = {bus.id: k for k, bus in enumerate(feeder.grid.buses)}
    rows = [(number[bus], "abc".index(phase)) for bus, phase in network.nodes]
    u = result["node"]["u"].transpose(1, 2, 0)[tuple(np.array(rows).T)]
    mine = best(everything)
    return {
        "bench": "powerflow",
        "case": f"{feeder.name} batch {steps}",
        "flexmeter_s": mine,
        "peer": "power-grid-model iterative_current",
        "peer_s": methods["iterative_current"],
        "ratio": methods["iterative_current"] / mine,
        "newton_raphson_s": methods["newton_raphson"],
        "largest_difference_pu": float(np.max(np.abs(np.abs(flow.voltage_v) - u)) / (feeder.voltage_v / np.sqrt(3))),
        "failures": int((~flow.converged).sum()),
        "machine": machine(),
        "note": "voltages, currents, losses of every branch, source power; one thread",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1440)
    steps = parser.parse_args().steps
    for case in (mv_feeder(), lv_feeder(80), lv_feeder(800)):
        print(json.dumps(run(case, steps)), flush=True)
