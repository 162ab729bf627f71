"""Builders of what goes into a log: those of the conformance suites."""

from twinlog.testing.conformance.batches import (
    METADATA,
    NOW,
    append,
    batch,
    counter,
    grow,
    new_event,
    recorded,
)

__all__ = ["METADATA", "NOW", "append", "batch", "counter", "grow", "new_event", "recorded"]
