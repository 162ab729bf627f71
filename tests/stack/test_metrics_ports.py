"""Where the services of one machine tell their metrics."""

from __future__ import annotations

import socket
from contextlib import suppress

from twinlog.dev import free_port
from twinlog.dev.system import CONSOLE_METRICS, FIRST_METRICS, console_address, metrics_addresses


def test_services_have_ports_in_a_row() -> None:
    first = free_port()
    addresses = metrics_addresses(f"127.0.0.1:{first}", 3)
    ports = [int(address.rpartition(":")[2]) for address in addresses]
    assert ports[0] == first
    assert ports == sorted(set(ports))


def test_a_port_that_is_taken_is_left_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [address] = metrics_addresses(f"127.0.0.1:{port}", 1)
        assert address.startswith("127.0.0.1:")
        assert address != f"127.0.0.1:{port}"


def test_the_consoles_port_is_left_to_it() -> None:
    ports = [int(address.rpartition(":")[2]) for address in metrics_addresses(FIRST_METRICS, 6)]
    assert 9465 not in ports
    assert len(set(ports)) == 6


def test_any_ports_are_different_ones() -> None:
    addresses = metrics_addresses("127.0.0.1:0", 4)
    assert len(set(addresses)) == 4
    assert not any(address.endswith(":0") for address in addresses)


def test_nothing_is_told_where_no_address_is() -> None:
    assert metrics_addresses("", 2) == ["", ""]
    assert console_address("") == ""


def test_the_console_has_its_port_or_else_one_that_is_free() -> None:
    with suppress(OSError), socket.create_server(("127.0.0.1", CONSOLE_METRICS)):
        assert console_address(FIRST_METRICS) != f"127.0.0.1:{CONSOLE_METRICS}"
    assert not console_address("127.0.0.1:0").endswith(":0")
