"""Routes of readings: query, roll-ups, latest values, completeness, and posting of batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel

from flexmeter.api.access import permitting
from flexmeter.api.answers import MEDIA_TYPES, Format, bounded_answer, chosen_format, stream_answer
from flexmeter.api.limits import Gate, limited_body
from flexmeter.api.platform import Platform
from flexmeter.api.problems import Problem
from flexmeter.api.times import span
from flexmeter.registry import Devices, Principal, Scope
from flexmeter.storage import Resolution, Selection, Span, Store


class Step(StrEnum):
    """Resolutions by the names they have in a query."""

    MINUTE = "1min"
    QUARTER = "15min"
    HOUR = "1h"
    DAY = "1day"

    @property
    def resolution(self) -> Resolution:
        """The width of a bucket."""
        return Resolution[self.name]


class Group(StrEnum):
    """Roll up each series by itself, or all chosen series together."""

    SERIES = "series"
    AREA = "area"


class Accepted(BaseModel):
    """What became of the values of a posted batch."""

    stored: int
    duplicate: int
    conflict: int


Names = Annotated[list[str] | None, Query()]
From = Annotated[str, Query(alias="from", description="ISO 8601 with zone, or ms since 1970; included")]
To = Annotated[str, Query(alias="to", description="ISO 8601 with zone, or ms since 1970; not included")]
AskedFormat = Annotated[Format | None, Query(alias="format")]
Accept = Annotated[str | None, Header()]
IntervalS = Annotated[int, Query(ge=1, le=86_400, description="expected time between readings [s]")]
TABLE: dict[int | str, dict[str, object]] = {
    200: {
        "description": "Columns; times in ms since 1970 UTC, values in SI units",
        "content": {name: {} for name in MEDIA_TYPES.values()},
    }
}


class Chosen:
    """The series that a query names."""

    def __init__(
        self,
        device: Names = None,
        meter: Names = None,
        area: Names = None,
        quantity: Names = None,
        phase: Names = None,
    ) -> None:
        self._devices = tuple(device or ())
        self._areas = tuple(area or ())
        self._rest = (tuple(meter or ()), tuple(quantity or ()), tuple(phase or ()))

    def selection(self, devices: Devices, tenant: str) -> Selection:
        """Return the selection; an area stands for its devices, an unknown one is a 404."""
        sources = list(self._devices)
        for area in self._areas:
            members = devices.of_area(tenant, area)
            if not members:
                raise Problem(404, f"area {area!r}: no device belongs to it")
            sources += members
        return Selection(tuple(sources), *self._rest)


@dataclass(frozen=True, slots=True)
class Question:
    """Whose data, which series, which span, and the form of the answer."""

    store: Store
    chosen: Selection
    span: Span
    form: Format


def readings_router(platform: Platform, gate: Gate) -> APIRouter:
    """Return the routes under `/readings`."""
    router = APIRouter(prefix="/readings", tags=["readings"])
    _add_values(router, platform, gate)
    _add_reports(router, platform, gate)
    writer = Depends(permitting(platform.registry.tokens, Scope.WRITE))

    @router.post("")
    async def post(request: Request, principal: Principal = writer) -> Accepted:
        """Store a batch in the Flexmeter Data Format, JSON or CBOR; answered after the commit."""
        payload = await limited_body(request, platform.limits.body_bytes)
        result = await platform.ingest(principal.tenant, payload)
        return Accepted(stored=result.stored, duplicate=result.duplicate, conflict=result.conflict)

    return router


def _add_values(router: APIRouter, platform: Platform, gate: Gate) -> None:
    asked = Depends(_questions(platform))
    reader = Depends(permitting(platform.registry.tokens, Scope.READ))
    limits = platform.limits

    @router.get("", responses=TABLE)
    def query(question: Question = asked, resolution: Step | None = None, group: Group = Group.SERIES) -> Response:
        """Readings of a span, as they are or rolled up to a resolution."""
        store = question.store
        if resolution is None:
            if group is Group.AREA:
                raise Problem(422, "group: area needs a resolution")
            batches = gate.bounded(store.readings(question.chosen, question.span))
            return stream_answer(batches, question.form, limits.json_rows)
        roll_up = store.aggregate if group is Group.SERIES else store.aggregate_area
        with gate.passing():
            table = roll_up(question.chosen, question.span, resolution.resolution)
        return bounded_answer(table, question.form, limits.json_rows)

    @router.get("/latest", responses=TABLE)
    def latest(
        series: Annotated[Chosen, Depends()],
        principal: Principal = reader,
        form: AskedFormat = None,
        accept: Accept = None,
    ) -> Response:
        """The newest reading of every chosen series."""
        chosen = series.selection(platform.registry.devices, principal.tenant)
        table = platform.stores.store(principal.tenant).latest(chosen)
        return bounded_answer(table, chosen_format(form, accept), limits.json_rows)


def _add_reports(router: APIRouter, platform: Platform, gate: Gate) -> None:
    asked = Depends(_questions(platform))

    def report(question: Question, made: Callable[[Store, Selection, Span], pa.Table]) -> Response:
        with gate.passing():
            table = made(question.store, question.chosen, question.span)
        return bounded_answer(table, question.form, platform.limits.json_rows)

    @router.get("/quality", responses=TABLE)
    def quality(question: Question = asked, interval_s: IntervalS = 60) -> Response:
        """Per series how many readings were expected, received, missing, suspect and in conflict."""
        return report(question, lambda store, *which: store.quality(*which, interval_s * 1000))

    @router.get("/gaps", responses=TABLE)
    def gaps(question: Question = asked, interval_s: IntervalS = 60) -> Response:
        """Runs of missing readings per series."""
        return report(question, lambda store, *which: store.gaps(*which, interval_s * 1000))

    @router.get("/read-success", responses=TABLE)
    def read_success(question: Question = asked, interval_s: IntervalS = 60) -> Response:
        """Per interval the share of the chosen series that had a reading."""
        return report(question, lambda store, *which: store.read_success(*which, interval_s * 1000))

    @router.get("/conflicts", responses=TABLE)
    def conflicts(question: Question = asked) -> Response:
        """Second values that were refused because the first had another value."""
        return report(question, lambda store, *which: store.conflicts(*which))

    @router.get("/versions", responses=TABLE)
    def versions(question: Question = asked) -> Response:
        """Values that were replaced by corrected ones."""
        return report(question, lambda store, *which: store.versions(*which))


def _questions(platform: Platform) -> Callable[..., Question]:
    """Return a dependency that puts a question together from its parameters."""
    reader = Depends(permitting(platform.registry.tokens, Scope.READ))

    def question(
        series: Annotated[Chosen, Depends()],
        start: From,
        end: To,
        *,
        principal: Principal = reader,
        form: AskedFormat = None,
        accept: Accept = None,
    ) -> Question:
        return Question(
            platform.stores.store(principal.tenant),
            series.selection(platform.registry.devices, principal.tenant),
            span(start, end),
            chosen_format(form, accept),
        )

    return question
