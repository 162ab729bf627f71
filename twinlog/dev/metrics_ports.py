"""Where the services of one machine tell their metrics: on ports in a row."""

from __future__ import annotations

from collections.abc import Sequence

from twinlog.dev.process import free_port, port_is_free

SETTING = "METRICS_ADDRESS"
FIRST = "127.0.0.1:9461"
"""The first service's; the others have the ports behind it."""
_CONSOLES = 9465
_MOST_STEPS = 100


def metrics_addresses(first: str, number: int) -> Sequence[str]:
    """Addresses for so many services, from a first one on; empty ones where that is empty.

    A port that is taken is left out, and so is that of the console. With port 0 all are any that are free.
    """
    if not first:
        return [""] * number
    host, _, port = first.rpartition(":")
    found: list[str] = []
    candidate = int(port)
    for _ in range(number):
        candidate = _next(host, candidate) if candidate else 0
        found.append(f"{host}:{candidate or free_port()}")
        candidate = candidate and candidate + 1
    return found


def _next(host: str, port: int) -> int:
    """The first port from one on that is free; 0 where there is none nearby."""
    ports = range(port, min(port + _MOST_STEPS, 65_536))
    return next((each for each in ports if each != _CONSOLES and port_is_free(host.strip("[]"), each)), 0)
