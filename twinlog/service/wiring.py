"""What wires a service: the same function in a process, in a world and under an audit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from inspect import isasyncgen, isawaitable, isclass, isgenerator
from typing import Any

from twinlog.model.forms import WrongForm
from twinlog.postgres.views import PostgresViews
from twinlog.service.service import Service
from twinlog.service.spec import ServiceSpec

Wire = Callable[[Service, Any], object]
"""Subscribes what a service reacts with and gives its servicer, several as a tuple, or None. It is called with the
service and with the store of its views."""

_NO_SERVICERS: Sequence[tuple[Callable[[object], bool], str]] = (
    (
        lambda wired: isawaitable(wired) or isasyncgen(wired),
        "it is async, so that nothing of it has run; make it a plain function",
    ),
    (isgenerator, "it yields, so that nothing of it has run; let it return its servicers"),
    (
        lambda wired: isinstance(wired, list | set | dict),
        "it gives several servicers in another form; give them as a tuple",
    ),
    (isclass, "it gives the class of a servicer; call it, as RoomService(…)"),
)
_NO_QUERIES = "twinlog.postgres.sql"
"""Where a service without views of its own would have their queries: there are none."""


def servicers(wired: object, of: str) -> Sequence[object]:
    """Those among what the wiring of a service gave, which is called ``of``. Raises WrongForm."""
    if wired is None:
        return ()
    if what := next((what for holds, what in _NO_SERVICERS if holds(wired)), ""):
        if isinstance(wired, Coroutine):
            wired.close()
        raise WrongForm(of=f"wire of {of}", what=what)
    return wired if isinstance(wired, tuple) else (wired,)


async def wire_up(service: Service, spec: ServiceSpec, wire: Wire) -> None:
    """Wires a service of a process with the store of its spec's views. Raises ConfigurationError."""
    views = spec.views(service.log) if spec.views else PostgresViews(service.log, _NO_QUERIES, {})
    await service.wired(servicers(wire(service, views), spec.name))
