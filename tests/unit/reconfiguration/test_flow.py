"""Load flow of the search against pandapower's Newton and against its own balance."""

from __future__ import annotations

import numpy as np
import pytest

from flexmeter.errors import DidNotConverge, NotRadial
from flexmeter.reconfiguration import (
    FeederNetwork,
    build_network,
    meshed_flow,
    radial_flow,
    spanning_trees,
    tree_losses,
)

from .newton import newton_flow


@pytest.mark.parametrize("case", ["baran33", "das70", "tpc84", "zhang118", "ring"])
def test_initial_state_equals_newton(case, request) -> None:
    network: FeederNetwork = request.getfixturevalue(case)
    flow = radial_flow(network.with_power(network.p_w + 1e4, network.q_var))
    losses_w, voltage = newton_flow(network.with_power(network.p_w + 1e4, network.q_var), network.closed)
    assert flow.losses_w == pytest.approx(losses_w, rel=1e-6)
    np.testing.assert_allclose(np.abs(flow.voltage_pu), voltage, atol=1e-8)


@pytest.mark.parametrize("case", ["baran33", "das70", "tpc84", "zhang118"])
def test_meshed_state_equals_newton(case, request) -> None:
    network: FeederNetwork = request.getfixturevalue(case)
    flow = meshed_flow(network)
    losses_w, voltage = newton_flow(network, network.closable)
    assert flow.losses_w == pytest.approx(losses_w, rel=1e-6)
    np.testing.assert_allclose(np.abs(flow.voltage_pu), voltage, atol=1e-8)


def test_transformer_ratio_charging_and_shunts_equal_newton(detailed: FeederNetwork) -> None:
    for closed in (detailed.closed, detailed.closable):
        flow = meshed_flow(detailed, closed)
        losses_w, voltage = newton_flow(detailed, closed)
        np.testing.assert_allclose(np.abs(flow.voltage_pu), voltage, atol=1e-8)
        assert flow.losses_w == pytest.approx(losses_w, rel=1e-6)


def test_substation_power_is_load_plus_losses(das70: FeederNetwork) -> None:
    flow = radial_flow(das70)
    assert flow.substation_power_va.real.sum() == pytest.approx(das70.p_w.sum() + flow.losses_w, rel=1e-9)
    assert (flow.substation_power_va.real > 0).all()


def test_a_state_that_cannot_be_supplied_has_infinite_losses(baran33: FeederNetwork) -> None:
    heavy = baran33.with_power(baran33.p_w * 6, baran33.q_var * 6)
    assert np.isinf(tree_losses(heavy, heavy.closed, heavy.p_w, heavy.q_var)).all()
    with pytest.raises(DidNotConverge, match="bus"):
        radial_flow(heavy)


def test_some_trees_of_the_33_bus_network_have_no_solution(baran33: FeederNetwork) -> None:
    """A diverging sweep must never look like a cheap tree (1643.915 kW was once reported so)."""
    losses_w = tree_losses(baran33, spanning_trees(baran33), baran33.p_w, baran33.q_var)[:, 0]
    assert np.isinf(losses_w).any()
    assert losses_w.min() == pytest.approx(139551.347, abs=0.5)


def test_loops_and_islands_are_named(baran33: FeederNetwork) -> None:
    looped, split = baran33.closed.copy(), baran33.closed.copy()
    looped[34] = True
    split[17] = False
    with pytest.raises(NotRadial, match=r"loop.*35"):
        radial_flow(baran33, looped)
    with pytest.raises(NotRadial, match=r"1 buses without supply: 19|without supply"):
        radial_flow(baran33, split)
    assert np.isinf(tree_losses(baran33, [looped, split], baran33.p_w, baran33.q_var)).all()


def test_parallel_lines_without_impedance_share_the_current() -> None:
    network = build_network(
        bus_ids=["s", "a"],
        branch_ids=["one", "two"],
        from_bus=["s", "s"],
        to_bus=["a", "a"],
        r_ohm=0.0,
        x_ohm=0.0,
        nominal_voltage_v=10e3,
        slack_buses=["s"],
        p_w=[0.0, 1e6],
        closed=[True, False],
    )
    current = np.abs(meshed_flow(network).current_a)
    assert current[0] == pytest.approx(current[1])
    assert radial_flow(network).losses_w == 0.0
