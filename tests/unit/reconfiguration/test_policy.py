from __future__ import annotations

import json

import pytest

from flexmeter.errors import InputError
from flexmeter.reconfiguration import Evidence, Policy, PolicyState, Trigger

OLD, NEW = ("a",), ("b",)


def evidence(interval: int, gain: float = 10.0, refusal: str = "") -> Evidence:
    return Evidence(interval, 1000.0, 900.0, gain, 1.0, 0.99, (("close", "a"), ("open", "b")), refusal)


def run(policy: Policy, intervals: range, state: PolicyState | None = None, *, restart: bool = False, current=OLD):
    state = state or PolicyState()
    actions = []
    for interval in intervals:
        state, action = policy.observe(
            state,
            interval,
            current_open=current,
            candidate_open=NEW,
            topology_version=4,
            evidence=evidence(interval),
        )
        actions.append(action)
        if restart:
            state = PolicyState.from_dict(json.loads(json.dumps(state.to_dict())))
    return state, actions


def test_automatic_switches_after_the_hold_time() -> None:
    state, actions = run(Policy("automatic", Trigger(5.0, 3)), range(3))
    assert [action.kind for action in actions] == ["none", "none", "switch"]
    assert state.recommendation is not None
    assert state.recommendation.status == "approved"
    done = Policy("automatic").executed(state, 1)
    assert done.recommendation is not None
    assert done.recommendation.status == "executed"


def test_advice_is_published_once() -> None:
    _, actions = run(Policy("advise", Trigger(5.0, 3)), range(9))
    assert [action.kind for action in actions].count("publish") == 1
    assert "switch" not in {action.kind for action in actions}


def test_approval_then_switch() -> None:
    policy = Policy("approve", Trigger(5.0, 2), approval_valid_intervals=10)
    state, actions = run(policy, range(2))
    assert actions[-1].kind == "publish"
    with pytest.raises(InputError, match="was not approved"):
        policy.executed(state, 1)
    answered, action = policy.answer(state, 1, 5, approve=True)
    assert action.kind == "switch"
    with pytest.raises(InputError, match="not waiting"):
        policy.answer(answered, 1, 5, approve=True)
    with pytest.raises(InputError, match="older"):
        policy.answer(state, 1, 50, approve=True)


def test_a_rejected_tree_is_not_proposed_again() -> None:
    policy = Policy("approve", Trigger(5.0, 2))
    state, _ = run(policy, range(2))
    state, action = policy.answer(state, 1, 2, approve=False)
    assert action.kind == "publish"
    _, actions = run(policy, range(2, 9), state)
    assert {action.kind for action in actions} == {"none"}


def test_another_tree_in_force_supersedes() -> None:
    policy = Policy("approve", Trigger(5.0, 2))
    state, _ = run(policy, range(2))
    state, _ = run(policy, range(2, 3), state, current=("c",))
    assert state.recommendation is not None
    assert state.recommendation.status == "superseded"
    with pytest.raises(InputError):
        policy.answer(state, 1, 3, approve=True)


def test_a_restart_at_every_interval_changes_nothing() -> None:
    for mode in ("advise", "approve", "automatic"):
        policy = Policy(mode, Trigger(5.0, 3))  # type: ignore[arg-type]
        assert run(policy, range(8), restart=True) == run(policy, range(8))


def test_a_refusal_restarts_the_hold_time() -> None:
    policy = Policy("automatic", Trigger(5.0, 2))
    state, _ = run(policy, range(1))
    state, action = policy.observe(
        state,
        1,
        current_open=OLD,
        candidate_open=NEW,
        topology_version=1,
        evidence=evidence(1, refusal="P(gain > 0) 0.6 is below 0.9"),
    )
    assert action.kind == "none"
    assert "P(gain" in action.reason
    assert state.hold.held == 0


@pytest.mark.parametrize("broken", [{}, {"hold": 1, "recommendation": None, "next_number": 1}])
def test_a_broken_state_is_named(broken) -> None:
    with pytest.raises(InputError, match="policy state"):
        PolicyState.from_dict(broken)


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(InputError, match="advise"):
        Policy("sometimes")  # type: ignore[arg-type]
