"""Load flow: 1,440 steps with full output, against power-grid-model's fastest method and OpenDSS; one JSON line each.

python benchmarks/powerflow.py [--steps 1440]

Everything runs on one thread. Flexmeter and power-grid-model yield voltages, branch currents, losses and source power
of all steps. OpenDSS runs its daily mode, one load shape per customer, which never leaves its compiled code; nothing
of its steps is stored (no monitors), so its time is the least it can take.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from power_grid_model import CalculationMethod, PowerGridModel, initialize_array

from benchmarks._feeders import (
    Feeder,
    european_lv,
    lv_feeder,
    multipliers,
    mv_feeder,
    peer_grid,
    per_phase,
)
from benchmarks._opendss import compile_opendss, solve_days, start_day, voltages
from benchmarks._stopwatch import best
from flexmeter.machine import machine
from flexmeter.powerflow import Network, compile_network, powerflow, prepare

TOLERANCE = 1e-8
"""Of power-grid-model [pu]; OpenDSS has the same, Flexmeter about as much: see `tolerance_va`."""


def tolerance_va(feeder: Feeder) -> float:
    """Return a mismatch of one load [VA] that moves voltages by about 1e-8 pu, as `TOLERANCE` does."""
    return 0.1 if feeder.voltage_v > 1e3 else 1e-3


def run(feeder: Feeder, steps: int) -> None:
    network = compile_network(feeder.grid)
    model = prepare(network)
    scale = multipliers(feeder, steps)
    row = {load.id: k for k, load in enumerate(feeder.grid.loads)}
    of_load = [row[name] for name, _ in network.injections]
    active = network.power_w[:, None] * scale.T[of_load]
    reactive = network.power_var[:, None] * scale.T[of_load]

    def everything() -> object:
        flow = powerflow(model, active, reactive, tolerance_va=tolerance_va(feeder))
        flow.branch_current_a, flow.branch_losses_w, flow.losses_w, flow.source_va  # noqa: B018
        return flow

    flow = powerflow(model, active, reactive, tolerance_va=tolerance_va(feeder))
    everything()
    mine = best(everything, 9)
    solve_only = best(lambda: powerflow(model, active, reactive, tolerance_va=tolerance_va(feeder)), 9)
    peers = (power_grid_model(feeder, network, scale, flow.voltage_v), opendss(feeder, network, scale, flow.voltage_v))
    for name, seconds, difference_v, note in peers:
        pu = difference_v / (network.nominal_v[network.node_bus])
        line = {
            "bench": "powerflow",
            "case": f"{feeder.name} batch {steps}",
            "flexmeter_s": mine,
            "flexmeter_voltages_only_s": solve_only,
            "iterations": int(flow.iterations.max()),
            "peer": name,
            "peer_s": seconds,
            "ratio": seconds / mine,
            "largest_difference_pu": float(pu.max()),
            "failures": int((~flow.converged).sum()),
            "machine": machine(),
            "note": note,
        }
        print(json.dumps(line), flush=True)


Peer = tuple[str, float, np.ndarray, str]


def power_grid_model(feeder: Feeder, network: Network, scale: np.ndarray, voltage_v: np.ndarray) -> Peer:
    """Return name, time, largest difference of each node [V] and how it was run."""
    peer = PowerGridModel(peer_grid(feeder))
    update = initialize_array("update", "asym_load", (len(scale), len(feeder.power)))
    update["id"] = 2 * 10**6 + np.arange(len(feeder.power))
    s = per_phase(feeder)
    update["p_specified"], update["q_specified"] = s.real * scale[:, :, None], s.imag * scale[:, :, None]

    def calculate() -> dict[str, np.ndarray]:
        return peer.calculate_power_flow(
            symmetric=False,
            update_data={"asym_load": update},
            calculation_method=CalculationMethod.iterative_current,
            error_tolerance=TOLERANCE,
            max_iterations=50,
        )

    seconds = best(calculate, 3)
    node = calculate()["node"]
    number = {bus.id: k for k, bus in enumerate(feeder.grid.buses)}
    place = np.array([(number[bus], "abc".index(phase)) for bus, phase in network.nodes])
    difference = np.zeros(len(place))
    for k, (bus, phase) in enumerate(place):
        theirs = node["u"][:, bus, phase] * np.exp(1j * node["u_angle"][:, bus, phase])
        difference[k] = np.abs(voltage_v[k] - theirs).max()
    note = "power-grid-model iterative_current, all outputs of all components, one thread, tolerance 1e-8"
    return "power-grid-model iterative_current", seconds, difference, note


def opendss(feeder: Feeder, network: Network, scale: np.ndarray, voltage_v: np.ndarray) -> Peer:
    """Return name, time, largest difference of each node at five times [V] and how it was run."""
    compile_opendss(feeder, scale)
    times = []
    for _ in range(3):
        start_day()
        start = time.perf_counter()
        solve_days(len(scale))
        times.append(time.perf_counter() - start)
    start_day()
    difference = np.zeros(len(network.nodes))
    for step in range(len(scale) // 5, len(scale) + 1, len(scale) // 5):
        solve_days(len(scale) // 5)
        difference = np.maximum(difference, np.abs(voltage_v[:, step - 1] - voltages(network.nodes)))
    note = "daily mode with a load shape per customer, no monitors: nothing but the last step is kept; tolerance 1e-8"
    return "OpenDSS", min(times), difference, note


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1440)
    steps = parser.parse_args().steps
    for case in (mv_feeder(), lv_feeder(80), lv_feeder(800), european_lv()):
        run(case, steps)
