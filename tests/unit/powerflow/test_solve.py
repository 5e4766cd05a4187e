"""Load flow against power-grid-model and OpenDSS, and its behaviour at the edges."""

import gc
import weakref

import numpy as np
import pytest
from grids import feeder, ring
from msgspec.structs import replace
from power_grid_model import CalculationMethod, LoadGenType, PowerGridModel, initialize_array

from flexmeter.errors import DidNotConverge, GridError, MeasurementError, NotRadial
from flexmeter.grid import Bus, Grid, Line, Load, Shunt, Source, Switch, Transformer, line_type_from_sequence
from flexmeter.powerflow import compile_network, powerflow, reduce_network
from flexmeter.powerflow.solve import _build

PU = 15e3 / np.sqrt(3)


def pgm_ring(grid):
    """The ring as power-grid-model input, written from its components."""
    n = len(grid.buses)
    number = {bus.id: k for k, bus in enumerate(grid.buses)}
    node = initialize_array("input", "node", n)
    node["id"], node["u_rated"] = range(n), 15e3
    line = initialize_array("input", "line", len(grid.lines))
    closed = [not any(s.branch == item.id and not s.closed for s in grid.switches) for item in grid.lines]
    length = np.array([item.length_km for item in grid.lines])
    line["id"] = n + np.arange(len(grid.lines))
    line["from_node"] = [number[item.from_bus] for item in grid.lines]
    line["to_node"] = [number[item.to_bus] for item in grid.lines]
    line["from_status"] = line["to_status"] = closed
    for field, value in (("r1", 0.206), ("x1", 0.12), ("r0", 0.8), ("x0", 0.45), ("c1", 250e-9), ("c0", 250e-9)):
        line[field] = value * length
    line["tan1"] = line["tan0"] = 0
    line["i_n"] = 500
    source = initialize_array("input", "source", 1)
    z = abs(complex(0.045, 0.45))
    source["id"], source["node"], source["status"], source["u_ref"] = 100, 0, 1, 15.3 / 15
    source["sk"], source["rx_ratio"], source["z01_ratio"] = 15e3**2 / z, 0.1, 1.0
    load = initialize_array("input", "asym_load", len(grid.loads))
    load["id"] = 200 + np.arange(len(grid.loads))
    load["node"] = [number[item.bus] for item in grid.loads]
    load["status"], load["type"] = 1, LoadGenType.const_power
    load["p_specified"] = [item.power_w for item in grid.loads]
    load["q_specified"] = [item.power_var for item in grid.loads]
    return {"node": node, "line": line, "source": source, "asym_load": load}


@pytest.mark.parametrize("closed", [False, True])
def test_unbalanced_ring_equals_power_grid_model(closed):
    grid = ring(closed=closed)
    flow = powerflow(compile_network(grid), tolerance_va=1e-5)
    peer = PowerGridModel(pgm_ring(grid)).calculate_power_flow(
        symmetric=False, calculation_method=CalculationMethod.newton_raphson, error_tolerance=1e-12
    )
    voltage = flow.voltage_v.reshape(13, 3)
    assert np.max(np.abs(np.abs(voltage) - peer["node"]["u"])) / PU < 1e-8
    angle = np.angle(voltage * np.exp(-1j * peer["node"]["u_angle"]))
    assert np.max(np.abs(angle)) < 1e-8
    np.testing.assert_allclose(flow.source_va[:, 0].real, peer["source"]["p"][0], rtol=1e-7)
    np.testing.assert_allclose(flow.source_va[:, 0].imag, peer["source"]["q"][0], rtol=1e-6)
    if closed:
        start = np.abs(flow.loop_a[:, 0])
        assert np.all(start > 1.0)  # something flows in the closing branch


def test_transformer_feeder_equals_power_grid_model():
    """Dyn11 transformer with tap, unbalanced load on its low side (formulas of both sides differ: pi against T)."""
    grid = Grid(
        id="t",
        buses=(Bus("h", 15e3), Bus("l", 400.0)),
        transformers=(Transformer("t", "h", "l", 250e3, 15e3, 400.0, 4.0, 1.2, tap_position=1, tap_step_percent=2.5),),
        sources=(Source("s", "h", 15e3),),
        loads=(Load("d", "l", power_w=(30e3, 20e3, 5e3), power_var=(9e3, 3e3, -2e3)),),
    )
    flow = powerflow(compile_network(grid), tolerance_va=1e-7)
    node = initialize_array("input", "node", 2)
    node["id"], node["u_rated"] = [0, 1], [15e3, 400.0]
    item = initialize_array("input", "transformer", 1)
    item["id"], item["from_node"], item["to_node"], item["from_status"], item["to_status"] = 2, 0, 1, 1, 1
    item["u1"], item["u2"], item["sn"] = 15e3, 400.0, 250e3
    item["uk"], item["pk"], item["i0"], item["p0"] = 0.04, 0.012 * 250e3, 0.0, 0.0
    item["winding_from"], item["winding_to"], item["clock"], item["tap_side"] = 2, 1, 11, 0
    item["tap_pos"], item["tap_min"], item["tap_max"], item["tap_size"] = 1, -2, 2, 375.0
    source = initialize_array("input", "source", 1)
    source["id"], source["node"], source["status"], source["u_ref"], source["sk"] = 3, 0, 1, 1.0, 1e16
    load = initialize_array("input", "asym_load", 1)
    load["id"], load["node"], load["status"], load["type"] = 4, 1, 1, LoadGenType.const_power
    load["p_specified"], load["q_specified"] = [(30e3, 20e3, 5e3)], [(9e3, 3e3, -2e3)]
    peer = PowerGridModel({"node": node, "transformer": item, "source": source, "asym_load": load})
    result = peer.calculate_power_flow(symmetric=False, error_tolerance=1e-12)
    assert np.max(np.abs(np.abs(flow.voltage_v[3:, 0]) - result["node"]["u"][1])) / (400 / np.sqrt(3)) < 1e-6
    angle = np.angle(flow.voltage_v[3:, 0] * np.exp(-1j * result["node"]["u_angle"][1]))
    assert np.max(np.abs(angle)) < 1e-6


def test_closed_ring_equals_opendss():
    dss = pytest.importorskip("opendssdirect")
    grid = ring(closed=True, charging=False)
    script = [
        "clear",
        "set defaultbasefrequency=50",
        "new circuit.ring basekv=15 pu=1.02 bus1=b0 phases=3 Z1=[0.045,0.45] Z0=[0.045,0.45]",
        "new linecode.mv nphases=3 R1=0.206 X1=0.12 R0=0.8 X0=0.45 C1=0 C0=0 units=km",
    ]
    script += [
        f"new line.{x.id} bus1={x.from_bus} bus2={x.to_bus} linecode=mv length={x.length_km!r} units=km"
        for x in grid.lines
    ]
    for item in grid.loads:
        for k in range(3):
            script.append(
                f"new load.{item.id}{k} phases=1 bus1={item.bus}.{k + 1} kv={float(PU) / 1e3!r} "
                f"kw={float(item.power_w[k]) / 1e3!r} kvar={float(item.power_var[k]) / 1e3!r} "
                "model=1 vminpu=0.5 vmaxpu=1.5"
            )
    script += ["set voltagebases=[15]", "calcvoltagebases", "set tolerance=1e-10", "set maxiterations=100", "solve"]
    for line in script:
        dss.Text.Command(line)
    flow = powerflow(compile_network(grid), tolerance_va=1e-5)
    for bus in grid.buses:
        dss.Circuit.SetActiveBus(bus.id)
        pairs = np.array(dss.Bus.Voltages()).reshape(-1, 2)
        mine = flow.voltage_v[[flow.model.network.node_row[bus.id, phase] for phase in "abc"], 0]
        assert np.max(np.abs(mine - (pairs[:, 0] + 1j * pairs[:, 1]))) / PU < 1e-6


def test_a_loop_of_two_phases_leaves_the_third_open():
    grid = ring(closed=True)
    lines = tuple(replace(line, phases="ab") if line.id == "l6" else line for line in grid.lines)
    network = compile_network(replace(grid, lines=lines))
    flow = powerflow(network, tolerance_va=1e-6)
    loop = network.loops[0]
    ends = [[network.node_row[network.bus_ids[bus], p] for p in "abc"] for bus in (loop.from_bus, loop.to_bus)]
    gap = flow.voltage_v[ends[0], 0] - flow.voltage_v[ends[1], 0] - loop.impedance @ flow.loop_a[:, 0]
    assert np.all(np.abs(gap[:2]) < 1e-6)
    assert flow.loop_a[2, 0] == 0.0
    assert abs(gap[2]) > 10.0


def test_powers_losses_and_currents_balance():
    network = compile_network(feeder())
    flow = powerflow(network, tolerance_va=1e-8)
    flow.raise_if_diverged()
    v_plus, v_minus = network.injection_nodes
    v = flow.voltage_v[v_plus] - np.where(v_minus[:, None] >= 0, flow.voltage_v[v_minus], 0)
    drawn = (v * flow.injection_a.conj()).sum(0)
    assert flow.source_va.sum(0).real == pytest.approx(drawn.real + flow.losses_w, rel=1e-9)
    np.testing.assert_allclose((v * flow.injection_a.conj()).real[:, 0], network.power_w, atol=1e-6)
    service = network.branch_row["s00"]
    np.testing.assert_allclose(
        np.abs(flow.branch_current_a[service, 0, 0]), np.abs(flow.injection_a[network.injection_row["d00", "a"], 0])
    )


def test_shunts_and_constant_impedance_loads_agree():
    """A shunt and a Z load of the same admittance are the same thing."""
    cable = line_type_from_sequence("c", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4)
    common = {
        "buses": (Bus("1", 400.0), Bus("2", 400.0)),
        "line_types": (cable,),
        "lines": (Line("l", "1", "2", "c", 0.3),),
        "sources": (Source("s", "1", 410.0),),
    }
    g = 0.05
    load = Load("d", "2", power_w=(g * 400**2 / 3,) * 3, zip=(1.0, 0.0, 0.0))
    one = powerflow(compile_network(Grid("a", loads=(load,), **common)), tolerance_va=1e-9)
    two = powerflow(compile_network(Grid("b", shunts=(Shunt("y", "2", g_s=(g,) * 3),), **common)), tolerance_va=1e-9)
    np.testing.assert_allclose(one.voltage_v, two.voltage_v, rtol=1e-10)


def test_load_below_its_voltage_limit_turns_into_impedance():
    cable = line_type_from_sequence("c", r1_ohm_per_km=1.0, x1_ohm_per_km=0.1, r0_ohm_per_km=1.0, x0_ohm_per_km=0.1)
    grid = Grid(
        id="limit",
        buses=(Bus("1", 400.0), Bus("2", 400.0)),
        line_types=(cable,),
        lines=(Line("l", "1", "2", "c", 1.0),),
        sources=(Source("s", "1", 400.0),),
        loads=(Load("d", "2", phases="a", power_w=(8e3,), v_min_pu=0.9),),
    )
    flow = powerflow(compile_network(grid), tolerance_va=1e-8)
    v = abs(flow.voltage_v[3, 0])
    u = v / (400 / np.sqrt(3))
    assert u < 0.9
    power = (flow.voltage_v[3, 0] * flow.injection_a[0, 0].conj()).real
    assert power == pytest.approx(8e3 * (u / 0.9) ** 2, rel=1e-8)


def test_scenarios_are_independent_and_threads_change_nothing():
    network = compile_network(feeder())
    rng = np.random.default_rng(0)
    power = network.power_w[:, None] * rng.uniform(0.2, 2.0, (len(network.power_w), 11))
    power[2, 4] = np.nan
    flow = powerflow(network, power, 0.2 * power, tolerance_va=1e-7)
    again = powerflow(network, power, 0.2 * power, tolerance_va=1e-7, threads=2)
    np.testing.assert_array_equal(flow.voltage_v, again.voltage_v)
    for s in (0, 3, 5, 10):
        one = powerflow(network, power[:, s], 0.2 * power[:, s], tolerance_va=1e-7)
        np.testing.assert_allclose(flow.voltage_v[:, s], one.voltage_v[:, 0], rtol=1e-9)
    assert not flow.converged[4]
    assert flow.converged.sum() == 10


def test_collapse_does_not_move_a_bus():
    """Every bus kept on the spine gives the same voltages as the reduced tree."""
    network = compile_network(feeder())
    full = reduce_network(network, keep=range(len(network.bus_ids)))
    assert full.n_spine == len(network.bus_ids) > reduce_network(network).n_spine
    whole = powerflow(_build(network, full), tolerance_va=1e-8)
    np.testing.assert_allclose(powerflow(network, tolerance_va=1e-8).voltage_v, whole.voltage_v, rtol=1e-10)


def test_overload_is_reported_with_a_bus():
    network = compile_network(feeder())
    flow = powerflow(network, 300 * network.power_w, max_iterations=30)
    with pytest.raises(DidNotConverge, match="bus"):
        flow.raise_if_diverged()


def test_wrong_shapes_and_grids_are_named():
    network = compile_network(feeder())
    with pytest.raises(MeasurementError, match="active_power_w"):
        powerflow(network, np.zeros(3))
    grid = ring()
    cut = tuple(Switch(f"s{k}", f"l{k}", closed=False) for k in (3, 7))
    island = Grid("cut", grid.buses, grid.line_types, grid.lines, (), cut, grid.sources, grid.loads)
    with pytest.raises(NotRadial, match="no source reaches"):
        compile_network(island)
    two = (*grid.sources, Source("more", "b5", 15e3))
    doubled = Grid("two", grid.buses, grid.line_types, grid.lines, (), grid.switches, two, grid.loads)
    with pytest.raises(GridError, match="2 sources"):
        compile_network(doubled)


def test_a_network_is_not_kept_by_its_load_flows():
    network = compile_network(ring())
    powerflow(network)
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None
