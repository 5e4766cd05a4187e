"""Branch meters beside loads that are silent: every scenario needs an answer, and a sigma that covers its error."""

from dataclasses import dataclass

import numpy as np
import pytest
from grids import feeder, ring

from flexmeter.estimation import Estimate, Estimator, Meter, branch_meters, compare, huber, load_meters, residuals
from flexmeter.grid import Bus, Grid, Line, Load, Source, line_type_from_sequence
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


@dataclass(frozen=True)
class Case:
    """What was estimated, from which readings, and the truth."""

    meters: list[Meter]
    estimate: Estimate
    value: np.ndarray
    sigma: np.ndarray
    true: np.ndarray
    flow: PowerFlowResult

    def voltage_errors(self) -> np.ndarray:
        """Errors of all voltages over their standard deviations, converged scenarios only."""
        off = np.abs(self.estimate.voltage_v) - np.abs(self.flow.voltage_v)
        return (off / self.estimate.sigma_voltage_v)[:, self.estimate.converged]

    def power_errors(self) -> np.ndarray:
        """Errors of P and Q of all loads over their standard deviations."""
        off = self.estimate.power_va - true_power(self.flow)
        over = off.real / self.estimate.sigma_active_power_w, off.imag / self.estimate.sigma_reactive_power_var
        return np.concatenate(over)[:, self.estimate.converged]

    def branch_errors(self) -> np.ndarray:
        """Errors of everything on branches over their standard deviations, in one row."""
        rows = [meter.at != "load" for meter in self.meters]
        off = (self.estimate.fitted - self.true)[rows][:, self.estimate.converged]
        sigma = self.estimate.sigma_fitted[rows][:, self.estimate.converged]
        dead = (sigma == 0) & (np.abs(off) < 1e-6)  # nothing can flow there
        return off[~dead] / sigma[~dead]


def case(grid: Grid, quantities: tuple[str, ...], share: float, seed: int, lost: tuple[str, ...] = ()) -> Case:
    """Estimate a grid with a share of all readings of loads and tree branches, 1 % meters.

    lost : ids of loads and branches of which nothing is read
    """
    rng = np.random.default_rng(seed)
    network = compile_network(grid)
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
    value[[meter.id in lost for meter in meters]] = np.nan
    return Case(meters, Estimator(network, meters).estimate(value, sigma), value, sigma, true, flow)


def true_power(flow: PowerFlowResult) -> np.ndarray:
    """What the loads take, (n_injection, n_scenario)."""
    plus, minus = flow.model.network.injection_nodes
    voltage = flow.voltage_v[plus] - np.where((minus >= 0)[:, None], flow.voltage_v[minus], 0)
    return voltage * flow.injection_a.conj()


def assert_covered(found: Case, converged: float, wrong: float = 0.0) -> None:
    """Errors lie within what their sigmas say: wider sigmas are allowed where losses alone tell, narrower ones not.

    wrong : share of scenarios that may have the wrong sign of a power
    """
    assert found.estimate.converged.mean() >= converged
    state = np.concatenate([found.voltage_errors(), found.power_errors()])
    assert (np.abs(state).max(axis=0) > 5.5).mean() <= wrong
    branches = found.branch_errors()
    assert (np.abs(branches) > 6).mean() < 1e-4
    for errors in (state, branches):
        assert np.abs(errors).max() < (9 if wrong else 7)
        assert (np.abs(errors) < 1.96).mean() > 0.94
        assert errors.std() < 1.05
    J, freedom = found.estimate.objective, found.estimate.degrees_of_freedom
    assert ((J - freedom) / np.sqrt(2 * np.maximum(freedom, 1)))[found.estimate.converged].max() < 6


PQ, PQI = ("active_power", "reactive_power"), ("active_power", "reactive_power", "current")


def test_all_readings_there() -> None:
    found = case(ring(), PQI, 1.0, 1)
    assert found.estimate.converged.all()
    assert not found.estimate.left_out.any()
    assert found.voltage_errors().std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("quantities", [PQ, PQI, ("current",), ("reactive_power",)], ids="/".join)
def test_ring_with_gaps(quantities: tuple[str, ...], share: float, seed: int) -> None:
    assert_covered(
        case(ring(), quantities, share, seed), 0.96, wrong=0.005 if quantities == ("reactive_power",) else 0.0
    )


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.99, 0.9, 0.5, 0.2])
@pytest.mark.parametrize("quantities", [PQ, PQI, ("current",), ("active_power",), ("reactive_power",)], ids="/".join)
@pytest.mark.parametrize("kind", ["ring", "feeder"])
def test_study(kind: str, quantities: tuple[str, ...], share: float) -> None:
    """The figures of docs/methods/uncertainty.md: eight times 200 draws; `-m slow -s` prints them."""
    cases = [case(ring() if kind == "ring" else feeder(seed=seed), quantities, share, seed) for seed in range(100, 108)]
    state = [np.concatenate([found.voltage_errors(), found.power_errors()]) for found in cases]
    worst = np.concatenate([np.abs(errors).max(axis=0) for errors in state])
    everything = np.concatenate([errors.ravel() for errors in state] + [found.branch_errors() for found in cases])
    converged = np.mean([found.estimate.converged.mean() for found in cases])
    beyond = int((np.abs(everything) > 6).sum()), int((worst > 6).sum())
    print(f"\n{kind} {'/'.join(quantities)} {share}: converged {converged:.4f}, sd {everything.std():.3f}", end="")
    print(f", covered {(np.abs(everything) < 1.96).mean():.4f}, largest {np.abs(everything).max():.1f}", end="")
    print(f", beyond 6 sigma {beyond[0]} of {everything.size}, {beyond[1]} of {worst.size} scenarios")
    assert (worst > 6).mean() < 0.003


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("quantities", [PQ, PQI], ids="/".join)
def test_low_voltage_feeder_with_gaps(quantities: tuple[str, ...], share: float) -> None:
    assert_covered(case(feeder(seed=3), quantities, share, 3), 0.96)


@pytest.mark.parametrize("quantities", [PQ, PQI, ("current",)], ids="/".join)
def test_one_side_of_the_ring_silent_but_at_its_head(quantities: tuple[str, ...]) -> None:
    silent = tuple(f"d{k}" for k in range(1, 8)) + tuple(f"l{k}" for k in range(1, 8))
    assert_covered(case(ring(), quantities, 1.0, 4, silent), 0.98)


def test_sigmas_are_no_wider_than_need_be_while_most_is_read() -> None:
    found = case(ring(), PQI, 0.9, 5)
    assert found.voltage_errors().std() == pytest.approx(1, abs=0.06)
    assert found.power_errors().std() == pytest.approx(1, abs=0.03)
    assert found.estimate.left_out.sum() < 0.01 * (~np.isnan(found.value)).sum()


def ammeter(with_power: bool) -> tuple[Estimate, list[Meter], np.ndarray, np.ndarray]:
    """Estimate one load behind an ammeter."""
    cable = line_type_from_sequence("cable", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4)
    grid = Grid(
        id="ammeter",
        buses=(Bus("head", 400.0), Bus("end", 400.0)),
        line_types=(cable,),
        lines=(Line("line", "head", "end", "cable", 0.1),),
        sources=(Source("source", "head", 400.0),),
        loads=(Load("load", "end", phases="a", power_w=(1e3,), power_var=(3e2,)),),
    )
    network = compile_network(grid)
    meters = [*load_meters(network), Meter("current", "branch_from", "line", "a")]
    value = np.array(
        [{"voltage": 230.0, "active_power": 1e3, "reactive_power": 3e2, "current": 4.6}[m.quantity] for m in meters]
    )
    if not with_power:
        value[[meter.quantity.endswith("_power") for meter in meters]] = np.nan
    sigma = np.array([{"voltage": 2.3, "current": 0.046}.get(meter.quantity, 10.0) for meter in meters])
    return Estimator(network, meters).estimate(value, sigma), meters, value, sigma


def test_a_current_without_direction_is_left_out_and_said_so() -> None:
    estimate, meters, value, sigma = ammeter(with_power=False)
    ammeters = [meter.quantity == "current" for meter in meters]
    assert estimate.converged.all()
    assert estimate.left_out[:, 0].tolist() == ammeters
    found = residuals(estimate, meters, value, sigma)
    assert np.isnan(found.residual[ammeters]).all()
    with_it = ammeter(with_power=True)[0]
    assert not with_it.left_out.any()
    assert with_it.degrees_of_freedom[0] == estimate.degrees_of_freedom[0] + 1  # P and Q replace their forecasts


def test_what_is_left_out_judges_no_hypothesis_and_no_reading() -> None:
    estimate, meters, value, sigma = ammeter(with_power=False)
    estimator = Estimator(estimate.network, meters)
    silent = np.where([meter.quantity == "current" for meter in meters], np.nan, value)
    with_it, without = (compare({"one": estimator, "two": estimator}, z, sigma) for z in (value, silent))
    assert with_it.log_likelihood == pytest.approx(without.log_likelihood)
    assert (huber(estimator, value, sigma).weight[~np.isnan(value)] == 1).all()


def test_a_voltage_that_only_losses_tell_is_not_observable() -> None:
    found = case(ring(charging=False), PQI, 1.0, 6)
    value = found.value.copy()
    value[[meter.quantity in {"voltage", "current"} for meter in found.meters]] = np.nan
    network = found.flow.model.network
    estimate = Estimator(network, found.meters).estimate(value, found.sigma)
    assert set(estimate.status) == {"partly observable"}
    off = np.abs(estimate.voltage_v) - np.abs(found.flow.voltage_v)
    assert (np.abs(off) < 4 * estimate.sigma_voltage_v).all()
