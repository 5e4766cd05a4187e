"""Estimation on grids with closed loops: exact, against a dense reference and power-grid-model."""

from itertools import product

import numpy as np
import pytest
from dense import Dense
from grids import CABLE, MV, SERVICE, ring
from msgspec.structs import replace
from power_grid_model import CalculationMethod, LoadGenType, MeasuredTerminalType, PowerGridModel, initialize_array

from flexmeter.estimation import Estimator, Meter, load_meters
from flexmeter.grid import Bus, Grid, Line, Load, Source, Transformer
from flexmeter.powerflow import compile_network, powerflow


def double_feed(second="Dyn11"):
    """Two MV feeders from one busbar, a transformer at the end of each, their LV sides joined by a cable with loads.

    The ring runs through both transformers; a second, two-phase cable closes a ring inside the LV grid.
    """
    rng = np.random.default_rng(4)
    buses = [Bus("S", 15e3), Bus("A", 15e3), Bus("B", 15e3), Bus("La", 400.0), Bus("Lb", 400.0)]
    lines = [Line("sa", "S", "A", "mv", 2.0), Line("sb", "S", "B", "mv", 3.0)]
    transformers = (
        Transformer("ta", "A", "La", 400e3, 15e3, 400.0, 4.0, 1.1),
        Transformer("tb", "B", "Lb", 250e3, 15e3, 400.0, 4.0, 1.3, vector_group=second),
    )
    loads, above = [], "La"
    for k in range(6):
        buses.append(Bus(f"r{k}", 400.0))
        lines.append(Line(f"l{k}", above, f"r{k}", "cable", float(rng.uniform(0.03, 0.08))))
        above = f"r{k}"
        for c in range(2):
            phase = "abc"[(k + c) % 3]
            end = f"r{k}c{c}"
            buses.append(Bus(end, 400.0, phases=phase))
            lines.append(Line("s" + end, above, end, "service", 0.02, phases=phase))
            p = float(rng.gamma(2.0, 1500.0) + 300)
            loads.append(Load("d" + end, end, phases=phase, power_w=(p,), power_var=(0.3 * p,)))
    lines.append(Line("join", above, "Lb", "cable", 0.05))
    lines.append(Line("cross", "r1", "r4", "cable", 0.06, phases="ab"))
    loads.append(Load("three", "Lb", power_w=(4e3, 3e3, 1e3), power_var=(500.0, 400.0, 0.0)))
    return Grid(
        id="double_feed",
        buses=tuple(buses),
        line_types=(MV, CABLE, SERVICE),
        lines=tuple(lines),
        transformers=transformers,
        sources=(Source("grid", "S", 15.3e3),),
        loads=tuple(loads),
    )


def loop_meters(network):
    powers = ("active_power", "reactive_power")
    found = [Meter(q, "head", network.head_bus, p) for q, p in product(powers, "abc")]
    for loop in network.loops:
        found += [Meter(q, "branch_to", loop.branch, p) for q, p in product(powers, loop.phases)]
        found += [Meter("current", "branch_from", loop.branch, p) for p in loop.phases]
    inner = next(name for name in reversed(network.branch_ids) if name.startswith(("l", "m")))
    return [*found, *(Meter(q, "branch_from", inner, p) for q, p in product(powers, "abc"))]


class Meshed:
    def __init__(self, grid, meters=loop_meters, seed=1, sigma_share=0.01):
        self.network = compile_network(grid)
        assert self.network.loops
        self.flow = powerflow(self.network, tolerance_va=1e-7)
        self.flow.raise_if_diverged()
        self.meters = (*load_meters(self.network), *meters(self.network))
        self.dense = Dense(self.network)
        for meter in self.meters:
            self.dense.meter(meter)
        current, loop = self.flow.injection_a[:, 0], self.flow.loop_a[:, 0]
        full = np.concatenate([np.abs(self.network.source_v), current.real, current.imag, loop.real, loop.imag])
        self.truth = np.linalg.lstsq(self.dense.basis, full, rcond=None)[0]
        self.true_readings = self.dense.evaluate(self.truth)[0]
        self.sigma = np.maximum(sigma_share * np.abs(self.true_readings), 0.5)
        noise = np.random.default_rng(seed).standard_normal(len(self.meters))
        self.readings = self.true_readings + self.sigma * noise
        self.estimator = Estimator(self.network, self.meters)


@pytest.fixture(
    scope="module",
    params=[
        lambda: ring(closed=True, charging=False),
        double_feed,
        lambda: double_feed("Dyn5"),
    ],
    ids=["mv-ring", "double-feed", "two-rings-other-clock"],
)
def meshed(request):
    grid = request.param()
    if grid.id == "double_feed" and grid.transformers[1].vector_group == "Dyn5":
        # a clock of its own may not close a ring: leave it open there and close two rings inside the LV grid
        lines = [line for line in grid.lines if line.id != "join"]
        grid = replace(grid, lines=(*lines, Line("other", "r0", "r5", "cable", 0.2)))
    return Meshed(grid)


def test_the_load_flow_is_the_dense_models(meshed):
    full = meshed.dense.basis @ meshed.truth
    current = meshed.flow.injection_a[:, 0]
    np.testing.assert_allclose(full[3 : 3 + len(current)], current.real, rtol=1e-6, atol=1e-4)


def test_the_optimum_is_the_dense_references(meshed):
    estimate = meshed.estimator.estimate(meshed.readings, meshed.sigma)
    dense = meshed.dense.solve(meshed.readings, meshed.sigma, start=meshed.truth)
    assert estimate.converged.all()
    np.testing.assert_allclose(estimate.objective, dense.objective, rtol=1e-8)
    assert estimate.degrees_of_freedom[0] == len(meshed.readings) - len(dense.x)
    network = meshed.network
    rows = dense.v[network.node_bus, network.node_phase]
    off = np.abs(estimate.voltage_v[:, 0] - rows @ dense.x) / network.nominal_v[network.node_bus]
    assert off.max() < 1e-8
    np.testing.assert_allclose(estimate.fitted[:, 0], dense.h, rtol=1e-7, atol=1e-4)


def test_every_sigma_is_the_dense_inverses(meshed):
    estimate = meshed.estimator.estimate(meshed.readings, meshed.sigma)
    dense, network = meshed.dense.solve(meshed.readings, meshed.sigma, start=meshed.truth), meshed.network
    rows = dense.v[network.node_bus, network.node_phase]
    v = rows @ dense.x
    gradient = (v.conj()[:, None] * rows).real / np.abs(v)[:, None]
    np.testing.assert_allclose(estimate.sigma_voltage_v[:, 0], dense.sigma(gradient), rtol=1e-7)
    np.testing.assert_allclose(estimate.sigma_fitted[:, 0], dense.sigma(dense.evaluate(dense.x)[1]), rtol=1e-7)
    head = np.array([row for kind in range(3) for row in head_gradient(dense, kind)])
    reference = head @ dense.covariance @ head.T
    scale = np.sqrt(np.outer(np.diag(reference), np.diag(reference)))
    assert np.max(np.abs(estimate.head_covariance[:, :, 0] - reference) / scale) < 1e-7


def head_gradient(dense, kind):
    for phase in range(3):
        v, i = dense.v[0, phase], dense.j[0, phase]
        if kind == 0:
            yield ((v @ dense.x).conj() * v).real / abs(v @ dense.x)
        else:
            ds = v * (i @ dense.x).conj() + (v @ dense.x) * i.conj()
            yield ds.real if kind == 1 else ds.imag


def test_joint_covariance_of_any_quantities_is_the_dense_inverses(meshed):
    chosen = [meshed.meters[row] for row in (0, 3, len(meshed.meters) // 2, -1, -3, -8)]
    estimate = meshed.estimator.estimate(meshed.readings, meshed.sigma, joint=chosen, losses=True)
    dense = meshed.dense.solve(meshed.readings, meshed.sigma, start=meshed.truth)
    rows = [meshed.meters.index(meter) for meter in chosen]
    gradient = dense.evaluate(dense.x)[1][rows]
    reference = gradient @ dense.covariance @ gradient.T
    scale = np.sqrt(np.outer(np.diag(reference), np.diag(reference)))
    assert np.max(np.abs(estimate.joint_covariance[:, :, 0] - reference) / scale) < 1e-7
    losses, gradient = dense_losses(dense)
    np.testing.assert_allclose(estimate.losses_w[0], losses, rtol=1e-7)
    np.testing.assert_allclose(estimate.sigma_losses_w[0], dense.sigma(gradient[None])[0], rtol=1e-7)


def dense_losses(dense):
    network, total, gradient = dense.network, 0.0, 0.0
    edges = [(network.impedance[b], dense.j[b]) for b in range(1, len(network.bus_ids))]
    edges += [(loop.impedance, x) for loop, x in zip(network.loops, dense.x_loop, strict=True)]
    for z, row in edges:
        j = row @ dense.x
        total += (j.conj() @ z @ j).real
        gradient = gradient + (row.conj().T @ z @ j + row.T @ (z.T @ j.conj())).real
    return total, gradient


def test_the_ring_is_closed_and_error_free_readings_give_the_truth_back():
    grid = replace(ring(closed=True), sources=(Source("grid", "b0", 15.3e3),))  # with charging
    network = compile_network(grid)
    flow = powerflow(network, tolerance_va=1e-6)
    value = np.vstack([np.abs(flow.voltage_v[3:]), network.power_w[:, None], network.power_var[:, None]])
    sigma = np.maximum(0.01 * np.abs(value), 1.0)
    estimate = Estimator(network, load_meters(network)).estimate(value, sigma, losses=True)
    np.testing.assert_allclose(estimate.voltage_v, flow.voltage_v, rtol=1e-8)
    np.testing.assert_allclose(estimate.losses_w, flow.losses_w, rtol=1e-6)
    assert estimate.objective[0] < 1e-6


def peer_voltages(grid, value, sigma):
    """|V| of the nodes by power-grid-model's Newton estimator from the same readings: one voltage sigma per bus."""
    n, loads = len(grid.buses), len(grid.loads)
    number = {bus.id: k for k, bus in enumerate(grid.buses)}
    node, line, source = (initialize_array("input", name, k) for name, k in (("node", n), ("line", n), ("source", 1)))
    node["id"], node["u_rated"] = range(n), 15e3
    line["id"], line["from_status"], line["to_status"], line["i_n"] = n + np.arange(n), 1, 1, 500
    line["from_node"] = [number[item.from_bus] for item in grid.lines]
    line["to_node"] = [number[item.to_bus] for item in grid.lines]
    length = np.array([item.length_km for item in grid.lines])
    for field, per_km in (("r1", 0.206), ("x1", 0.12), ("r0", 0.8), ("x0", 0.45), ("c1", 250e-9), ("c0", 250e-9)):
        line[field] = per_km * length
    line["tan1"] = line["tan0"] = 0
    source["id"], source["node"], source["status"], source["u_ref"] = 100, 0, 1, 1.02
    load = initialize_array("input", "asym_load", loads)
    load["id"], load["status"], load["type"] = 200 + np.arange(loads), 1, LoadGenType.const_power
    load["node"] = [number[item.bus] for item in grid.loads]
    load["p_specified"] = load["q_specified"] = 0
    z, s = value.reshape(3, loads, 3), sigma.reshape(3, loads, 3)
    volts, power = (initialize_array("input", f"asym_{kind}_sensor", loads) for kind in ("voltage", "power"))
    volts["id"], power["id"] = 300 + np.arange(loads), 400 + np.arange(loads)
    volts["measured_object"], power["measured_object"] = load["node"], load["id"]
    volts["u_measured"], volts["u_sigma"] = z[0], s[0][:, 0]
    power["measured_terminal_type"] = MeasuredTerminalType.load
    power["p_measured"], power["p_sigma"], power["q_measured"], power["q_sigma"] = z[1], s[1], z[2], s[2]
    data = {"node": node, "line": line, "source": source, "asym_load": load}
    model = PowerGridModel(data | {"asym_voltage_sensor": volts, "asym_power_sensor": power})
    result = model.calculate_state_estimation(
        symmetric=False, calculation_method=CalculationMethod.newton_raphson, error_tolerance=1e-8
    )
    return result["node"]["u"].ravel()


def test_the_ring_is_power_grid_models_newton_estimate():
    """Its angles of the source are not fixed but held by readings of their own: some 1e-5 pu are that."""
    grid = replace(ring(closed=True), sources=(Source("grid", "b0", 15.3e3),))
    network = compile_network(grid)
    flow = powerflow(network, tolerance_va=1e-6)
    true = np.concatenate([np.abs(flow.voltage_v[3:, 0]), network.power_w, network.power_var])
    sigma = np.concatenate([np.full(36, 85.0), np.maximum(0.02 * np.abs(true[36:]), 1e3)])
    value = true + sigma * np.random.default_rng(3).standard_normal(len(true))
    estimate = Estimator(network, load_meters(network)).estimate(value, sigma)
    per_unit = network.nominal_v[network.node_bus]
    off = np.abs(np.abs(estimate.voltage_v[:, 0]) - peer_voltages(grid, value, sigma)) / per_unit
    assert off.max() < 2e-5
    assert (
        np.abs(np.abs(estimate.voltage_v) - np.abs(flow.voltage_v)).max() > 2e-4 * per_unit[0]
    )  # of much less than the noise


def test_missing_and_exact_readings_in_a_ring():
    study = Meshed(double_feed())
    rng = np.random.default_rng(9)
    value = study.true_readings[:, None] + study.sigma[:, None] * rng.standard_normal((len(study.sigma), 60))
    value[rng.random(value.shape) < 0.1] = np.nan
    sigma = np.repeat(study.sigma[:, None], 60, axis=1)
    exact = [row for row, meter in enumerate(study.meters) if meter.id == "dr2c0" and meter.quantity != "voltage"]
    sigma[exact], value[exact] = 0.0, study.true_readings[exact, None]
    estimate = study.estimator.estimate(value, sigma)
    assert estimate.converged.all()
    score = (np.abs(estimate.voltage_v) - np.abs(study.flow.voltage_v)) / estimate.sigma_voltage_v
    assert 0.9 < np.mean(np.abs(score) < 1.96) <= 1.0
    np.testing.assert_allclose(estimate.fitted[exact], value[exact], rtol=1e-9)


def test_two_closed_switches_in_parallel_share_nothing_and_break_nothing():
    grid = double_feed()
    lines = (*grid.lines, Line("ideal", "r2", "r3x", "cable", 0.0), Line("again", "r2", "r3x", "cable", 0.0))
    loads = (*grid.loads, Load("more", "r3x", phases="a", power_w=(900.0,), power_var=(100.0,)))
    grid = replace(grid, buses=(*grid.buses, Bus("r3x", 400.0)), lines=lines, loads=loads)
    study = Meshed(replace(grid, lines=tuple(line for line in lines if line.id != "again")))
    double = Estimator(compile_network(grid), study.meters)
    one, two = (item.estimate(study.readings, study.sigma) for item in (study.estimator, double))
    np.testing.assert_allclose(one.voltage_v, two.voltage_v, rtol=1e-10)
    np.testing.assert_allclose(one.sigma_voltage_v, two.sigma_voltage_v, rtol=1e-8)
