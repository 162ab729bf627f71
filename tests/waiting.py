"""Waiting for a condition, with a bound: what tests do in place of sleeping."""

from twinlog.testing.waiting import until

__all__ = ["until"]
