"""Ports for servers that come back on them."""

import contextlib
import socket
from pathlib import Path

from flexmeter.ports import free_ports


def test_no_port_is_given_twice_while_its_server_has_not_started():
    ports = [free_ports(4) for _ in range(100)]
    assert len({port for some in ports for port in some}) == 400


def test_no_outgoing_connection_takes_the_port_of_a_server_that_is_away():
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(not first <= port <= last for port in free_ports(200))


def test_a_port_that_is_taken_is_not_given():
    begin = free_ports(1)[0]
    with contextlib.ExitStack() as stack:
        taken = set()
        for port in range(begin + 1, begin + 6):
            with contextlib.suppress(OSError, OverflowError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                taken.add(port)
        assert not taken & set(free_ports(10))
