"""Ports that are free and stay so, for servers that are stopped and come back on them.

They lie below the range from which the system takes the ports of outgoing connections: from within it any connection
opened meanwhile could have taken one, even that of a client which tries to reach this very server. And no port is
given twice: what is free now may be meant for a server that has not started yet.
"""

from __future__ import annotations

import errno
import itertools
import random
import socket
from collections.abc import Iterator
from pathlib import Path

_LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RANGE_BEGINS = 32_768


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return so many ports on which nobody listens now, none of which this process was given before.

    Raise `OSError` for an address that is not of this machine, or if there are not so many.
    """
    found: list[int] = []
    for port in itertools.islice(_candidates, _RANGE_BEGINS):
        if len(found) == count:
            return found
        with socket.socket() as listener:
            try:
                listener.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                found.append(port)
    raise OSError(errno.EADDRINUSE, f"not {count} free ports")


def _in_turn() -> Iterator[int]:
    """Yield one port after the other, from a random one on: two processes seldom meet in what they choose."""
    try:
        end = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        end = _RANGE_BEGINS
    ports = range(_LOWEST, end if end > 2 * _LOWEST else _RANGE_BEGINS)
    begin = random.SystemRandom().randrange(len(ports))  # not the generator that a seed makes equal in all
    return itertools.cycle([*ports[begin:], *ports[:begin]])


_candidates = _in_turn()
