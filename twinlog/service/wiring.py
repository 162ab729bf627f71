"""What wires a service: the same function in a process, in a world and under an audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twinlog.service.service import Service

Wire = Callable[[Service, Any], object]
"""Subscribes what a service reacts with and gives its servicer, several as a tuple, or None. It is called with the
service and with the store of its views."""


def servicers(wired: object) -> Sequence[object]:
    """Those among what a wiring gave."""
    if wired is None:
        return ()
    return wired if isinstance(wired, tuple) else (wired,)
