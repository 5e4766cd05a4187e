"""Currents and losses of branches against the formulas written out in numpy, on random grids."""

import numpy as np
import pytest
from grids import CABLE, feeder, ring, three_levels
from msgspec.structs import replace

from flexmeter.grid import Bus, Grid, Line, Load, Source, Transformer
from flexmeter.powerflow import compile_network, powerflow
from flexmeter.powerflow.branches import hermitian_form


def random_grid(seed):
    """A Dyn11 transformer with iron, a random tree with charging, one- to three-phase branches, loads, two rings."""
    rng = np.random.default_rng(seed)
    cable = replace(CABLE, c_nf_per_km=((300.0, -40.0, -40.0), (-40.0, 300.0, -40.0), (-40.0, -40.0, 300.0)))
    buses, lines, loads, three = [Bus("mv", 15e3), Bus("lv", 400.0)], [], [], ["lv"]
    for k in range(int(rng.integers(8, 20))):
        above = three[int(rng.integers(len(three)))]
        phases = ("abc", "a", "b", "c", "ab", "ca")[int(rng.integers(6))] if k > 2 else "abc"
        kind = cable.id if rng.random() < 0.5 else CABLE.id + "2"
        buses.append(Bus(f"n{k}", 400.0, phases="".join(sorted(phases))))
        lines.append(Line(f"l{k}", above, f"n{k}", kind, float(rng.uniform(0.01, 0.2)), phases="".join(sorted(phases))))
        if phases == "abc":
            three.append(f"n{k}")
        if rng.random() < 0.2:
            continue  # a bus where nothing happens, or a dead end
        power = rng.uniform(-500, 2000, len(phases))
        if len(phases) == 2 and rng.random() < 0.5:
            load = Load(
                f"d{k}", f"n{k}", phases="".join(sorted(phases)), connection="delta", power_w=(float(power[0]),)
            )
        else:
            load = Load(f"d{k}", f"n{k}", phases="".join(sorted(phases)), power_w=tuple(power.tolist()))
        loads.append(load)
    ends = rng.permutation(three)
    lines += [Line("ring", str(ends[0]), str(ends[1]), cable.id, 0.1)] if len(three) > 2 else []
    lines += [Line("ring2", str(ends[1]), str(ends[2]), CABLE.id + "2", 0.1)] if len(three) > 2 else []
    return Grid(
        id="random",
        buses=tuple(buses),
        line_types=(cable, replace(CABLE, id=CABLE.id + "2")),
        lines=tuple(lines),
        transformers=(
            Transformer(
                "t", "mv", "lv", 250e3, 15e3, 400.0, 4.0, 1.2, no_load_loss_w=500.0, no_load_current_percent=1.0
            ),
        ),
        sources=(Source("s", "mv", 15.2e3, r1_ohm=0.1, x1_ohm=1.0, r0_ohm=0.1, x0_ohm=1.0),),
        loads=tuple(loads),
    )


def losses(impedance, current):
    """J^H Z J of (n, 3, 3) and (n, 3, m)."""
    return np.einsum("kpm,kpq,kqm->km", current.conj(), impedance, current).real


def currents(flow):
    """Currents of the branches, gathered one by one."""
    tree, edge_a = flow.model.tree, flow._edge_a
    result = np.zeros((len(tree.branch_edge), 3, edge_a.shape[1]), complex)
    for bus, edge in enumerate(tree.branch_edge):
        if 0 <= edge < tree.n_spine:
            result[bus] = edge_a[3 * edge : 3 * edge + 3]
        elif edge >= 0:
            leaf = edge - tree.n_spine
            result[bus, tree.leaf_plus[leaf]] += edge_a[3 * tree.n_spine + leaf]
            if tree.leaf_minus[leaf] >= 0:
                result[bus, tree.leaf_minus[leaf]] -= edge_a[3 * tree.n_spine + leaf]
    return result


GRIDS = [
    *(pytest.param(random_grid(seed), id=f"random{seed}") for seed in range(12)),
    pytest.param(feeder(), id="feeder"),
    pytest.param(ring(closed=True), id="closed ring"),
    pytest.param(three_levels(), id="levels"),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_currents_and_losses_equal_their_formulas(grid, threads):
    network = compile_network(grid)
    rng = np.random.default_rng(1)
    power = network.power_w[:, None] * rng.uniform(0.2, 1.5, (len(network.power_w), 7))
    flow = powerflow(network, power, 0.3 * power, threads=threads)
    assert flow.converged.all()
    current = currents(flow)
    np.testing.assert_array_equal(flow.branch_current_a, current)

    series = losses(network.impedance, current)
    np.testing.assert_allclose(flow.branch_losses_w, series, rtol=1e-12, atol=1e-12 * np.abs(series).max())
    n_loop = len(network.loops)
    loop_z = np.array([loop.impedance for loop in network.loops]).reshape(-1, 3, 3)
    closing = losses(loop_z, flow.loop_a.reshape(n_loop, 3, 7))
    np.testing.assert_allclose(flow.loop_losses_w, closing, rtol=1e-12, atol=1e-12 * np.abs(series).max())
    voltage = np.zeros((len(network.bus_ids), 3, 7), complex)
    voltage[network.node_bus, network.node_phase] = flow.voltage_v
    shunt = losses(network.shunt, voltage)
    np.testing.assert_allclose(flow.shunt_losses_w, shunt.sum(0), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(flow.losses_w, series.sum(0) + closing.sum(0) + shunt.sum(0), rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_power_drawn_and_lost_is_power_fed(seed):
    network = compile_network(random_grid(seed))
    flow = powerflow(network, tolerance_va=1e-7)
    plus, minus = network.injection_nodes
    v = flow.voltage_v[plus] - np.where(minus[:, None] >= 0, flow.voltage_v[minus], 0)
    drawn = (v * flow.injection_a.conj()).sum(0).real
    np.testing.assert_allclose(flow.source_va.sum(0).real, drawn + flow.losses_w, rtol=1e-8)


def test_only_the_hermitian_part_of_a_matrix_counts():
    """An impedance turned through a transformer is not symmetric."""
    rng = np.random.default_rng(0)
    m = rng.normal(size=(5, 3, 3)) + 1j * rng.normal(size=(5, 3, 3))
    a, b, c = x = rng.normal(size=3) + 1j * rng.normal(size=3)
    pairs = [a.conj() * b, a.conj() * c, b.conj() * c]
    terms = np.array([*(np.abs(x) ** 2), *(p.real for p in pairs), *(p.imag for p in pairs)])
    np.testing.assert_allclose(hermitian_form(m) @ terms, np.einsum("p,kpq,q->k", x.conj(), m, x).real, rtol=1e-12)
