"""What is logged of work that fails and works again, once per fault: the two halves of a :class:`Retrying`."""

from __future__ import annotations

import logging
from collections.abc import Callable

import structlog

from twinlog.model.errors import unexpected


def warning(event: str, **facts: str) -> Callable[[Exception], None]:
    """Logs what fails as a warning, and with a traceback what nobody expected."""
    return lambda error: _failing(logging.WARNING, event, error, facts)


def error(event: str, **facts: str) -> Callable[[Exception], None]:
    """The same as an error."""
    return lambda error: _failing(logging.ERROR, event, error, facts)


def info(event: str, **facts: str) -> Callable[[], None]:
    """Logs that it works again."""
    return lambda: structlog.get_logger().log(logging.INFO, event, **facts)


def _failing(level: int, event: str, error: Exception, facts: dict[str, str]) -> None:
    structlog.get_logger().log(level, event, **facts, problem=str(error), exc_info=unexpected(error))
