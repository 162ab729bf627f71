"""How servicers are registered: by what generated code has beside the class that each derives from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

Registration = tuple[Any, Callable[[Any, Any], None], str]
"""A servicer, the generated function that adds it to a server, and the service's full name."""

_GENERATED, _SERVICER = "_pb2_grpc", "Servicer"


def registered(servicers: Sequence[object]) -> Sequence[Registration]:
    """How they are added to a server; what is no servicer stays as it is."""
    return [each for one in servicers for each in registrations(one)]


def registrations(served: Any) -> Iterator[Registration]:
    """Those of a servicer, one for each generated class that it derives from; anything else stays as it is."""
    found = False
    for base in type(served).__mro__:
        service = base.__name__.removesuffix(_SERVICER)
        if base.__module__.endswith(_GENERATED) and service != base.__name__:
            add = getattr(import_module(base.__module__), f"add_{base.__name__}_to_server")
            file = import_module(base.__module__.removesuffix("_grpc")).DESCRIPTOR
            yield served, add, file.services_by_name[service].full_name
            found = True
    if not found:
        yield served
