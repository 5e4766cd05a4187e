"""A client that calls an application in the test's own thread, without a network."""

from __future__ import annotations

import asyncio
import urllib.parse
from types import TracebackType

import httpx
from fastapi import FastAPI


class AsgiClient:
    """`httpx.AsyncClient` with plain methods."""

    def __init__(self, app: FastAPI) -> None:
        transport = httpx.ASGITransport(app)
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=transport, base_url="http://flexmeter")
        self.headers = self._client.headers

    def path(self, start: str, name: str) -> str:
        """Return a path with any text as its last part."""
        return start + urllib.parse.quote(name, safe="")

    def __enter__(self) -> AsgiClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._runner.get_loop().shutdown_default_executor())
        self._runner.close()

    def request(self, method: str, path: str, **how) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **how))

    def get(self, path: str, **how) -> httpx.Response:
        return self.request("GET", path, **how)

    def put(self, path: str, **how) -> httpx.Response:
        return self.request("PUT", path, **how)

    def post(self, path: str, **how) -> httpx.Response:
        return self.request("POST", path, **how)

    def delete(self, path: str, **how) -> httpx.Response:
        return self.request("DELETE", path, **how)
