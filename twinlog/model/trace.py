"""The W3C trace context of an event, as text: ``00-<trace id>-<span id>-<flags>``, in hex (w3.org/TR/trace-context)."""

from __future__ import annotations

from collections.abc import Mapping

from twinlog.model.event import Metadata

SAMPLED = frozenset("13579bdf")
"""What the text ends with where spans of the trace are kept; of every event that is asked, without a call."""
UNSAMPLED = frozenset("02468ace")
"""What it ends with where they are not; an empty text ends with neither."""
_LENGTH = 55


def trace_fields(traceparent: str) -> Mapping[str, str]:
    """What log lines carry of a trace: ``trace_id`` and ``span_id``; nothing where there is none."""
    if len(traceparent) != _LENGTH:
        return {}
    return {"trace_id": traceparent[3:35], "span_id": traceparent[36:52]}


def log_fields(metadata: Metadata) -> Mapping[str, str]:
    """What log lines carry of an event: its correlation id, and its trace if it has one."""
    return {"correlation_id": metadata.correlation_id, **trace_fields(metadata.traceparent)}
