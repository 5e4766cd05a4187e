"""Care of child processes: start, wait until ready, restart after a crash, stop in reverse order.

A child never outlives its parent: the kernel kills it when the parent dies, however that happens (Linux).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from flexmeter.errors import ServiceError

log = logging.getLogger(__name__)

_FIRST_DELAY_S, _LAST_DELAY_S = 0.05, 2.0
_STEADY_S = 1.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Program:
    """What to run: name, command line, log file, extra environment, and how to see that it is ready.

    `ready` is asked every 20 ms; it must not raise. `start_s` is how long that may take, `stop_s` how long an
    orderly stop may take before the process is killed.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    ready: Callable[[], Awaitable[bool]] | None = None
    start_s: float = 30.0
    stop_s: float = 10.0


class Child:
    """A supervised process; `pid` changes with every restart."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.restarts = 0
        self.stopping = False
        self.up = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the present run, 0 = not running."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start and wait until ready; raise `ServiceError` with the end of its log if that fails."""
        program = self.program
        try:
            program.log.parent.mkdir(parents=True, exist_ok=True)
            with program.log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *program.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **(program.environment or {})},
                    start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops in order
                    preexec_fn=_die_with(os.getpid()),
                )
        except OSError as error:
            raise ServiceError(f"{program.name}: cannot start: {error}") from error
        try:
            async with asyncio.timeout(program.start_s):
                await self._until_ready(self._process)
        except TimeoutError:
            await self.stop()
            raise ServiceError(f"{program.name}: not ready after {program.start_s:g} s{self._last_words()}") from None
        except asyncio.CancelledError:
            await self.stop()
            raise
        self.up.set()
        log.info("event=started process=%s pid=%d", program.name, self.pid)

    async def wait(self) -> int:
        """Wait for the end of the present run; return its exit status."""
        assert self._process is not None
        status = await self._process.wait()
        self.up.clear()
        return status

    async def stop(self) -> None:
        """Ask to stop, then kill."""
        self.stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.program.stop_s):
                await process.wait()
        except TimeoutError:
            log.warning("event=killed process=%s pid=%d", self.program.name, process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the present run, if there is one."""
        if self._process is not None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        while True:
            if process.returncode is not None:
                raise ServiceError(
                    f"{self.program.name}: ended at start with status {process.returncode}{self._last_words()}"
                )
            if self.program.ready is None or await self.program.ready():
                return
            await asyncio.sleep(0.02)

    def _last_words(self) -> str:
        try:
            lines = self.program.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f"; {self.program.log} ends with: {lines[-1][-300:]}" if lines else f"; {self.program.log} is empty"


class Supervisor:
    """Keeps children running inside `async with`; on leaving stops them, last started first."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Begin with no children."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all children, last started first."""
        for name in reversed(list(self.children)):
            await self.stop(name)

    async def start(self, program: Program) -> Child:
        """Start a program and keep it running; raise `ServiceError` if it does not get ready."""
        if program.name in self.children:
            raise ServiceError(f"{program.name}: already running")
        child = Child(program)
        await child.start()
        self.children[program.name] = child
        self._watchers[program.name] = asyncio.create_task(self._watch(child), name=f"watch {program.name}")
        return child

    async def stop(self, name: str) -> None:
        """Stop one child for good."""
        child, watcher = self.children.pop(name), self._watchers.pop(name)
        child.stopping = True
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await child.stop()
        log.info("event=stopped process=%s", name)

    async def _watch(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        delay_s = _FIRST_DELAY_S
        while True:
            began = loop.time()
            status = await child.wait()
            delay_s = _FIRST_DELAY_S if loop.time() - began > _STEADY_S else min(2 * delay_s, _LAST_DELAY_S)
            name = child.program.name
            log.warning("event=ended process=%s status=%d restart_in_s=%.2f", name, status, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = await self._restart(child, delay_s)

    async def _restart(self, child: Child, delay_s: float) -> float:
        while True:
            child.restarts += 1
            child.stopping = False
            try:
                await child.start()
            except ServiceError as error:
                log.error("event=restart_failed error=%s", error)
                delay_s = min(2 * delay_s, _LAST_DELAY_S)
                await asyncio.sleep(delay_s)
            else:
                return delay_s


async def answers(host: str, port: int, path: str, tls: ssl.SSLContext | None = None) -> bool:
    """Tell whether an HTTP server answers a GET with status 200: a light readiness check that never raises."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.transport.abort()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False


def _die_with(parent: int) -> Callable[[], None]:
    """Return what a child does between fork and exec so that it dies with its parent."""

    def arrange() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return arrange
