"""Ports that are free and stay so: below the range from which the system takes the ports of outgoing connections.

A server that was killed comes back on its port. From within that range any connection that is opened meanwhile could
have taken it, even that of a client which tries to reach this very server.
"""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

_LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RANGE_BEGINS = 32_768


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return so many different ports on which nobody listens now."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        choice = random.SystemRandom()  # two processes, seeded alike or not, rarely choose the same
        highest = _outgoing_from()
        while len(found) < count:
            port = choice.randrange(_LOWEST, highest)
            if port not in found:
                listener = stack.enter_context(socket.socket())
                with contextlib.suppress(OSError):  # taken: another one
                    listener.bind((host, port))
                    found.append(port)
        return found


def _outgoing_from() -> int:
    """Return the first port that the system gives to outgoing connections."""
    try:
        first = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = _RANGE_BEGINS
    return first if first > 2 * _LOWEST else _RANGE_BEGINS
