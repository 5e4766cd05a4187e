"""What the reconfiguration service does with a proposal: advise, wait for approval, or switch; pure and restartable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import msgspec

from flexmeter.errors import InputError
from flexmeter.reconfiguration.figures import Figures
from flexmeter.reconfiguration.trigger import HoldState, Trigger, step

Mode = Literal["advise", "approve", "automatic"]
Status = Literal["proposed", "approved", "rejected", "executed", "superseded", "expired", "advised"]


@dataclass(frozen=True)
class Evidence:
    """Why a tree is proposed: figures at the interval of the decision, in the units of their names.

    Attributes
    ----------
    probability : P(gain > 0), `sigma_percent` the standard deviation of the gain
    risk_now, risk_then : P(some limit is broken) in the tree in force and in the proposed one
    balanced, three_phase : figures (now, then) by both load flows; none without solution
    operations : (close or open, branch) in the order that keeps everybody supplied
    refusal : why the tree must not be put in force, or nothing
    """

    interval: int
    losses_now_w: float
    losses_then_w: float
    gain_percent: float
    sigma_percent: float | None = None
    probability: float | None = None
    operations: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    risk_now: float | None = None
    risk_then: float | None = None
    balanced: tuple[Figures | None, Figures | None] | None = None
    three_phase: tuple[Figures | None, Figures | None] | None = None


@dataclass(frozen=True)
class Recommendation:
    """A proposed tree with its evidence; `number` counts up over the life of the service."""

    number: int
    status: Status
    current: tuple[str, ...]
    proposed: tuple[str, ...]
    topology_version: int
    evidence: Evidence


@dataclass(frozen=True)
class PolicyState:
    """All that must outlive a restart: hold state, recommendations that are still open, the next number."""

    hold: HoldState = field(default_factory=HoldState)
    recommendation: Recommendation | None = None
    next_number: int = 1

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        chosen = asdict(self.recommendation) if self.recommendation else None
        return {"hold": self.hold.to_dict(), "recommendation": chosen, "next_number": self.next_number}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> PolicyState:
        """Read what `to_dict` wrote, also after JSON; raises `InputError` when fields are missing."""
        try:
            hold, chosen, number = values["hold"], values["recommendation"], values["next_number"]
        except KeyError as missing:
            raise InputError(f"policy state: field {missing} is missing") from None
        if not isinstance(hold, dict) or not isinstance(number, int):
            raise InputError("policy state: hold must be an object and next_number an integer")
        recommendation = None if chosen is None else _read_recommendation(chosen)
        return cls(HoldState.from_dict(hold), recommendation, number)


@dataclass(frozen=True)
class Action:
    """What the service has to do now: nothing, publish a recommendation, or switch (and publish it)."""

    kind: Literal["none", "publish", "switch"]
    recommendation: Recommendation | None
    reason: str


@dataclass(frozen=True)
class Policy:
    """Mode, the paper's threshold and hold time, and how long an approval may be acted upon [intervals]."""

    mode: Mode = "advise"
    trigger: Trigger = field(default_factory=Trigger)
    approval_valid_intervals: int = 60

    def __post_init__(self) -> None:
        if self.mode not in {"advise", "approve", "automatic"}:
            raise InputError(f"policy mode is {self.mode!r}, expected advise, approve or automatic")

    def observe(
        self,
        state: PolicyState,
        interval: int,
        *,
        current_open: Sequence[str],
        candidate_open: Sequence[str],
        topology_version: int,
        evidence: Evidence,
    ) -> tuple[PolicyState, Action]:
        """Take in one interval: the tree in force, the candidate and its figures.

        A candidate with `evidence.refusal` counts as no gain. In mode `automatic` a candidate that has held long
        enough is to be switched; in `approve` it becomes a recommendation that waits; in `advise` it is published.
        An open recommendation ends when the tree in force is no longer the one it was made for (superseded) and when
        nobody answered in time (expired); the same tree may then be proposed again.
        """
        current, candidate = tuple(sorted(current_open)), tuple(sorted(candidate_open))
        state = self._expire(_supersede(state, current), interval)
        gain = 0.0 if evidence.refusal else evidence.gain_percent
        hold, decision = step(
            self.trigger, state.hold, interval, current_open=current, candidate_open=candidate, gain=gain
        )
        state = replace(state, hold=hold)
        if not decision.act:
            return state, Action("none", None, evidence.refusal or decision.reason)
        pending = state.recommendation
        if pending and pending.status in {"proposed", "advised", "rejected"} and pending.proposed == candidate:
            return state, Action("none", pending, f"already {pending.status}")
        status: Status = {"advise": "advised", "approve": "proposed", "automatic": "approved"}[self.mode]  # type: ignore[assignment]
        made = Recommendation(state.next_number, status, current, candidate, topology_version, evidence)
        state = replace(state, recommendation=made, next_number=state.next_number + 1)
        return state, Action("switch" if self.mode == "automatic" else "publish", made, "held long enough")

    def _expire(self, state: PolicyState, interval: int) -> PolicyState:
        """Close a recommendation that waits on evidence too old to act upon."""
        waiting = state.recommendation
        if waiting is None or waiting.status != "proposed" or not self._too_old(waiting, interval):
            return state
        return replace(state, recommendation=replace(waiting, status="expired"))

    def _too_old(self, waiting: Recommendation, interval: int) -> bool:
        return interval - waiting.evidence.interval > self.approval_valid_intervals

    def answer(self, state: PolicyState, number: int, interval: int, *, approve: bool) -> tuple[PolicyState, Action]:
        """Approve or reject the waiting recommendation.

        Raises
        ------
        InputError
            There is no such recommendation waiting, or its evidence is older than `approval_valid_intervals`.
        """
        waiting = state.recommendation
        if waiting is None or waiting.number != number or waiting.status != "proposed":
            raise InputError(f"recommendation {number} is not waiting for an answer")
        if self._too_old(waiting, interval):
            raise InputError(f"recommendation {number} is older than {self.approval_valid_intervals} intervals")
        answered = replace(waiting, status="approved" if approve else "rejected")
        state = replace(state, recommendation=answered)
        return state, Action("switch" if approve else "publish", answered, "approved" if approve else "rejected")

    def executed(self, state: PolicyState, number: int) -> PolicyState:
        """Note that the topology service has taken the new vector."""
        done = state.recommendation
        if done is None or done.number != number or done.status != "approved":
            raise InputError(f"recommendation {number} was not approved")
        return replace(state, recommendation=replace(done, status="executed"))


def _supersede(state: PolicyState, current: tuple[str, ...]) -> PolicyState:
    """Close an open recommendation that was made for another tree in force."""
    pending = state.recommendation
    if pending is None or pending.status in {"executed", "superseded", "expired"} or pending.current == current:
        return state
    status: Status = "executed" if pending.status == "approved" and pending.proposed == current else "superseded"
    return replace(state, recommendation=replace(pending, status=status))


def _read_recommendation(values: object) -> Recommendation:
    try:
        return msgspec.convert(values, Recommendation)
    except msgspec.ValidationError as error:
        raise InputError(f"policy state: recommendation: {error}") from None
