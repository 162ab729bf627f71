"""Twinlog: event sourcing, CQRS and sagas over gRPC, Postgres and NATS JetStream.

The public names are those of ``__init__.pyi``; each is imported when it is first asked for, so that a domain module
loads neither gRPC nor asyncpg. Also public: :mod:`twinlog.consume`, :mod:`twinlog.rpc`, :mod:`twinlog.dev`,
:mod:`twinlog.testing`, :mod:`twinlog.audit`, :mod:`twinlog.console` and the command :mod:`twinlog.cli`. All else is
private.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
