"""Small messages about grids, devices and messages: topology alerts, rejections, gaps, states, rosters."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from flexmeter.messages.quantities import Phase, QuantityName

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
ElementName = Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{1,64}$")]
Reason = Literal[
    "too_large",
    "format",
    "topic",
    "source",
    "range",
    "time",
    "roster",
    "empty",
    "quota",
    "permission",
]


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every small message carries: the version of the data format."""

    version: Literal[1] = 1


class TopologyAlert(Notice, frozen=True):
    """The switch vector of a grid changed; `switches` in the order of the grid's switches."""

    grid: Name
    topology: Annotated[int, Meta(ge=0)]
    switches: tuple[bool, ...]
    time_ms: int


class Rejection(Notice, frozen=True):
    """Why a message was refused; published on the device's error topic."""

    reason: Reason
    detail: str
    topic: str
    time_ms: int
    source: str = ""
    boot: int | None = None
    seq: int | None = None
    bytes: int = 0


class Gap(Notice, frozen=True):
    """Batches that a device had to drop (its outbox was full or too old), counted by the device itself."""

    source: Name
    boot: int
    first_seq: int
    last_seq: int
    messages: int
    reason: Literal["bytes", "age"]
    time_ms: int


class State(Notice, frozen=True):
    """Retained state of a device; the last will says offline."""

    online: bool
    time_ms: int


def roster_hash(payload: bytes) -> str:
    """Return the name of a roster by the bytes that were published: 16 hex digits of their SHA-256."""
    return hashlib.sha256(payload).hexdigest()[:16]


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One quantity of a meter: its uncertainty and register name.

    `sigma` is a standard deviation in the quantity's unit, `sigma_percent` one relative to the value; both
    given: the larger holds. 0 = not given.
    """

    quantity: QuantityName
    sigma: Annotated[float, Meta(ge=0)] = 0.0
    sigma_percent: Annotated[float, Meta(ge=0)] = 0.0
    obis: str = ""


class RosterEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A meter of a roster: its phase (empty = three-phase), bus and registers."""

    meter: ElementName
    phase: Phase = ""
    bus: str = ""
    registers: tuple[Register, ...] = ()
    ct_ratio: Annotated[float, Meta(gt=0)] = 1.0
    vt_ratio: Annotated[float, Meta(gt=0)] = 1.0


class Roster(Notice, frozen=True):
    """The meters of a device in the order in which its batches list them; retained on its roster topic."""

    source: Name
    entries: tuple[RosterEntry, ...]

    @property
    def hash(self) -> str:
        """The name by which batches refer to this roster, if it is published as `encode_notice` writes it."""
        return roster_hash(msgspec.json.encode(self))

    @property
    def meters(self) -> tuple[str, ...]:
        """The meters in order."""
        return tuple(entry.meter for entry in self.entries)
