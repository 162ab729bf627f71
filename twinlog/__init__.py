"""Twinlog: event sourcing, CQRS and sagas over gRPC, Postgres and NATS JetStream.

The public names are those of ``__init__.pyi``; each is imported when it is first asked for, so that a domain module
loads neither gRPC nor asyncpg. Public besides: :mod:`twinlog.consume`, :mod:`twinlog.rpc`, :mod:`twinlog.dev`,
:mod:`twinlog.testing` and :mod:`twinlog.cli`. Everything else is private.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
