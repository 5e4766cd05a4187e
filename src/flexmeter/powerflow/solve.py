"""Load flow of many scenarios at once, radial or meshed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import DidNotConverge, Finding, MeasurementError
from flexmeter.powerflow.branches import Branches, branch_arrays, current_blocks, hermitian_form, quadratic_blocks
from flexmeter.powerflow.lanes import LANES, ComplexArray, FloatArray, IntArray, block_count, ready, work_array
from flexmeter.powerflow.loops import inverse_loop_impedance, loop_arrays
from flexmeter.powerflow.network import Network
from flexmeter.powerflow.sweep import Flow, Powers, SweepModel, expand, solve_blocks, work_size
from flexmeter.powerflow.tree import Tree, real_form, reduce_network


@dataclass(frozen=True, eq=False)
class PowerFlowModel:
    """A network made ready for the kernel. Build it once with `prepare`, use it for any number of scenarios."""

    network: Network
    tree: Tree
    sweep: SweepModel
    node_spine: IntArray
    node_edge: IntArray
    node_x: FloatArray

    @cached_property
    def branches(self) -> Branches:
        """Where the current of each branch is found, and what it loses."""
        return branch_arrays(self.tree)


@dataclass(frozen=True, eq=False)
class PowerFlowResult:
    """State of a network in every scenario.

    Attributes
    ----------
    voltage_v : (n_node, n_scenario) complex phase-to-earth voltages [V], rows as `network.nodes`
    loop_a : (3 n_loop, n_scenario) complex currents of the branches that close loops, from- to to-side [A]
    iterations : (n_scenario,) sweeps needed, -1 where not converged
    mismatch_va : (n_scenario,) largest power mismatch of a load, shunt or loop [VA]
    """

    model: PowerFlowModel
    voltage_v: ComplexArray
    loop_a: ComplexArray
    iterations: IntArray
    mismatch_va: FloatArray
    _spine_v: ComplexArray
    _edge_a: ComplexArray
    _threads: int

    @property
    def converged(self) -> np.ndarray:
        """(n_scenario,) whether the tolerance was reached."""
        return np.asarray(self.iterations >= 0)

    @cached_property
    def injection_a(self) -> ComplexArray:
        """(n_injection, n_scenario) complex load currents [A], rows as `network.injections`."""
        tree = self.model.tree
        return np.take(self._edge_a, 3 * tree.n_spine + tree.injection_leaf, axis=0)

    @cached_property
    def branch_current_a(self) -> ComplexArray:
        """(n_bus, 3, n_scenario) current [A] of the branch to each bus's parent, into the bus; 0 at the head.

        Seen at the bus's side of a transformer; capacitive charging of a line is not in it. Rows as
        `network.bus_ids` and `network.branch_ids`; branches that close loops are in `loop_a`.
        """
        b = self.model.branches
        result = np.empty((len(b.row), 3, self.voltage_v.shape[1]), complex)

        def run(first: int, last: int) -> None:
            current_blocks(first, last, b.row, b.width, b.plus, b.minus, self._edge_a, result)

        share_blocks(run, block_count(result.shape[2]), self._threads)
        return result

    @cached_property
    def branch_losses_w(self) -> FloatArray:
        """(n_bus, n_scenario) series losses J^H Re(Z) J [W] of the branch to each bus's parent."""
        b = self.model.branches
        return self._quadratic(b.row, b.width, b.form, self._edge_a)

    @cached_property
    def loop_losses_w(self) -> FloatArray:
        """(n_loop, n_scenario) series losses [W] of the branches that close loops."""
        loops = self.model.network.loops
        form = hermitian_form(np.array([loop.impedance for loop in loops], complex).reshape(-1, 3, 3))
        return self._quadratic(3 * np.arange(len(loops)), np.full(len(loops), 3), form, self.loop_a)

    @cached_property
    def shunt_losses_w(self) -> FloatArray:
        """(n_scenario,) power drawn by all shunts (transformer iron, capacitors) [W]."""
        tree = self.model.tree
        spine = np.flatnonzero(tree.has_shunt)
        form = hermitian_form(self.model.network.shunt[tree.bus[spine]])
        return np.asarray(self._quadratic(3 * spine, np.full(len(spine), 3), form, self._spine_v).sum(0))

    def _quadratic(self, row: IntArray, width: IntArray, form: FloatArray, x: ComplexArray) -> FloatArray:
        result = np.empty((len(row), x.shape[1]))

        def run(first: int, last: int) -> None:
            quadratic_blocks(first, last, row, width, form, x, result)

        share_blocks(run, block_count(result.shape[1]), self._threads)
        return result

    @property
    def losses_w(self) -> FloatArray:
        """(n_scenario,) all losses [W]: series and shunt."""
        return np.asarray(self.branch_losses_w.sum(0) + self.loop_losses_w.sum(0) + self.shunt_losses_w)

    @property
    def source_va(self) -> ComplexArray:
        """(3, n_scenario) complex power from the head bus into the network, per phase [VA]."""
        return np.asarray(self._spine_v[:3] * self._edge_a[:3].conj())

    def raise_if_diverged(self) -> None:
        """Raise `DidNotConverge` naming the worst bus of the worst scenario."""
        if self.converged.all():
            return
        worst = int(np.argmax(np.where(self.converged, -1.0, np.nan_to_num(self.mismatch_va, nan=np.inf))))
        network = self.model.network
        where = "input (nan)"
        if np.isfinite(self.mismatch_va[worst]):
            per_unit = np.abs(self.voltage_v[:, worst]) / network.nominal_v[network.node_bus]
            node = network.nodes[int(np.argmax(np.abs(per_unit - 1)))]
            where = f"bus {node[0]} phase {node[1]}, scenario {worst}"
        raise DidNotConverge("load flow", int(self.iterations.max(initial=0)), float(self.mismatch_va[worst]), where)


_KEPT = "_powerflow_model"


def prepare(network: Network) -> PowerFlowModel:
    """Return the load-flow model of a network; the same network gives the same model, which is gone when it is."""
    model: PowerFlowModel | None = vars(network).get(_KEPT)
    if model is None:
        model = vars(network)[_KEPT] = _build(network)
    return model


def powerflow(
    network: Network | PowerFlowModel,
    active_power_w: ArrayLike | None = None,
    reactive_power_var: ArrayLike | None = None,
    *,
    source_voltage_v: ArrayLike | None = None,
    tolerance_va: float = 1e-3,
    max_iterations: int = 100,
    threads: int = 1,
) -> PowerFlowResult:
    """Return the load flow of every scenario.

    Parameters
    ----------
    network : from `compile_network` (or a model from `prepare`)
    active_power_w, reactive_power_var : (n_injection, n_scenario) or (n_injection,) consumption [W], [var], rows as
        `network.injections`; the loads' own default power when left out. With ZIP shares: power at nominal voltage.
    source_voltage_v : (3,) or (3, n_scenario) complex source voltages [V], default the network's
    tolerance_va : largest power mismatch of any load, shunt or loop that counts as solved [VA]
    max_iterations : cap; a scenario that reaches it has `iterations` = -1 and its last state
    threads : blocks of scenarios are shared among them

    Raises
    ------
    MeasurementError
        arrays of the wrong shape.

    Notes
    -----
    I = conj(S/V), V by sweeps over the tree, loops closed by their currents (module `sweep`). A nan in the input gives
    nan in that scenario alone. See docs/methods/powerflow.md.
    """
    model = network if isinstance(network, PowerFlowModel) else prepare(network)
    active, reactive, source = _inputs(model.network, active_power_w, reactive_power_var, source_voltage_v)
    n_scenario, tree = active.shape[1], model.tree
    powers = Powers(active, reactive, ready(source.real), ready(source.imag))
    edge_a = np.empty((3 * tree.n_spine + tree.n_leaf + 2, n_scenario), complex)
    edge_a[-2:] = 0.0  # `expand` reads three rows from every leaf on
    flow = Flow(
        spine_v=np.empty((3 * tree.n_spine, n_scenario), complex),
        spine_j=edge_a[: 3 * tree.n_spine],
        leaf_i=edge_a[3 * tree.n_spine : 3 * tree.n_spine + tree.n_leaf],
        loop_i=np.empty((3 * len(model.network.loops), n_scenario), complex),
        iterations=np.empty(n_scenario, np.int64),
        mismatch_va=np.empty(n_scenario),
    )
    node_v = np.empty((len(model.network.nodes), n_scenario), complex)

    def run(first: int, last: int) -> None:
        w = work_array(work_size(model.sweep))
        solve_blocks(first, last, w, model.sweep, powers, tolerance_va, max_iterations, flow)
        expand(
            first * LANES, last * LANES, model.node_spine, model.node_edge, model.node_x, flow.spine_v, edge_a, node_v
        )

    share_blocks(run, block_count(n_scenario), threads)
    return PowerFlowResult(
        model=model,
        voltage_v=node_v,
        loop_a=flow.loop_i,
        iterations=flow.iterations,
        mismatch_va=flow.mismatch_va,
        _spine_v=flow.spine_v,
        _edge_a=edge_a,
        _threads=threads,
    )


def share_blocks(run: Callable[[int, int], None], n_block: int, threads: int) -> None:
    """Call `run(first, last)` over all blocks, in pieces on several threads if asked (kernels release the GIL)."""
    if threads <= 1 or n_block <= 1:
        run(0, n_block)
        return
    edges = np.linspace(0, n_block, min(4 * threads, n_block) + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(run, int(a), int(b)) for a, b in pairwise(edges)]:
            future.result()


def _inputs(
    network: Network, active: ArrayLike | None, reactive: ArrayLike | None, source: ArrayLike | None
) -> tuple[FloatArray, FloatArray, ComplexArray]:
    p = np.asarray(network.power_w if active is None else active, float)
    q = np.asarray(network.power_var if reactive is None else reactive, float)
    v = np.asarray(network.source_v if source is None else source, complex)
    p, q, v = (array[:, None] if array.ndim == 1 else array for array in (p, q, v))
    n = len(network.injections)
    n_scenario = max(p.shape[-1], q.shape[-1], v.shape[-1])
    shapes = (("active_power_w", p, n), ("reactive_power_var", q, n), ("source_voltage_v", v, 3))
    findings = [
        Finding("load flow", (), name, f"shape {array.shape}, expected ({rows}, {n_scenario}) or ({rows},)")
        for name, array, rows in shapes
        if array.ndim != 2 or array.shape[0] != rows or array.shape[1] not in (1, n_scenario)
    ]
    if findings:
        raise MeasurementError(findings, network.name)
    p, q = (ready(a if a.shape[1] == n_scenario else np.broadcast_to(a, (n, n_scenario))) for a in (p, q))
    return p, q, np.broadcast_to(v, (3, n_scenario))


def _build(network: Network, tree: Tree | None = None) -> PowerFlowModel:
    tree = tree or reduce_network(network)
    rows = tree.leaf_injection
    plain = (network.zip[rows, 2] == 1) & (network.v_min_pu[rows] <= 0) & (network.v_max_pu[rows] >= 10)
    limits = (network.load_v[rows], network.v_min_pu[rows], network.v_max_pu[rows], ~plain)
    load_model = np.column_stack([network.zip[rows], *limits]).astype(float)
    loop_from, loop_to, loop_transfer, loop_impedance = loop_arrays(tree)
    source_impedance = real_form(network.source_impedance)
    sweep = SweepModel(
        parent=tree.parent,
        impedance=tree.impedance,
        transfer=tree.transfer,
        has_transfer=tree.has_transfer,
        shunt=tree.shunt,
        has_shunt=tree.has_shunt,
        first_leaf=tree.first_leaf,
        leaf_plus=tree.leaf_plus,
        leaf_minus=tree.leaf_minus,
        leaf_z=tree.leaf_z,
        leaf_injection=tree.leaf_injection,
        load_model=load_model,
        loop_from=loop_from,
        loop_to=loop_to,
        loop_transfer=loop_transfer,
        loop_impedance=loop_impedance,
        loop_inverse=inverse_loop_impedance(tree, source_impedance),
        source_impedance=source_impedance,
    )
    return PowerFlowModel(network, tree, sweep, *node_map(tree))


def node_map(tree: Tree) -> tuple[IntArray, IntArray, FloatArray]:
    """Return for every node its spine row, its first edge row (-1 none), and the impedances of the drop [ohm]."""
    network = tree.network
    bus, phase = network.node_bus, network.node_phase
    edge = tree.bus_edge[bus]
    is_leaf = edge >= tree.n_spine
    edge_row = np.where(is_leaf, 2 * tree.n_spine + edge, 3 * edge)
    edge_row[edge < 0] = -1
    x = tree.bus_x[bus, phase]
    return 3 * tree.bus_spine[bus] + phase, edge_row, np.ascontiguousarray(np.stack([x.real, x.imag], axis=-1))
