"""Middleware: has a method whose request carries a request_id pass it along with what it appends."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool

from twinlog.log.units import CALLED_WITH_ID
from twinlog.rpc import Behavior, Context, Method


def needs_identity(method: Method, behavior: Behavior) -> Behavior:
    """The behavior; a call that would lose its request_id is refused when it decides an event without it."""
    if not _has_request_id(method.name):
        return behavior

    def identified(request: Any, context: Context) -> Any:
        if request.request_id:
            CALLED_WITH_ID.set(method.name)  # a call is a task, so this ends with it
        return behavior(request, context)

    return identified


def _has_request_id(method: str) -> bool:
    service, _, name = method.rpartition("/")
    try:
        declared = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return False
    return "request_id" in declared.input_type.fields_by_name
