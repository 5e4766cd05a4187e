"""The paper's method: Kruskal's spanning tree on the normalised currents of the meshed load flow."""

from __future__ import annotations

import numpy as np

from flexmeter.errors import DidNotConverge
from flexmeter.reconfiguration.mesh import branch_currents, mesh_flow
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, FloatArray
from flexmeter.reconfiguration.sweep import MAX_SWEEPS


def greedy_weights(network: FeederNetwork, *, resistive: bool = False) -> FloatArray:
    """Weights of the branches, w = 1 - |I| / max |I| of the meshed load flow, (m,).

    Source: equations 5 and 6 of the paper. With `resistive` the currents are those of least losses (reactances
    zero, load currents at nominal voltage). Without any current all weights are 1.

    Raises
    ------
    DidNotConverge
        The meshed network cannot supply the loads.
    """
    mesh = mesh_flow(network.feeder, network.closable, *network.s_pu, resistive)
    if mesh.fed < 0:
        raise DidNotConverge(f"{network.name}: meshed load flow", MAX_SWEEPS, float("nan"), "all branches closed")
    pu = np.abs(branch_currents(network.feeder, mesh))
    current = pu / network.nominal_voltage_v[network.to_bus]
    largest = current.max()
    return np.asarray(1.0 - current / largest if largest > 0 else np.ones(current.size))


def spanning_tree(network: FeederNetwork, weights: FloatArray) -> BoolArray:
    """Radial state of least total weight (Kruskal), (m,).

    Branches that cannot be operated keep their status. Equal weights: a closed branch stays closed, then file order.
    """
    rank = np.lexsort((np.arange(network.branch_count), ~network.closed, weights, network.switchable))
    group = list(range(network.bus_count))

    def find(bus: int) -> int:
        while group[bus] != bus:
            group[bus] = group[group[bus]]
            bus = group[bus]
        return bus

    root = int(network.slack_buses[0])
    for slack in network.slack_buses[1:].tolist():
        group[slack] = root
    closed = np.zeros(network.branch_count, dtype=np.bool_)
    starts, ends, closable = network.from_bus.tolist(), network.to_bus.tolist(), network.closable.tolist()
    for branch in rank.tolist():
        start, end = find(starts[branch]), find(ends[branch])
        if closable[branch] and start != end:
            group[end] = start
            closed[branch] = True
    return closed


def greedy_tree(network: FeederNetwork, *, resistive: bool = False) -> BoolArray:
    """Radial state proposed by the paper's method, (m,): the spanning tree that keeps the largest currents.

    Source: section 5 of the paper, equations 4 to 6. The result is not the optimum: on published networks its
    losses are 0 to 14 % above (docs/methods/reconfiguration.md).

    Raises
    ------
    DidNotConverge
        The meshed network cannot supply the loads.
    """
    return spanning_tree(network, greedy_weights(network, resistive=resistive))
