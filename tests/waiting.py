"""Waiting for a condition, with a bound: what tests do in place of sleeping."""

from twinlog.testing.waiting import until

__all__ = ["RETRIED_SOON", "until"]

RETRIED_SOON = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
"""Options of a channel to a server that may not listen yet: without them gRPC first waits for a second."""
