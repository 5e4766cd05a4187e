"""Compile the kernels once, on a ring of three buses."""

from __future__ import annotations

from flexmeter.reconfiguration.bounds import prove
from flexmeter.reconfiguration.flow import meshed_losses
from flexmeter.reconfiguration.greedy import greedy_tree
from flexmeter.reconfiguration.network import FeederNetwork, build_network
from flexmeter.reconfiguration.search import Budget, search
from flexmeter.reconfiguration.sensitivity import loss_gradient
from flexmeter.reconfiguration.trees import best_tree


def warm() -> None:
    """Run every kernel on a tiny network, so that the compiled code is in the cache."""
    ring = tiny_ring()
    greedy_tree(ring)
    meshed_losses(ring, ring.p_w, ring.q_var)
    best_tree(ring, ring.p_w, ring.q_var)
    search(ring, budget=Budget(rounds=1))
    loss_gradient(ring, ring.closed)
    for _ in prove(ring, ring.closed, 1.0, clock=lambda: 0.0, enumeration_limit=1):
        pass


def tiny_ring() -> FeederNetwork:
    """Return a substation and two loads in a ring."""
    return build_network(
        bus_ids=["s", "a", "b"],
        branch_ids=["sa", "ab", "bs"],
        from_bus=["s", "a", "b"],
        to_bus=["a", "b", "s"],
        r_ohm=1.0,
        x_ohm=1.0,
        nominal_voltage_v=10e3,
        slack_buses=["s"],
        p_w=[0.0, 1e5, 2e5],
        q_var=[0.0, 1e4, 2e4],
        closed=[True, True, False],
    )
