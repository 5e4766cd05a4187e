"""Recommendations of the reconfiguration: read them with their evidence and audit trail, approve or reject them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from flexmeter.api.access import permitting
from flexmeter.api.limits import limited_body
from flexmeter.api.platform import Commanding
from flexmeter.api.problems import Problem
from flexmeter.errors import InputError
from flexmeter.messages.events import Recommendation, decode_event
from flexmeter.registry import Principal, Registry, Scope
from flexmeter.registry.recommendations import KeptRecommendation, Status, Verdict, VerdictConflict

DOCUMENT_BYTES = 4_000_000
Number = Annotated[int, Path(ge=1, le=2**53, description="of the recommendation, counts up per grid")]
Service = Annotated[str, Query(min_length=1, max_length=64, description="device name of the service that made it")]
OfGrid = Annotated[str | None, Query(max_length=64, description="of this grid only")]
OfStatus = Annotated[Status | None, Query(description="those in this state only")]
Before = Annotated[int | None, Query(ge=1, le=2**62, description="ids before this one")]
Limit = Annotated[int, Query(ge=1, le=1000)]


class Reason(BaseModel, extra="forbid"):
    """Why somebody approves or rejects."""

    reason: str = Field("", max_length=500)


class Word(BaseModel):
    """One line of the audit trail: a status that the service told, or a verdict; by whom, why and when."""

    word: str
    author: str
    reason: str
    time_ms: int


class RecommendationAnswer(BaseModel):
    """A recommendation: `status` is what the service says of it, `verdict` what a person said."""

    id: int
    grid: str
    number: int
    service: str
    status: str
    verdict: Verdict | None
    created_ms: int
    updated_ms: int
    recommendation: dict[str, object]


class RecommendationWithHistory(RecommendationAnswer):
    """A recommendation with its audit trail, oldest first."""

    history: list[Word]


class RecommendationPage(BaseModel):
    """Recommendations, newest first; `next_before` asks for the page after, null at the end."""

    recommendations: list[RecommendationAnswer]
    next_before: int | None


def recommendations_router(registry: Registry, command: Commanding) -> APIRouter:
    """Return the routes under `/recommendations`."""
    router = APIRouter(prefix="/recommendations", tags=["recommendations"])
    reader = Depends(permitting(registry.tokens, Scope.READ))
    switcher = Depends(permitting(registry.tokens, Scope.TOPOLOGY))
    kept = registry.recommendations

    @router.get("")
    def recommendations(
        principal: Principal = reader,
        grid: OfGrid = None,
        status: OfStatus = None,
        before: Before = None,
        limit: Limit = 100,
    ) -> RecommendationPage:
        """The recommendations of the tenant, newest first."""
        found = kept.list(principal.tenant, grid=grid, status=status, before_id=before, limit=limit)
        next_before = found[-1].id if len(found) == limit else None
        return RecommendationPage(
            recommendations=[RecommendationAnswer.model_validate(_fields(one)) for one in found],
            next_before=next_before,
        )

    @router.get("/{grid}/{number}")
    def one(grid: str, number: Number, principal: Principal = reader) -> RecommendationWithHistory:
        """One recommendation with its evidence and audit trail."""
        return _with_history(registry, principal.tenant, _known(registry, principal.tenant, grid, number))

    @router.put("/{grid}/{number}")
    async def put(
        grid: str, number: Number, service: Service, request: Request, principal: Principal = switcher
    ) -> RecommendationWithHistory:
        """Keep a recommendation or what has become of it (for services); the same once more changes nothing."""
        document = await limited_body(request, DOCUMENT_BYTES)

        def keep() -> RecommendationWithHistory:
            made = decode_event(document)
            if not isinstance(made, Recommendation) or (made.grid, made.number) != (grid, number):
                raise InputError(f"recommendation: expected one of grid {grid} with number {number}")
            done = kept.put(
                principal.tenant,
                grid,
                number,
                service=service,
                status=made.status,
                document=document,
                author=principal.label,
            )
            return _with_history(registry, principal.tenant, done)

        return await run_in_threadpool(keep)

    @router.post("/{grid}/{number}/approve")
    async def approve(
        grid: str, number: Number, why: Annotated[Reason | None, Body()] = None, principal: Principal = switcher
    ) -> RecommendationWithHistory:
        """Let the service put the vector in force; again has no further effect, after a rejection it is 409."""
        return await decide(principal, grid, number, "approve", why)

    @router.post("/{grid}/{number}/reject")
    async def reject(
        grid: str, number: Number, why: Annotated[Reason | None, Body()] = None, principal: Principal = switcher
    ) -> RecommendationWithHistory:
        """Turn a proposal down; again has no further effect, after an approval it is 409."""
        return await decide(principal, grid, number, "reject", why)

    async def decide(
        principal: Principal, grid: str, number: int, verdict: Verdict, why: Reason | None
    ) -> RecommendationWithHistory:
        tenant, reason = principal.tenant, why.reason if why else ""

        def note() -> KeptRecommendation:
            _known(registry, tenant, grid, number)
            return kept.decide(tenant, grid, number, verdict, author=principal.label, reason=reason)

        try:
            decided = await run_in_threadpool(note)
        except VerdictConflict as error:
            raise Problem(409, str(error)) from error
        if decided.status == "proposed":
            await _tell(registry, command, tenant, decided)
        return await run_in_threadpool(_with_history, registry, tenant, decided)

    return router


async def repeat_verdicts(registry: Registry, command: Commanding) -> int:
    """Tell services the verdicts that did not go out before a crash or a lost broker; return how many."""
    pending = await run_in_threadpool(registry.recommendations.not_sent)
    for tenant, one in pending:
        await _tell(registry, command, tenant, one)
    return len(pending)


async def _tell(registry: Registry, command: Commanding, tenant: str, decided: KeptRecommendation) -> None:
    """Send a verdict as a command; one sent twice does no harm, one not sent is repeated."""
    await command(tenant, decided.service, decided.verdict, str(decided.number))
    await run_in_threadpool(registry.recommendations.sent, tenant, decided.grid, decided.number)


def _known(registry: Registry, tenant: str, grid: str, number: int) -> KeptRecommendation:
    found = registry.recommendations.get(tenant, grid, number)
    if found is None:
        raise Problem(404, f"recommendation {number} of grid {grid!r}: not known")
    return found


def _with_history(registry: Registry, tenant: str, kept: KeptRecommendation) -> RecommendationWithHistory:
    words = [
        Word(word=entry.word, author=entry.author, reason=entry.reason, time_ms=entry.time_ms)
        for entry in registry.recommendations.history(tenant, kept.grid, kept.number)
    ]
    return RecommendationWithHistory.model_validate({**_fields(kept), "history": words})


def _fields(kept: KeptRecommendation) -> dict[str, object]:
    return {
        "id": kept.id,
        "grid": kept.grid,
        "number": kept.number,
        "service": kept.service,
        "status": kept.status,
        "verdict": kept.verdict or None,
        "created_ms": kept.created_ms,
        "updated_ms": kept.updated_ms,
        "recommendation": msgspec.json.decode(kept.document),
    }
