"""The W3C trace context of an event, as text: ``00-<trace id>-<span id>-<flags>``, in hex (w3.org/TR/trace-context)."""

from __future__ import annotations

from collections.abc import Mapping

_ODD = frozenset("13579bdf")
_LENGTH = 55


def is_sampled(traceparent: str) -> bool:
    """Whether spans of this trace are kept; False where there is no trace."""
    return len(traceparent) == _LENGTH and traceparent[-1] in _ODD


def trace_fields(traceparent: str) -> Mapping[str, str]:
    """What log lines carry of a trace: ``trace_id`` and ``span_id``; nothing where there is none."""
    if len(traceparent) != _LENGTH:
        return {}
    return {"trace_id": traceparent[3:35], "span_id": traceparent[36:52]}
