"""Network Topology Web Service (paper section 4.3): grids and their switch status vectors.

The routes can be mounted in the platform or in a service process of their own.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, StrictBool

from flexmeter.api.access import permitting
from flexmeter.api.limits import limited_body
from flexmeter.api.platform import TopologyAlerting
from flexmeter.api.problems import Problem
from flexmeter.api.times import LATEST_MS
from flexmeter.errors import InputError
from flexmeter.grid import decode_grid, validate
from flexmeter.registry import Principal, Registry, Scope, Topology
from flexmeter.registry.topology import VersionMismatch

GRID_BYTES = 64_000_000
Before = Annotated[int | None, Query(ge=1, le=2**62, description="versions before this one")]
Limit = Annotated[int, Query(ge=1, le=1000)]


class SwitchVector(BaseModel, extra="forbid"):
    """A switch status vector to be put in force, in the order of the grid's switches."""

    closed: list[StrictBool] = Field(max_length=100_000)
    reason: str = Field("", max_length=500)
    time_ms: int | None = Field(None, ge=0, le=LATEST_MS, description="in force from, now without it")


class TopologyAnswer(BaseModel):
    """A version of a switch status vector."""

    grid: str
    version: int
    switches: list[str]
    closed: list[bool]
    time_ms: int
    author: str
    reason: str


class TopologyPage(BaseModel):
    """Versions, newest first; `next_before` asks for the page after, null at the end."""

    versions: list[TopologyAnswer]
    next_before: int | None


class GridAnswer(BaseModel):
    """A grid that was stored, and the version of its topology."""

    grid: str
    version: int
    topology_version: int


def topology_router(registry: Registry, alert: TopologyAlerting) -> APIRouter:
    """Return the routes under `/topology` and `/grids`."""
    router = APIRouter()
    router.include_router(_vectors(registry, alert))
    router.include_router(_grids(registry, alert))
    return router


async def repeat_alerts(registry: Registry, alert: TopologyAlerting) -> int:
    """Publish the alerts that did not go out before a crash or a lost broker; return how many."""
    pending = await run_in_threadpool(registry.topologies.not_alerted)
    for tenant, topology in pending:
        await _publish(registry, alert, tenant, topology)
    return len(pending)


def _vectors(registry: Registry, alert: TopologyAlerting) -> APIRouter:
    router = APIRouter(prefix="/topology", tags=["topology"])
    reader = Depends(permitting(registry.tokens, Scope.READ))
    switcher = Depends(permitting(registry.tokens, Scope.TOPOLOGY))
    topologies = registry.topologies

    @router.get("")
    def grids(principal: Principal = reader) -> dict[str, list[str]]:
        """The grids that have a topology."""
        return {"grids": list(topologies.grids(principal.tenant))}

    @router.get("/{grid}", response_model=TopologyAnswer, responses={304: {"description": "Not modified"}})
    def current(
        grid: str,
        response: Response,
        principal: Principal = reader,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> TopologyAnswer | Response:
        """The switch status vector in force; its version is also the ETag."""
        found = _known(topologies.current(principal.tenant, grid), grid)
        etag = f'"{found.version}"'
        if if_none_match is not None and etag in if_none_match:
            return Response(status_code=304, headers={"ETag": etag})
        response.headers["ETag"] = etag
        return _answer(found)

    @router.put("/{grid}")
    async def put(
        grid: str,
        vector: Annotated[SwitchVector, Body()],
        response: Response,
        principal: Principal = switcher,
        if_match: Annotated[str | None, Header(description="the version that is replaced")] = None,
    ) -> TopologyAnswer:
        """Put a vector in force if nobody changed it since; answered after its alert went out."""
        if if_match is None:
            raise Problem(428, 'expected If-Match with the version that is replaced, such as "3"')

        def change() -> Topology:
            _known(topologies.current(principal.tenant, grid), grid)
            return topologies.put(
                principal.tenant,
                grid,
                vector.closed,
                expected_version=_version(if_match),
                author=principal.label,
                reason=vector.reason,
                time_ms=vector.time_ms,
            )

        try:
            changed = await run_in_threadpool(change)
        except VersionMismatch as error:
            raise Problem(412, str(error), {"ETag": f'"{error.current}"'}) from error
        await _publish(registry, alert, principal.tenant, changed)
        response.headers["ETag"] = f'"{changed.version}"'
        return _answer(changed)

    @router.get("/{grid}/history")
    def history(grid: str, principal: Principal = reader, before: Before = None, limit: Limit = 100) -> TopologyPage:
        """All versions, newest first."""
        _known(topologies.current(principal.tenant, grid), grid)
        found = topologies.history(principal.tenant, grid, before_version=before, limit=limit)
        more = bool(found) and found[-1].version > 1 and len(found) == limit
        next_before = found[-1].version if more else None
        return TopologyPage(versions=[_answer(one) for one in found], next_before=next_before)

    return router


def _grids(registry: Registry, alert: TopologyAlerting) -> APIRouter:
    router = APIRouter(prefix="/grids", tags=["grids"])
    reader = Depends(permitting(registry.tokens, Scope.READ))
    writer = Depends(permitting(registry.tokens, Scope.WRITE))

    @router.get("")
    def grids(principal: Principal = reader) -> dict[str, list[str]]:
        """The grids of the tenant."""
        return {"grids": list(registry.grids.names(principal.tenant))}

    @router.get("/{grid}", responses={200: {"content": {"application/json": {}}}})
    def get(grid: str, principal: Principal = reader) -> Response:
        """The grid document as it was put."""
        found = registry.grids.get(principal.tenant, grid)
        if found is None:
            raise Problem(404, f"grid {grid!r}: not known")
        return Response(found.document, 200, {"ETag": f'"{found.version}"'}, "application/json")

    @router.put("/{grid}")
    async def put(grid: str, request: Request, principal: Principal = writer) -> GridAnswer:
        """Store a grid document; a grid without topology gets the status its switches have there."""
        document = await limited_body(request, GRID_BYTES)

        def keep() -> tuple[int, Topology]:
            model = decode_grid(document)
            validate(model)
            if model.id != grid:
                raise InputError(f"grid: id {model.id!r} in the document, {grid!r} in the path")
            names = [switch.id for switch in model.switches]
            kept = registry.grids.put(principal.tenant, grid, document, names, principal.label)
            closed = [switch.closed for switch in model.switches]
            started = registry.topologies.start(principal.tenant, grid, names, closed, principal.label)
            return kept.version, started

        version, started = await run_in_threadpool(keep)
        await _publish(registry, alert, principal.tenant, started)
        return GridAnswer(grid=grid, version=version, topology_version=started.version)

    return router


async def _publish(registry: Registry, alert: TopologyAlerting, tenant: str, topology: Topology) -> None:
    """Send the alert of a version; an alert sent twice does no harm, one not sent is repeated."""
    await alert(tenant, topology)
    await run_in_threadpool(registry.topologies.alerted, tenant, topology)


def _known(topology: Topology | None, grid: str) -> Topology:
    if topology is None:
        raise Problem(404, f"grid {grid!r}: has no topology")
    return topology


def _version(if_match: str) -> int:
    found = re.fullmatch(r'"(\d{1,18})"', if_match.strip())
    if found is None:
        raise Problem(412, f'If-Match: {if_match[:40]!r}, expected a version such as "3"')
    return int(found[1])


def _answer(topology: Topology) -> TopologyAnswer:
    return TopologyAnswer(
        grid=topology.grid,
        version=topology.version,
        switches=list(topology.switches),
        closed=list(topology.closed),
        time_ms=topology.time_ms,
        author=topology.author,
        reason=topology.reason,
    )
