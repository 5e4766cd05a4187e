"""Errors as problem+json (RFC 9457): every answer that is not a success has this form."""

from __future__ import annotations

import http
from collections.abc import Sequence

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from flexmeter.errors import (
    AccessError,
    BrokerError,
    FlexmeterError,
    InputError,
    MessageError,
    StorageError,
)
from flexmeter.registry.topology import VersionMismatch

MEDIA_TYPE = "application/problem+json"


class Problem(FlexmeterError):
    """An error with a status of its own and headers to send with it."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers
        super().__init__(detail)


_STATUS: tuple[tuple[type[FlexmeterError], int], ...] = (
    (VersionMismatch, 412),
    (AccessError, 403),
    (MessageError, 422),
    (InputError, 422),
    (StorageError, 503),
    (BrokerError, 503),
)
OPENAPI_PROBLEM = {
    "description": "What was wrong, and what was expected",
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            }
        }
    },
}


def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return a problem as an answer."""
    title = http.HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(msgspec.json.encode(body), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer all errors of an application as problems."""

    @app.exception_handler(FlexmeterError)
    async def known(_: Request, error: FlexmeterError) -> Response:
        if isinstance(error, Problem):
            return answer(error.status, str(error), error.headers)
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        headers = {"Retry-After": "1"} if status == 503 else None
        return answer(status, str(error), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(422, "; ".join(_finding(found) for found in error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return answer(error.status_code, str(error.detail), dict(error.headers or {}))


def _finding(found: dict[str, object]) -> str:
    where = found.get("loc", ())
    parts = [str(part) for part in where] if isinstance(where, Sequence) else [str(where)]
    return f"{'.'.join(parts[1:]) or parts[0]}: {found.get('msg')}"
