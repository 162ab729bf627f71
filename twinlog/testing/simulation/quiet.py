"""The kernel in a run: silent besides its defects, and with the bounds of the plan."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import structlog

from twinlog.consume import filling
from twinlog.log import group_commit
from twinlog.model.errors import StreamUnreadable, TwinlogError
from twinlog.testing.simulation.newer import UNKNOWN
from twinlog.testing.simulation.scenario import Plan


@contextmanager
def defects_told_to(fail: Callable[[BaseException], None]) -> Iterator[None]:
    """Silences the kernel's logs, besides the defects that it survives and logs."""

    def spy(_logger: Any, _method: str, line: Any) -> Any:
        told = line.get("exc_info")
        error = told if isinstance(told, BaseException) else sys.exc_info()[1]
        if told and error is not None and _is_defect(error):
            fail(error)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure([spy], structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)


def _is_defect(error: BaseException) -> bool:
    """No stream is unreadable here, unless an aggregate fails, or a newer version wrote to it."""
    if isinstance(error, StreamUnreadable):
        return UNKNOWN not in str(error)
    return not isinstance(error, TwinlogError)


@contextmanager
def bounds_of(plan: Plan) -> Iterator[None]:
    """Inside the block, writers shut others out after so many lost races as the plan says, and builds of views are
    filled from the log however little it has, two events at a time."""
    rounds = patch.object(group_commit, "_OPTIMISTIC_ROUNDS", plan.optimistic_rounds)
    with rounds, patch.multiple(filling, CHUNK=2, NEAR=0):
        yield
