from __future__ import annotations

import json

import pytest

from flexmeter.errors import InputError
from flexmeter.reconfiguration import HoldState, Trigger, gain_percent, step

RULE = Trigger(5.0, 3)
OLD, NEW, OTHER = ("a",), ("b",), ("c",)


def play(events):
    state, out = HoldState(), []
    for interval, current, candidate, gain in events:
        state, decision = step(RULE, state, interval, current_open=current, candidate_open=candidate, gain=gain)
        out.append(decision.reason)
    return state, out


def test_acts_in_the_interval_that_completes_the_hold_time() -> None:
    state, reasons = play([(i, OLD, NEW, 6.0) for i in range(3)])
    assert reasons == ["holding", "holding", "act"]
    assert state == HoldState(NEW, (), 0, 2)


@pytest.mark.parametrize(
    "interruption",
    [(2, OLD, OTHER, 6.0), (2, OLD, NEW, 5.0), (2, OLD, OLD, 0.0), (3, OLD, NEW, 6.0), (2, OTHER, NEW, 6.0)],
    ids=["candidate", "threshold", "same", "gap", "tree in force"],
)
def test_any_interruption_starts_the_count_again(interruption) -> None:
    state, reasons = play([(0, OLD, NEW, 6.0), (1, OLD, NEW, 6.0), interruption])
    assert reasons[-1] != "act"
    assert state.held <= 1


def test_late_and_repeated_intervals_change_nothing() -> None:
    state, _ = play([(0, OLD, NEW, 6.0), (1, OLD, NEW, 6.0)])
    for interval in (0, 1):
        again, decision = step(RULE, state, interval, current_open=OLD, candidate_open=NEW, gain=6.0)
        assert again == state
        assert decision.reason == "late"
        assert not decision.act


def test_the_state_survives_a_restart_at_every_interval() -> None:
    straight, restarted = HoldState(), HoldState()
    for interval in range(7):
        straight, expected = step(RULE, straight, interval, current_open=OLD, candidate_open=NEW, gain=6.0)
        restarted, decision = step(RULE, restarted, interval, current_open=OLD, candidate_open=NEW, gain=6.0)
        restarted = HoldState.from_dict(json.loads(json.dumps(restarted.to_dict())))
        assert decision == expected
        assert restarted == straight


def test_a_broken_state_is_named() -> None:
    with pytest.raises(InputError, match="hold state"):
        HoldState.from_dict({"held": 3})


@pytest.mark.parametrize("arguments", [(-1.0, 5), (float("nan"), 5), (5.0, 0)])
def test_settings_are_checked(arguments) -> None:
    with pytest.raises(InputError, match="expected"):
        Trigger(*arguments)


@pytest.mark.parametrize(
    ("now", "then", "percent"),
    [
        (200.0, 150.0, 25.0),
        (100.0, 110.0, -10.0),
        (0.0, 0.0, 0.0),
        (5.0, float("inf"), 0.0),
        (float("inf"), 5.0, 100.0),
    ],
)
def test_gain_is_equation_7(now, then, percent) -> None:
    assert gain_percent(now, then) == pytest.approx(percent)
