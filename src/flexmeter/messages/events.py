"""Events: what a service tells about its own work on its event topic, one JSON object each."""

from __future__ import annotations

import msgspec

from flexmeter.errors import MessageError
from flexmeter.messages.notices import Gap, Notice


class Decision(Notice, frozen=True, tag="decision", tag_field="kind"):
    """What the reconfiguration concluded from one MV estimate, also when it left the topology alone.

    Attributes
    ----------
    grid, topology : the grid and the version of its switch vector after the decision.
    time_ms : [ms UTC] the instant of the estimate.
    proposed : switch vector of the best tree found.
    gain_percent : loss reduction of the proposed tree against the current one (paper equation 7).
    held : for how many intervals in a row the same proposal has passed the threshold.
    changed : whether the switch vector was changed.
    reason : why it was or was not, e.g. which limit the proposal breaks on which phase.
    """

    grid: str
    topology: int
    time_ms: int
    proposed: tuple[bool, ...]
    gain_percent: float
    held: int
    changed: bool
    reason: str = ""


class StateFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A switch vector under the estimated loads: losses, voltages, largest loading, broken limits and the worst place.

    `violation` adds up volts [pu] outside the band and relative overloads, 0 = within limits.
    """

    losses_w: float
    v_min_pu: float
    v_max_pu: float
    loading: float
    violation: float
    worst: str = ""


Comparison = tuple[StateFigures | None, StateFigures | None]


class Recommendation(Notice, frozen=True, tag="recommendation", tag_field="kind"):
    """A proposed topology with its evidence, and what has become of it.

    Attributes
    ----------
    grid, topology : the grid and the version of the switch vector it was made for.
    time_ms : [ms UTC] the instant of the estimate.
    number : counts up over the life of the service; an approval names it.
    status : advised, proposed (waits for approval), approved, rejected, executed.
    current, proposed : open branches now and then.
    losses_now_w, losses_then_w, gain_percent : of the estimate (paper equation 7).
    sigma_percent, probability : standard deviation of the gain and P(gain > 0) from the estimate's uncertainty.
    operations : (close or open, branch) in the order that keeps everybody supplied.
    risk_now, risk_then : P(some limit is broken) of both trees, from the same uncertainty.
    balanced, three_phase : figures of both trees (now, then) by the balanced and the unbalanced load flow; null for
        a tree without solution.
    """

    grid: str
    topology: int
    time_ms: int
    number: int
    status: str
    current: tuple[str, ...]
    proposed: tuple[str, ...]
    losses_now_w: float
    losses_then_w: float
    gain_percent: float
    sigma_percent: float | None
    probability: float | None
    operations: tuple[tuple[str, str], ...]
    risk_now: float | None = None
    risk_then: float | None = None
    balanced: Comparison | None = None
    three_phase: Comparison | None = None


class Timing(Notice, frozen=True, tag="timing", tag_field="kind"):
    """How long a service worked on the messages of one instant, each from decoding to the answer's bytes.

    Attributes
    ----------
    level : of the estimates: concentrator, lv, mv.
    time_ms : [ms UTC] the instant, in event time.
    elapsed_ms : [ms] one per estimate.
    began_ms : [ms UTC] when the work began, by the clock of the service.
    published : readings and estimates of this run so far.
    """

    level: str
    time_ms: int
    elapsed_ms: tuple[float, ...]
    began_ms: float = 0.0
    published: int = 0


class GapEvent(Notice, frozen=True, tag="gap", tag_field="kind"):
    """A device's own record of batches it had to drop."""

    gap: Gap


Event = Decision | Recommendation | Timing | GapEvent
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """Return the JSON bytes of an event."""
    return msgspec.json.encode(event)


def decode_event(payload: bytes) -> Event:
    """Return the event in a payload; raise `MessageError` if it is none."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise MessageError(f"event: {error}") from error
