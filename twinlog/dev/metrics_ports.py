"""Where the processes of one machine tell their metrics: services on ports in a row, the console on its own."""

from __future__ import annotations

from collections.abc import Sequence

from twinlog.dev.process import free_port, port_is_free

SETTING = "METRICS_ADDRESS"
FIRST = "127.0.0.1:9461"
"""The first service's; the others have the ports behind it."""
CONSOLES = 9465
"""The console's."""
_MOST_STEPS = 100


def metrics_addresses(first: str, number: int) -> Sequence[str]:
    """Addresses for so many services, from a first one on; empty ones where that is empty.

    A port that is taken is left out, and so is that of the console. With port 0 all are any that are free.
    """
    if not first:
        return [""] * number
    host, _, port = first.rpartition(":")
    found: list[int] = []
    for _ in range(number):
        wanted = (found[-1] if found else int(port) - 1) + 1 if int(port) else 0
        found.append(_next(host, wanted) or free_port())
    return [f"{host}:{each}" for each in found]


def console_address(first: str) -> str:
    """The console's address, where the first service has that one; empty where that is empty."""
    if not first:
        return ""
    host, _, port = first.rpartition(":")
    fixed = int(port) and port_is_free(host.strip("[]"), CONSOLES)
    return f"{host}:{CONSOLES if fixed else free_port()}"


def _next(host: str, port: int) -> int:
    """The first port from one on that is free; 0 where there is none nearby, and where that one is 0."""
    ports = range(port, min(port + _MOST_STEPS, 65_536)) if port else ()
    return next((each for each in ports if each != CONSOLES and port_is_free(host.strip("[]"), each)), 0)
