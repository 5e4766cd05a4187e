"""When to switch: the paper's threshold and hold time, as a pure step in event time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from flexmeter.errors import InputError

Reason = Literal["act", "holding", "same tree", "below threshold", "late"]


@dataclass(frozen=True)
class Trigger:
    """Threshold eps_L [percent] and hold time eps_t [intervals] of the paper (section 5; 5 % and 5 minutes in 6)."""

    threshold_percent: float = 5.0
    hold_intervals: int = 5

    def __post_init__(self) -> None:
        if not self.threshold_percent >= 0:
            raise InputError(f"threshold_percent is {self.threshold_percent}, expected 0 or more")
        if self.hold_intervals < 1:
            raise InputError(f"hold_intervals is {self.hold_intervals}, expected 1 or more")


@dataclass(frozen=True)
class HoldState:
    """What must outlive a restart: the tree in force, the candidate, how long it has held, the last interval seen.

    `current` and `candidate` are sorted names of the open branches; `interval` is a running number, -1 = none yet.
    """

    current: tuple[str, ...] = ()
    candidate: tuple[str, ...] = ()
    held: int = 0
    interval: int = -1

    def to_dict(self) -> dict[str, int | list[str]]:
        """Return plain values for JSON."""
        fields = asdict(self)
        return {**fields, "current": list(self.current), "candidate": list(self.candidate)}

    @classmethod
    def from_dict(cls, values: dict[str, int | list[str]]) -> HoldState:
        """Read what `to_dict` wrote; a missing or unknown field raises `InputError`."""
        match values:
            case {"current": list(current), "candidate": list(candidate), "held": int(held), "interval": int(interval)}:
                return cls(tuple(current), tuple(candidate), held, interval)
        raise InputError(f"hold state has fields {sorted(values)}, expected current, candidate, held, interval")


@dataclass(frozen=True)
class Decision:
    """Outcome of one interval; with `act` the new tree `open_branches` holds from the next interval on."""

    act: bool
    reason: Reason
    gain_percent: float
    held: int
    open_branches: tuple[str, ...]


def gain_percent(current_losses_w: float, candidate_losses_w: float) -> float:
    """Return the reduction of losses in percent of the current ones, equation 7 of the paper (0 without losses).

    A current state without solution (infinite losses) against one with a solution is a gain of 100 %.
    """
    if candidate_losses_w == float("inf") or current_losses_w <= 0:
        return 0.0
    if current_losses_w == float("inf"):
        return 100.0
    return (current_losses_w - candidate_losses_w) / current_losses_w * 100.0


def step(
    trigger: Trigger,
    state: HoldState,
    interval: int,
    *,
    current_open: Sequence[str],
    candidate_open: Sequence[str],
    gain: float,
) -> tuple[HoldState, Decision]:
    """Advance the rule by one interval.

    The same candidate must beat the tree in force by more than the threshold in `hold_intervals` consecutive
    intervals; it then acts from the next interval on. A gap in the intervals, another candidate, another tree in
    force or a gain below the threshold starts the count again. An interval that is not newer changes nothing.

    Parameters
    ----------
    interval : running number of the interval (event time), for instance the minute
    current_open, candidate_open : names of the open branches of the tree in force and of the candidate
    gain : reduction of losses [percent], see `gain_percent`
    """
    current, candidate = tuple(sorted(current_open)), tuple(sorted(candidate_open))
    if interval <= state.interval:
        return state, Decision(False, "late", gain, state.held, current)
    idle = HoldState(current, (), 0, interval)
    if candidate == current:
        return idle, Decision(False, "same tree", gain, 0, current)
    if not gain > trigger.threshold_percent:
        return idle, Decision(False, "below threshold", gain, 0, current)
    consecutive = interval == state.interval + 1 and candidate == state.candidate and current == state.current
    held = state.held + 1 if consecutive else 1
    if held >= trigger.hold_intervals:
        return HoldState(candidate, (), 0, interval), Decision(True, "act", gain, held, candidate)
    return HoldState(current, candidate, held, interval), Decision(False, "holding", gain, held, current)
