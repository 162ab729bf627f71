"""What wires a service: the same function in a process, in a world and under an audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twinlog.postgres.views import PostgresViews
from twinlog.service.service import Service
from twinlog.service.spec import ServiceSpec

Wire = Callable[[Service, Any], object]
"""Subscribes what a service reacts with and gives its servicer, several as a tuple, or None. It is called with the
service and with the store of its views."""

_NO_QUERIES = "twinlog.postgres.sql"
"""Where a service without views of its own would have their queries: there are none."""


def servicers(wired: object) -> Sequence[object]:
    """Those among what a wiring gave."""
    if wired is None:
        return ()
    return wired if isinstance(wired, tuple) else (wired,)


async def wire_up(service: Service, spec: ServiceSpec, wire: Wire) -> None:
    """Wires a service of a process with the store of its spec's views. Raises ConfigurationError."""
    views = spec.views(service.log) if spec.views else PostgresViews(service.log, _NO_QUERIES, {})
    await service.wired(servicers(wire(service, views)))
