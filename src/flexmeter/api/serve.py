"""Serve an application over HTTPS in the event loop of its caller."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from flexmeter.errors import ServiceError

SHUTDOWN_S = 5


@dataclass(frozen=True, slots=True)
class Served:
    """Where an application can be reached."""

    host: str
    port: int
    tls: bool

    @property
    def url(self) -> str:
        """The root of its addresses."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class _Server(uvicorn.Server):
    """Leaves signals to the process that it is a part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: Path | None = None,
    key: Path | None = None,
) -> AsyncIterator[Served]:
    """Serve until the block ends, then let requests under way finish for a few seconds.

    Port 0 takes a free one. Without certificate it is plain HTTP, for a proxy on the same machine.
    ServiceError: the port is in use or the certificate cannot be read.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
        lifespan="off",
    )
    server = _Server(config)
    try:
        config.load()
    except OSError as error:
        listener.close()
        raise ServiceError(f"API certificate {certificate}: {error}") from error
    running = asyncio.create_task(server.serve([listener]))
    try:
        while not server.started:
            if running.done():
                await running
                raise ServiceError("API server ended while starting")
            await asyncio.sleep(0.005)
        yield Served(host, listener.getsockname()[1], certificate is not None)
    finally:
        server.should_exit = True
        await running
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServiceError(f"API address {host}:{port}: {error.strerror}") from error
    return listener
