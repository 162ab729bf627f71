"""Structured logs: for reading on a terminal, JSON elsewhere; every line carries its call's correlation id."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.contextvars import merge_contextvars
from structlog.types import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "pretty", "json"]


def configure_logging(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:
    """Sets up the process's logging, both structlog's and the standard library's.

    The format "auto" is pretty on a terminal and JSON elsewhere. Lines go to ``stream``, by default stderr.
    """
    out = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("iso", utc=True),
    ]
    renderers = _pretty(out) if format == "pretty" or (format == "auto" and out.isatty()) else _json()
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    _route_standard_library([*shared, _component], renderers, level, out)


def _pretty(out: TextIO) -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
    ]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _route_standard_library(
    shared: list[Processor], renderers: list[Processor], level: Level, out: TextIO
) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries say too much at info.
    root.setLevel(logging.DEBUG if level == "debug" else max(logging.WARNING, _number(level)))


def _number(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _component(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord | None = event.get("_record")
    if record is not None:
        event["component"] = record.name
    return event
