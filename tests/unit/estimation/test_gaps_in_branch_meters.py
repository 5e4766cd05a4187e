"""Branch meters beside loads that are silent: every scenario needs an answer, and the right one."""

import numpy as np
import pytest
from grids import ring

from flexmeter.estimation import Estimate, Estimator, Meter, branch_meters, load_meters
from flexmeter.powerflow import Network, PowerFlowResult, compile_network, powerflow

DRAWS = 200


def reading(network: Network, flow: PowerFlowResult, meter: Meter) -> np.ndarray:
    """What a meter at a load or branch reads, (n_scenario,)."""
    if meter.at == "load":
        row = network.injection_row[meter.id, meter.phase]
        plus, minus = (int(side[row]) for side in network.injection_nodes)
        voltage = flow.voltage_v[plus] - (flow.voltage_v[minus] if minus >= 0 else 0)
        current, sign = flow.injection_a[row], 1
    else:
        row, phase = network.branch_row[meter.id], "abc".index(meter.phase)
        forward = network.forward[row]
        upper = (meter.at == "branch_from") == forward
        below = flow.branch_current_a[row]
        current = (network.transfer[row].conj().T @ below)[phase] if upper else below[phase]
        bus = network.bus_ids[network.parent[row] if upper else row]
        voltage, sign = flow.voltage_v[network.node_row[bus, meter.phase]], 1 if forward else -1
    power = sign * voltage * current.conj()
    values = {
        "voltage": abs(voltage),
        "active_power": power.real,
        "reactive_power": power.imag,
        "current": abs(current),
    }
    return values[meter.quantity]


def estimated(quantities: tuple[str, ...], share: float, seed: int = 1) -> tuple[Estimate, PowerFlowResult]:
    """Estimate the ring with a share of all readings of loads and tree branches, 1 % meters."""
    rng = np.random.default_rng(seed)
    network = compile_network(ring())
    active = rng.uniform(0.2, 1, (len(network.injections), DRAWS)) * np.maximum(abs(network.power_w), 500)[:, None]
    flow = powerflow(network, active, 0.2 * active)
    flow.raise_if_diverged()
    loops = {loop.branch for loop in network.loops}
    on_branches = [m for m in branch_meters(network) if m.id not in loops and m.quantity in quantities]
    meters = [*load_meters(network), *on_branches]
    true = np.array([reading(network, flow, meter) for meter in meters])
    floor = np.array([{"voltage": 0.0, "current": 0.02}.get(meter.quantity, 1.0) for meter in meters])[:, None]
    sigma = np.maximum(0.01 * abs(true), floor)
    value = true + sigma * rng.standard_normal(true.shape)
    value[rng.random(value.shape) > share] = np.nan
    return Estimator(network, meters).estimate(value, sigma), flow


def test_all_readings_there() -> None:
    estimate, _ = estimated(("active_power", "reactive_power", "current"), 1.0)
    assert estimate.converged.all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_half_of_the_readings_missing_converge_nearly_always(seed: int) -> None:
    """Forecasts are held back where steps overshoot; whatever does not converge is said not to, and is not wrong."""
    estimate, flow = estimated(("active_power", "reactive_power"), 0.5, seed)
    assert estimate.converged.mean() >= 0.94
    assert np.abs(errors(estimate, flow)).max() < 5.5
    for part, sigma in (("real", estimate.sigma_active_power_w), ("imag", estimate.sigma_reactive_power_var)):
        off = getattr(estimate.power_va - true_power(flow), part) / sigma
        far = np.abs(off) > 6  # a power seen only by the losses it makes has two signs, see the limits in the docs
        assert far.mean() < 5e-4
        assert abs(off[~far].mean()) < 0.05
        assert 0.85 < off[~far].std() < 1.05  # forecasts of 25 A are wide


def true_power(flow: PowerFlowResult) -> np.ndarray:
    """What the loads take, (n_injection, n_scenario)."""
    plus, minus = flow.model.network.injection_nodes
    voltage = flow.voltage_v[plus] - np.where((minus >= 0)[:, None], flow.voltage_v[minus], 0)
    return voltage * flow.injection_a.conj()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_magnitudes_of_currents_seldom_lead_to_a_wrong_optimum(seed: int) -> None:
    """J tells of nearly all that are left."""
    estimate, flow = estimated(("active_power", "reactive_power", "current"), 0.5, seed)
    assert estimate.converged.mean() >= 0.45
    error = np.abs(errors(estimate, flow)).max(axis=0)
    plausible = estimate.objective < 3 * estimate.degrees_of_freedom
    assert plausible.mean() >= 0.98
    assert (error > 5).mean() <= 0.01
    assert (error[plausible] > 5).mean() <= 0.01


def errors(estimate: Estimate, flow: PowerFlowResult) -> np.ndarray:
    """Errors of all voltages over their standard deviations."""
    return (np.abs(estimate.voltage_v) - np.abs(flow.voltage_v)) / estimate.sigma_voltage_v
