"""Routes of estimates: results of the three levels of state estimation (paper section 4)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response

from flexmeter.api.access import permitting
from flexmeter.api.answers import bounded_answer, chosen_format, stream_answer
from flexmeter.api.limits import Gate
from flexmeter.api.platform import Platform
from flexmeter.api.readings import TABLE, Accept, AskedFormat, From, Names, To
from flexmeter.api.times import span
from flexmeter.registry import Principal, Scope
from flexmeter.storage import Selection, estimate_source

Level = Literal["concentrator", "lv", "mv"]
Areas = Annotated[list[str], Query(min_length=1, description="areas of this level")]


class Estimated:
    """The series of estimates that a query names."""

    def __init__(
        self, level: Level, area: Areas, bus: Names = None, quantity: Names = None, phase: Names = None
    ) -> None:
        self.selection = Selection(
            tuple(estimate_source(level, name) for name in area),
            tuple(bus or ()),
            tuple(quantity or ()),
            tuple(phase or ()),
        )


Series = Annotated[Estimated, Depends()]


def estimates_router(platform: Platform, gate: Gate) -> APIRouter:
    """Return the routes under `/estimates`; `source` of an answer is level/area, `meter` the bus."""
    router = APIRouter(prefix="/estimates", tags=["estimates"])
    reader = Depends(permitting(platform.registry.tokens, Scope.READ))

    @router.get("", responses=TABLE)
    def query(
        series: Series,
        start: From,
        end: To,
        *,
        principal: Principal = reader,
        form: AskedFormat = None,
        accept: Accept = None,
    ) -> Response:
        """Estimates of areas over a span, with standard deviations."""
        store = platform.stores.store(principal.tenant)
        batches = gate.bounded(store.readings(series.selection, span(start, end), "estimates"))
        return stream_answer(batches, chosen_format(form, accept), platform.limits.json_rows)

    @router.get("/latest", responses=TABLE)
    def latest(
        series: Series, principal: Principal = reader, form: AskedFormat = None, accept: Accept = None
    ) -> Response:
        """The newest estimate of every chosen series."""
        table = platform.stores.store(principal.tenant).latest(series.selection, "estimates")
        return bounded_answer(table, chosen_format(form, accept), platform.limits.json_rows)

    return router
