"""Ports for servers that come back on them."""

import contextlib
import socket
from pathlib import Path

from flexmeter.ports import free_ports


def test_ports_are_different_and_free():
    ports = free_ports(200)
    assert len(set(ports)) == 200
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(socket.socket()).bind(("127.0.0.1", port))


def test_no_outgoing_connection_takes_the_port_of_a_server_that_is_away():
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(not first <= port <= last for port in free_ports(200))


def test_a_port_that_is_taken_is_not_given():
    with contextlib.ExitStack() as stack:
        taken = set()
        for port in free_ports(50):
            stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            taken.add(port)
        assert not taken & set(free_ports(500))
