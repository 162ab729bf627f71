"""Tests of a domain, from a decider to everything at once: given / when / then, a world in memory, and simulation.

The public names are those of ``__init__.pyi``; each is imported when it is first asked for, so that a test of a domain
module loads neither gRPC nor asyncpg.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
