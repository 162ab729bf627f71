"""What wires a service: the same function in a process, in a world and under an audit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from inspect import isasyncgen, isawaitable, isclass, isgenerator
from typing import Any, get_origin, get_type_hints

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
_MAY_BE_NONE = (Any, object, type(None))
_NO_QUERIES = "twinlog.postgres.sql"
"""Where a service without views of its own would have their queries: there are none."""


def servicers(wired: object, of: str, wire: object = None) -> Sequence[object]:
    """Those among what ``wire`` gave, the wiring of the service that is called ``of``. Raises WrongForm."""
    if wired is None:
        if promised := _promised(wire):
            raise WrongForm(
                of=f"wire of {of}",
                what=f"it gives nothing, and its annotation says {promised}; is a return missing?",
            )
        return ()
    if what := next((what for holds, what in _NO_SERVICERS if holds(wired)), ""):
        if isinstance(wired, Coroutine):
            wired.close()
        raise WrongForm(of=f"wire of {of}", what=what)
    return wired if isinstance(wired, tuple) else (wired,)


def _promised(wire: object) -> str:
    """The servicer that wiring says it returns; empty: it does not say, or says that there may be none."""
    try:
        said = get_type_hints(wire).get("return")
    except Exception:  # it has none, or some that only a type checker can read
        return ""
    said = get_origin(said) if get_origin(said) is tuple else said
    return said.__name__ if isclass(said) and said not in _MAY_BE_NONE else ""


async def wire_up(service: Service, spec: ServiceSpec, wire: Wire) -> None:
    """Wires a service of a process with the store of its spec's views. Raises ConfigurationError."""
    views = spec.views(service.log) if spec.views else PostgresViews(service.log, _NO_QUERIES, {})
    await service.wired(servicers(wire(service, views), spec.name, wire))
