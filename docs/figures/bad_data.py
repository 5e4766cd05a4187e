"""Draw docs/figures/bad-data.png: what errors of meters can be seen on the IEEE European LV feeder.

    python docs/figures/bad_data.py

Prints the measured rates that docs/methods/bad-data.md quotes.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtr

from flexmeter.estimation import Estimator, Meter, load_meters, relative_sigma
from flexmeter.estimation.bad_data import chi_square_test, remove_bad_data
from flexmeter.estimation.bias import track_bias, unknown_bias
from flexmeter.estimation.estimate import terminal_voltage
from flexmeter.estimation.observability import observability
from flexmeter.estimation.residuals import identification_threshold, residuals
from flexmeter.powerflow import Network, compile_network, powerflow
from flexmeter.scenario.european_lv import european_lv_grid, european_lv_powers

SIGMA_V, FALSE_ALARM, DRAWS, FIXED = 2.3, 0.01, 500, 0.9
DARK, RED, BLUE = "#222222", "#d1495b", "#30638e"


def truth(network: Network, minutes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return true (|V|, P, Q) of all customers (3 n_load, minutes) and the meters' sigmas."""
    powers = european_lv_powers()
    active, reactive = powers.active_power_w[:, minutes], powers.reactive_power_var[:, minutes]
    voltage = np.abs(terminal_voltage(network, powerflow(network, active, reactive).voltage_v))
    sigma = (np.full_like(voltage, SIGMA_V), relative_sigma(active, 0.01, 1.0), relative_sigma(reactive, 0.02, 1.0))
    return np.concatenate([voltage, active, reactive]), np.concatenate(sigma)


def found_share(axis: Axes, estimator: Estimator, true: np.ndarray, sigma: np.ndarray) -> None:
    """Share of single voltage errors found, by size."""
    n = len(true) // 3
    rng = np.random.default_rng(1)
    good = true + sigma * rng.standard_normal((len(true), 4 * DRAWS))
    estimate = estimator.estimate(good, sigma)
    alarms = remove_bad_data(estimator, good, sigma, false_alarm=FALSE_ALARM)
    rate = len({item.scenario for item in alarms.removals}) / (4 * DRAWS)
    print(f"good readings: chi-square alarms {chi_square_test(estimate).suspicious.mean():.4f}, removals {rate:.4f}")
    sizes, share = np.arange(2, 13), []
    for size in sizes:
        z = true + sigma * rng.standard_normal((len(true), DRAWS))
        row = rng.integers(0, n, DRAWS)
        z[row, np.arange(DRAWS)] += rng.choice([-1, 1], DRAWS) * size * SIGMA_V
        value = remove_bad_data(estimator, z, sigma, false_alarm=FALSE_ALARM).value
        share.append(np.isnan(value[row, np.arange(DRAWS)]).mean())
        others = (np.isnan(value).sum(0) > np.isnan(value[row, np.arange(DRAWS)])).mean()
        print(f"voltage error {size} sigma: found {share[-1]:.4f}, another reading taken out too {others:.4f}")
    checks = residuals(estimate, estimator.meters, good, sigma)
    limit = identification_threshold(checks.testable.sum(0), FALSE_ALARM).mean()
    visible = np.sqrt(checks.visible[:n].mean())
    fine = np.linspace(1.5, 12.5, 200)
    expected = ndtr(fine * visible - limit)
    axis.plot(fine, expected, color=DARK, linewidth=1, label="expected: $\\Phi(b\\sqrt{S} - t)$")
    axis.plot(sizes, share, "o", color=RED, label=f"measured, {DRAWS} draws each")
    axis.set_xlabel("error b of one voltage reading [sigma]")
    axis.set_ylabel("share found and removed")
    axis.set_title("One wrong voltmeter")
    axis.legend(frameon=False, loc="lower right", fontsize=8)


def smallest_powers(axis: Axes, network: Network, true: np.ndarray) -> None:
    """Smallest error of an active power reading that can be found, with and without meters at the head."""
    n = len(true) // 3
    head = [Meter(q, "head", network.head_bus, p) for q in ("active_power", "reactive_power") for p in "abc"]
    meters = load_meters(network)
    for extra, name, color in (([], "customers' meters only", RED), (head, "and the sum at the feeder head", BLUE)):
        found = observability(
            network, [*meters, *extra], active_power_w=true[n : 2 * n, 0], reactive_power_var=true[2 * n :, 0]
        )
        size = np.sort(found.detectable(FALSE_ALARM)[n : 2 * n]) / 1e3
        print(
            f"{name}: smallest P error {size.min():.2f} to {size.max():.2f} kW, critical {len(found.critical_meters)}"
        )
        axis.step(np.arange(1, n + 1), size, where="mid", color=color, label=name)
    axis.axhline(5.75, color=DARK, linewidth=1, linestyle=":")
    axis.text(n, 5.75, "main fuse 25 A", ha="right", va="bottom", fontsize=8)
    axis.set_yscale("log")
    axis.set_xlabel("customers, sorted")
    axis.set_ylabel("smallest P error found in 99 % [kW]")
    axis.set_title("One wrong power meter")
    axis.legend(frameon=False, fontsize=8, loc="center right")


def gains(axis: Axes, estimator: Estimator, network: Network) -> None:
    """Estimated against true gain of all voltmeters after a day of quarter-hours."""
    true, sigma = truth(network, np.arange(0, 1440, 15))
    n = len(true) // 3
    rng = np.random.default_rng(7)
    before, after, scores = [], [], []
    for _ in range(20):
        fixed = FIXED * rng.standard_normal((len(true), 1))
        z = true + sigma * (fixed + math.sqrt(1 - FIXED**2) * rng.standard_normal(true.shape))
        found = residuals(estimator.estimate(z, sigma), estimator.meters, z, sigma)
        state = track_bias(unknown_bias(estimator.meters), found, z)
        actual = 100 * (z[:n] / true[:n] - 1).mean(1)
        gain, spread = 100 * state.gain[:n], 100 * state.sigma_gain[:n]
        before.append(actual)
        after.append(gain - actual)
        scores.append((gain - actual) / spread)
    rms = [np.sqrt(np.mean(np.square(numbers))) for numbers in (before, after, scores)]
    print(f"gain: rms before {rms[0]:.3f} %, after {rms[1]:.3f} %, error / sigma {rms[2]:.2f}")
    axis.plot([-2.5, 2.5], [-2.5, 2.5], color=DARK, linewidth=1)
    axis.errorbar(actual, gain, yerr=spread, fmt="o", markersize=3, color=RED, elinewidth=0.8)
    axis.set_xlabel("true gain error [%]")
    axis.set_ylabel("estimated after one day [%], bar = 1 sigma")
    axis.set_title("Gain errors of 55 voltmeters")


def main() -> None:
    """Draw the three panels."""
    network = compile_network(european_lv_grid())
    busiest = np.array([int(european_lv_powers().active_power_w.sum(0).argmax())])
    true, sigma = truth(network, busiest)
    estimator = Estimator(network, load_meters(network))
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    found_share(axes[0], estimator, true, sigma)
    smallest_powers(axes[1], network, true)
    gains(axes[2], estimator, network)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    figure.savefig(Path(__file__).with_name("bad-data.png"), dpi=130)


if __name__ == "__main__":
    main()
