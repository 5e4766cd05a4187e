"""Draw the figures of the methods pages: `python -m docs.methods.figures` from the repository root."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from benchmarks._feeders import Feeder, lv_feeder, padded, peer_grid
from benchmarks._stopwatch import best
from benchmarks.estimation import Case, Peer
from power_grid_model import CalculationMethod, PowerGridModel
from scipy import stats

from flexmeter.powerflow import powerflow, prepare

HERE = Path(__file__).parent


def profile(case: Case) -> None:
    """Estimated voltages of the customers of one evening minute against the truth and the raw readings."""
    network, s = case.network, 1200
    estimate = case.estimator.estimate(case.value[:, s], case.sigma[:, s])
    nodes = network.injection_nodes[0]
    order = np.argsort(np.abs(case.flow.voltage_v[nodes, s]))
    truth, mean = np.abs(case.flow.voltage_v[nodes, s])[order], np.abs(estimate.voltage_v[nodes, 0])[order]
    sigma = estimate.sigma_voltage_v[nodes, 0][order]
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    x = np.arange(len(order))
    axis.plot(x, case.value[: len(order), s][order], ".", color="0.7", label="reading, 1 %")
    axis.fill_between(x, mean - 2 * sigma, mean + 2 * sigma, alpha=0.3, label="estimate, 2 sigma")
    axis.plot(x, mean, lw=1.2, label="estimate")
    axis.plot(x, truth, "k--", lw=1, label="true")
    axis.set(xlabel="customer, by voltage", ylabel="voltage [V]", title="100-bus LV feeder, minute 1200")
    axis.legend(fontsize=8)
    figure.savefig(HERE / "estimation_profile.png", dpi=110)


def calibration(case: Case) -> None:
    """Error over sigma of all voltages and minutes, and J, against their distributions."""
    estimate = case.estimator.estimate(case.value, case.sigma)
    score = (np.abs(estimate.voltage_v) - np.abs(case.flow.voltage_v)) / estimate.sigma_voltage_v
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    x = np.linspace(-4, 4, 200)
    left.hist(score.ravel(), 80, range=(-4, 4), density=True, alpha=0.5)
    left.plot(x, stats.norm.pdf(x), "k")
    left.set(xlabel="error / sigma", title=f"all voltages: mean {score.mean():.3f}, sd {score.std():.3f}", yticks=[])
    degrees = int(estimate.degrees_of_freedom[0])
    x = np.linspace(*stats.chi2.ppf([1e-4, 1 - 1e-4], degrees), 200)
    right.hist(estimate.objective, 40, density=True, alpha=0.5)
    right.plot(x, stats.chi2.pdf(x, degrees), "k")
    right.set(xlabel="J", title=f"J of 1,440 minutes and chi-square of {degrees}", yticks=[])
    figure.savefig(HERE / "uncertainty_calibration.png", dpi=110)


def sizes() -> None:
    """Time of one estimate, one with all sigmas and one load flow over the number of buses, with the peer's."""
    customers = (80, 240, 800, 2400, 8000)
    rows = [of_size(lv_feeder(n, seed=3)) for n in customers]
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    looks = {
        "estimate": ("C0", "o-"),
        "estimate, all sigmas": ("C1", "o-"),
        "load flow": ("C2", "o-"),
        "estimate, power-grid-model Newton": ("C0", "x--"),
        "load flow, power-grid-model iterative current": ("C2", "x--"),
    }
    for name, (colour, style) in looks.items():
        axis.loglog([row["buses"] for row in rows], [1e3 * row[name] for row in rows], style, color=colour, label=name)
    axis.set(xlabel="buses", ylabel="time [ms]", title="one scenario of an LV grid, one thread", ylim=(0.02, None))
    axis.grid(which="both", alpha=0.2)
    axis.legend(fontsize=8)
    figure.savefig(HERE / "time_over_size.png", dpi=110)


def of_size(feeder: Feeder) -> dict[str, float]:
    """Return the buses of a feeder and the times [s]; nan where the peer fails."""
    true, full = Case(feeder, feeder.grid, 2), Case(feeder, padded(feeder), 2)
    peer, grid = Peer(feeder, full, CalculationMethod.newton_raphson), PowerGridModel(peer_grid(feeder))
    one = np.ascontiguousarray(true.value[:, :1]), np.ascontiguousarray(true.sigma[:, :1])
    model = prepare(true.network)

    def their_flow() -> object:
        return grid.calculate_power_flow(
            symmetric=False, calculation_method=CalculationMethod.iterative_current, error_tolerance=1e-8
        )

    _, theirs, *_ = peer.seconds()
    return {
        "buses": len(feeder.grid.buses),
        "estimate": best(lambda: true.estimator.estimate(*one, covariance=False), 20),
        "estimate, all sigmas": best(lambda: true.estimator.estimate(*one), 20),
        "load flow": best(lambda: powerflow(model, tolerance_va=1e-3), 20),
        "estimate, power-grid-model Newton": theirs or np.nan,
        "load flow, power-grid-model iterative current": best(their_flow, 5),
    }


if __name__ == "__main__":
    feeder = lv_feeder(80)
    study = Case(feeder, feeder.grid, 1440)
    profile(study)
    calibration(study)
    sizes()
