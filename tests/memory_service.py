"""A service over memory, of which a test says only what it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from twinlog import Log, Schema, Service
from twinlog.log.lease import ALWAYS_HELD
from twinlog.service.environment import Environment
from twinlog.testing.internals import RandomIds, SystemClock, Twin


def memory_service(name: str, log: Log, twin: Callable[[str], Twin], **parts: Any) -> Service:
    """``parts``: whatever else the service is to have. A task that raises fails the test."""
    usual = {
        "lease": lambda _work: ALWAYS_HELD,
        "clock": SystemClock(),
        "ids": RandomIds(),
        "on_crash": _crashed,
    }
    around = {each.name for each in fields(Environment)}
    given = {part: parts.pop(part) for part in around & {*parts}}
    return Service(name, log, Environment(twin=twin, **{**usual, **given}), **{"schema": Schema(), **parts})


def _crashed(task: str, error: BaseException) -> None:
    raise AssertionError(task) from error
