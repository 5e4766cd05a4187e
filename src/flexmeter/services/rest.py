"""The platform's REST API as a grid service sees it: grids, the switch status vector, recommendations."""

from __future__ import annotations

import asyncio
import ssl
import time
from types import TracebackType
from typing import Self

import httpx
import msgspec

from flexmeter.errors import AccessError, ServiceError
from flexmeter.grid import Grid, decode_grid
from flexmeter.messages.events import Recommendation

TIMEOUT_S, PATIENCE_S, RETRY_S = 10.0, 30.0, 0.1


class Topology(msgspec.Struct, frozen=True):
    """A version of a grid's switch status vector, in force from an instant on [ms UTC]."""

    grid: str
    version: int
    closed: tuple[bool, ...]
    time_ms: int = 0


class Kept(msgspec.Struct, frozen=True):
    """What the API keeps of a recommendation; `verdict` is a person's, approve or reject."""

    number: int
    status: str
    verdict: str | None


class _Page(msgspec.Struct, frozen=True):
    recommendations: tuple[Kept, ...]


class Conflict(ServiceError):
    """The switch vector was changed by somebody else in the meantime."""


class Rest:
    """A session with the API; an async context manager.

    Parameters
    ----------
    url : of the API, e.g. https://127.0.0.1:8443
    token : bearer token with the scopes the service needs.
    tls : context that trusts the platform's certificate authority.
    """

    def __init__(self, url: str, token: str, tls: ssl.SSLContext) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        # Requests are rare: a connection kept for the next one would be closed by the server just as it is used again.
        once = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, verify=tls, timeout=TIMEOUT_S, trust_env=False, limits=once
        )

    async def __aenter__(self) -> Self:
        """Return the session; connections are made when needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def grid(self, grid_id: str) -> Grid:
        """Return a grid model."""
        response = await self._call("GET", f"/api/v1/grids/{grid_id}")
        return decode_grid(response.content, source=str(response.url))

    async def topology(self, grid_id: str) -> Topology:
        """Return the switch vector in force."""
        response = await self._call("GET", f"/api/v1/topology/{grid_id}")
        return msgspec.json.decode(response.content, type=Topology)

    async def put_topology(self, wanted: Topology) -> Topology:
        """Put the version after `wanted.version` in force; raise `Conflict` if that is no longer the newest."""
        body = {"closed": wanted.closed, "time_ms": wanted.time_ms}
        response = await self._call("PUT", f"/api/v1/topology/{wanted.grid}", body, {"If-Match": f'"{wanted.version}"'})
        return msgspec.json.decode(response.content, type=Topology)

    async def put_recommendation(self, made: Recommendation, service: str) -> Kept:
        """Keep a recommendation or what has become of it; return it with the verdict on it, if there is one."""
        path = f"/api/v1/recommendations/{made.grid}/{made.number}?service={service}"
        response = await self._call("PUT", path, made)
        return msgspec.json.decode(response.content, type=Kept)

    async def recommendation(self, grid: str, number: int) -> Kept:
        """Return what is kept of a recommendation."""
        response = await self._call("GET", f"/api/v1/recommendations/{grid}/{number}")
        return msgspec.json.decode(response.content, type=Kept)

    async def last_number(self, grid: str) -> int:
        """Return the number of the newest recommendation of a grid, 0 without one."""
        response = await self._call("GET", f"/api/v1/recommendations?grid={grid}&limit=1")
        page = msgspec.json.decode(response.content, type=_Page)
        return page.recommendations[0].number if page.recommendations else 0

    async def _call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        kind = {"Content-Type": "application/json"} if content is not None else {}
        response = await self._request(method, path, content, {**kind, **(headers or {})})
        if response.status_code == httpx.codes.PRECONDITION_FAILED:
            raise Conflict(f"{method} {path}: the switch vector has changed")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AccessError(f"{method} {path}: {response.status_code} {response.text[:200]}")
        if response.is_error:
            raise ServiceError(f"{method} {path}: {response.status_code} {response.text[:200]}")
        return response

    async def _request(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> httpx.Response:
        """Send a request; while nobody listens yet, try again for a while."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await self._client.request(method, path, content=content, headers=headers)
            except httpx.ConnectError as error:
                if time.monotonic() > deadline:
                    raise ServiceError(f"{method} {path}: {error or type(error).__name__}") from error
                await asyncio.sleep(RETRY_S)
            except httpx.HTTPError as error:
                raise ServiceError(f"{method} {path}: {error or type(error).__name__}") from error
