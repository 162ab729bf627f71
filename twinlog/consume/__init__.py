"""A delivered event on its way to its effect: cursor, dead-lettering, middleware, consumer."""

from twinlog.consume.consumer import Consumer, ConsumerWrapper, Middleware, Progress

__all__ = ["Consumer", "ConsumerWrapper", "Middleware", "Progress"]
