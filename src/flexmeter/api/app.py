"""The ASGI application."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Response

import flexmeter
from flexmeter.api import problems
from flexmeter.api.access import permitting
from flexmeter.api.estimates import estimates_router
from flexmeter.api.limits import Gate
from flexmeter.api.platform import Platform
from flexmeter.api.readings import readings_router
from flexmeter.api.recommendations import recommendations_router
from flexmeter.api.topology import topology_router
from flexmeter.registry import Principal, Scope


def create_app(platform: Platform) -> FastAPI:
    """Return the application with all routes that the platform serves."""
    app = FastAPI(title="Flexmeter", version=flexmeter.__version__, redirect_slashes=False)
    problems.install(app)
    gate = Gate(platform.limits)
    routers = [readings_router(platform, gate), estimates_router(platform, gate)]
    if platform.alert is not None:
        routers.append(topology_router(platform.registry, platform.alert))
    if platform.command is not None:
        routers.append(recommendations_router(platform.registry, platform.command))
    for router in routers:
        app.include_router(router, prefix="/api/v1", responses={"default": problems.OPENAPI_PROBLEM})
    app.include_router(_operation(platform))
    return app


def _operation(platform: Platform) -> APIRouter:
    router = APIRouter(tags=["operation"])
    monitor = Depends(permitting(platform.registry.tokens, Scope.MONITOR))

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: problems.OPENAPI_PROBLEM})
    async def readyz() -> Response:
        """The platform takes readings; otherwise a problem says why not."""
        reasons = platform.not_ready()
        if reasons:
            return problems.answer(503, "; ".join(reasons), {"Retry-After": "1"})
        return Response(b'{"status":"ready"}', media_type="application/json")

    @router.get("/metrics")
    async def metrics(_: Principal = monitor) -> Response:
        """Counters in the Prometheus text format; needs a token with the scope monitor."""
        return Response(platform.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
