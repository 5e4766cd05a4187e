"""The advisor: the paper's rule on the reference ring, switch vectors in the order of the grid's switches."""

import numpy as np
import pytest

from flexmeter.reconfiguration import Trigger, network_from_grid
from flexmeter.reconfiguration.policy import Policy, PolicyState
from flexmeter.scenario.reference_grid import reference_grid
from flexmeter.services.advisor import Advisor

GRID = reference_grid()


@pytest.fixture
def loads() -> tuple[np.ndarray, np.ndarray]:
    feeder = network_from_grid(GRID)
    power = np.zeros(feeder.bus_count)
    power[feeder.bus_ids.index("MV_006")] = 2e6
    power[feeder.bus_ids.index("MV_007")] = 2e6
    return power, 0.3 * power


def test_feeder_is_the_ring_with_the_impedances_of_the_grid() -> None:
    feeder = network_from_grid(GRID)
    assert feeder.bus_ids[0] == "HV_001"
    assert feeder.branch_ids == tuple(f"line_{k}" for k in range(1, 14))
    assert feeder.open_branches == ("line_7",)
    assert feeder.r_ohm[0] == pytest.approx(0.161 * 4.64)
    assert feeder.x_ohm[0] == pytest.approx(0.117 * 4.64)


def test_a_better_tree_is_put_in_force_after_five_intervals_in_a_row(loads: tuple[np.ndarray, np.ndarray]) -> None:
    advisor = Advisor(GRID, Policy("automatic", Trigger(5.0, 5)))
    vectors = [advisor.decide(k, GRID.switch_vector, *loads).wanted for k in range(10, 15)]
    assert vectors[:4] == [GRID.switch_vector] * 4
    opened = [GRID.switches[k].branch for k, closed in enumerate(vectors[4]) if not closed]
    assert len(opened) == 1
    assert opened != ["line_7"]
    assert advisor.losses_w(vectors[4], *loads) < 0.95 * advisor.losses_w(GRID.switch_vector, *loads)


def test_a_gap_in_the_intervals_starts_the_count_again(loads: tuple[np.ndarray, np.ndarray]) -> None:
    advisor = Advisor(GRID)
    for k in (1, 2, 3, 4, 6, 7):
        advice = advisor.decide(k, GRID.switch_vector, *loads)
        assert advice.wanted == GRID.switch_vector
    assert advice.gain_percent > 5
    assert advice.proposed != GRID.switch_vector
    assert sum(advice.proposed) == len(advice.proposed) - 1


def test_approval_is_waited_for_and_survives_a_restart(loads: tuple[np.ndarray, np.ndarray]) -> None:
    policy = Policy("approve", Trigger(5.0, 3))
    advisor = Advisor(GRID, policy)
    sigma = 0.01 * np.concatenate([loads[0], loads[1]])
    for k in (1, 2):
        assert advisor.decide(k, GRID.switch_vector, *loads, sigma=sigma).action.kind == "none"
    again = Advisor(GRID, policy, state=PolicyState.from_dict(advisor.state.to_dict()))
    advice = again.decide(3, GRID.switch_vector, *loads, sigma=sigma, version=7)
    assert advice.action.kind == "publish"
    made = advice.action.recommendation
    assert made is not None
    assert (made.status, made.topology_version) == ("proposed", 7)
    assert made.evidence.probability is not None
    assert made.evidence.probability > 0.999
    assert [action for action, _ in made.evidence.operations] == ["close", "open"]
    once_more = Advisor(GRID, policy, state=PolicyState.from_dict(again.state.to_dict()))
    action = once_more.answer(made.number, 5, approve=True)
    assert action.kind == "switch"
    assert once_more.vector(made.proposed) == advice.proposed


def test_the_search_is_never_worse_than_the_greedy_tree(loads: tuple[np.ndarray, np.ndarray]) -> None:
    greedy, engine = Advisor(GRID), Advisor(GRID, method="search")
    for factor in (0.2, 0.5, 1.0):
        power = factor * loads[0], factor * loads[1]
        one = greedy.decide(1, GRID.switch_vector, *power).proposed
        other = engine.decide(1, GRID.switch_vector, *power).proposed
        assert engine.losses_w(other, *power) <= greedy.losses_w(one, *power) * (1 + 1e-9)
