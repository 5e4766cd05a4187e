"""The wire schema of readings and estimates, shared by JSON, CBOR and the published schemas.

Numbers in bulk are the only difference between the encodings: `T` (a table, one row per column) and `V` (a
vector) are nested lists with null for a missing number in JSON, typed arrays, row after row, in CBOR.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from flexmeter.messages.estimate import EstimateLevel, Status
from flexmeter.messages.notices import ElementName, Name
from flexmeter.messages.quantities import QualityName
from flexmeter.messages.readings import COLUMNS, Clock

T = TypeVar("T")
V = TypeVar("V")
JsonVector = list[float | None]
JsonTable = list[JsonVector]

ColumnName = Annotated[str, Meta(extra_json_schema={"enum": list(COLUMNS)})]  # decoding looks them up
RosterHash = Annotated[str, Meta(pattern="^([0-9a-f]{16})?$")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Index = Annotated[int, Meta(ge=0, le=10**6)]


class WireFlag(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A quality bit and the places it holds for, counted row by row; none = everywhere."""

    flag: QualityName
    at: tuple[Index, ...] = ()


class WireReadings(msgspec.Struct, Generic[T], forbid_unknown_fields=True, omit_defaults=True):
    """A batch of readings of one instant; either `meters` or `roster` says whose."""

    version: Literal[1]
    source: Name
    boot: Count
    seq: Count
    time_ms: int
    columns: tuple[ColumnName, ...]
    values: T
    meters: tuple[ElementName, ...] = ()
    roster: RosterHash = ""
    quality: tuple[WireFlag, ...] = ()
    clock: Clock = "real"


class WireHead(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """|V|, P, Q of phases a, b, c at the head bus (9) and the upper triangle of their covariance (45)."""

    values: V
    covariance: V


class WireEstimate(msgspec.Struct, Generic[T, V], forbid_unknown_fields=True, omit_defaults=True):
    """The state of one area at one instant."""

    version: Literal[1]
    source: Name
    boot: Count
    seq: Count
    grid: Name
    level: EstimateLevel
    area: Name
    topology: Count
    time_ms: int
    status: Status
    iterations: Index
    objective: float | None
    degrees_of_freedom: int
    elements: tuple[ElementName, ...]
    columns: tuple[ColumnName, ...]
    values: T
    sigma: T
    head: WireHead[V] | None = None
    clock: Clock = "real"
