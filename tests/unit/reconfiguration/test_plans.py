"""Sequences, day-ahead plans and restoration: every intermediate state within limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexmeter.errors import DidNotConverge, GridError, NotRadial
from flexmeter.reconfiguration import (
    Budget,
    Constraints,
    FeederNetwork,
    meshed_flow,
    plan_day,
    plan_sequence,
    restore,
    search,
    tree_losses,
)
from flexmeter.reconfiguration.network import merge

from .networks import random_network
from .newton import newton_flow


def replay(network: FeederNetwork, operations) -> list[np.ndarray]:
    """States after each operation."""
    closed, states = network.closed.copy(), []
    position = {name: i for i, name in enumerate(network.branch_ids)}
    for action, branch in operations:
        assert closed[position[branch]] == (action == "open")
        closed[position[branch]] = action == "close"
        states.append(closed.copy())
    return states


@pytest.mark.parametrize("case", ["baran33", "das70", "zhang118"])
def test_sequence_leads_there_make_before_break(case, request) -> None:
    network: FeederNetwork = request.getfixturevalue(case)
    target = search(network).closed
    plan = plan_sequence(network, target)
    states = replay(network, [(step.action, step.branch) for step in plan.steps])
    assert plan.accepted
    assert (states[-1] == target).all()
    for state, step in zip(states, plan.steps, strict=True):
        group, looped = merge(network, state)
        assert (group == group[0]).all()
        assert len(looped) == (step.action == "close")


def test_intermediate_states_equal_newton(baran33: FeederNetwork) -> None:
    plan = plan_sequence(baran33, search(baran33).closed)
    states = replay(baran33, [(step.action, step.branch) for step in plan.steps])
    for state, step in zip(states, plan.steps, strict=True):
        losses_w, voltage = newton_flow(baran33, state)
        assert step.losses_w == pytest.approx(losses_w, rel=1e-6)
        assert step.v_min_pu == pytest.approx(voltage.min(), abs=1e-7)


def test_a_loop_current_above_the_rating_refuses_the_plan(ring: FeederNetwork, day) -> None:
    noon = ring.with_power(day.p_w[700], day.q_var[700])
    target = noon.closed_vector(["line_5"])
    plan = plan_sequence(noon, target)
    assert plan.accepted
    weak = noon.with_closed(noon.closed)
    rated = np.full(13, np.nan)
    rated[6] = plan.steps[0].loop_current_a * 0.9
    object.__setattr__(weak, "rated_current_a", rated)
    refused = plan_sequence(weak, target)
    assert not refused.accepted
    assert "breaks a limit" in refused.reason


def test_sequence_needs_radial_ends(baran33: FeederNetwork) -> None:
    with pytest.raises(NotRadial):
        plan_sequence(baran33, np.ones(37, dtype=bool))


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_accepted_sequences_of_random_networks_keep_the_limits(seed: int) -> None:
    network = random_network(seed)
    limits = Constraints(v_min_pu=0.9)
    plan = plan_sequence(network, search(network, None, limits, Budget(rounds=1)).closed, limits)
    start = meshed_flow(network, network.closed)
    if not plan.accepted or np.nanmin(np.abs(start.voltage_pu)) < 0.9:
        return
    loading = np.abs(start.current_a) / network.rated_current_a
    for state in replay(network, [(step.action, step.branch) for step in plan.steps]):
        flow = meshed_flow(network, state)
        assert np.abs(flow.voltage_pu).min() >= 0.9 - 1e-9
        over = np.maximum(np.abs(flow.current_a) / network.rated_current_a - 1, 0).sum()
        assert over <= np.maximum(loading - 1, 0).sum() + 1e-6


@pytest.fixture(scope="module")
def forecast(baran33: FeederNetwork) -> tuple[np.ndarray, np.ndarray]:
    """Eight periods in which the weight moves between the ends of the network."""
    rng = np.random.default_rng(4)
    factor = 0.4 + 0.6 * np.sin(np.linspace(0.0, np.pi, 8))[:, None] * rng.uniform(0.3, 1.7, (8, 33))
    return baran33.p_w * factor, baran33.q_var * factor


def test_day_plan_is_never_above_its_baselines(baran33: FeederNetwork, forecast) -> None:
    before = None
    for price in (0.0, 1.0, 5.0, 1e4):
        plan = plan_day(baran33, *forecast, hours=3.0, operation_cost_kwh=price)
        moved = (plan.fixed_closed != baran33.closed).sum()
        assert plan.cost_kwh <= plan.fixed_kwh + moved * price + 1e-9
        assert plan.cost_kwh <= plan.current_kwh + 1e-9
        assert plan.cost_kwh == pytest.approx(plan.losses_kwh + plan.operations * price)
        energy = sum(
            tree_losses(baran33, state, p, q)[0, 0] * 3 / 1e3
            for state, p, q in zip(plan.closed, *forecast, strict=True)
        )
        assert plan.losses_kwh == pytest.approx(energy)
        assert before is None or plan.operations <= before
        before = plan.operations
    assert before == 0


def test_a_free_plan_takes_the_best_tree_of_every_period(baran33: FeederNetwork, forecast) -> None:
    plan = plan_day(baran33, *forecast, hours=1.0, operation_cost_kwh=0.0)
    best = sum(search(baran33.with_power(p, q)).losses_w for p, q in zip(*forecast, strict=True)) / 1e3
    assert plan.losses_kwh == pytest.approx(best, rel=1e-6)


def test_restoration_of_one_section_takes_one_operation(baran33: FeederNetwork) -> None:
    plan = restore(baran33, ["22"])
    assert plan.lost_w == pytest.approx(930e3)  # buses 23, 24, 25
    assert plan.unserved_w == 0
    assert plan.operations == (("close", "37"),)


def test_restoration_moves_load_when_the_voltage_would_break(baran33: FeederNetwork) -> None:
    plan = restore(baran33, ["22"], constraints=Constraints(v_min_pu=0.9))
    assert plan.unserved_w == 0
    assert len(plan.operations) > 1
    assert np.nanmin(np.abs(meshed_flow(baran33, plan.closed).voltage_pu)) >= 0.9


def test_what_cannot_be_reached_is_said(baran33: FeederNetwork) -> None:
    plan = restore(baran33, ["1"])
    assert plan.operations == ()
    assert len(plan.unreachable_buses) == 32
    assert plan.restored_w == 0


def test_loss_of_a_substation_is_taken_over_by_the_other(das70: FeederNetwork) -> None:
    plan = restore(das70, lost_buses=["70"], constraints=Constraints(v_min_pu=0.8))
    assert plan.lost_w > 3e6
    assert plan.restored_w > 0.3 * plan.lost_w
    assert plan.restored_w + plan.unserved_w == pytest.approx(plan.lost_w)


def test_unknown_elements_are_named(baran33: FeederNetwork) -> None:
    with pytest.raises(GridError, match="nonsense"):
        restore(baran33, ["nonsense"])
    with pytest.raises(DidNotConverge):
        restore(baran33.with_power(baran33.p_w * 20, baran33.q_var * 20), ["32"])
