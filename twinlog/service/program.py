"""A program of one service: what it is and how it is wired are all that differs from one to the next."""

from __future__ import annotations

import sys

from twinlog.model.errors import ConfigurationError
from twinlog.service import runtime
from twinlog.service.process import open_service
from twinlog.service.runtime import Main, Shutdown
from twinlog.service.settings import load
from twinlog.service.spec import ServiceSpec
from twinlog.service.wiring import Wire


def run(program: Main | ServiceSpec, wire: Wire | None = None, /) -> int:
    """Runs a service until it is asked to stop, and ends the process: ``run(SPEC, wire)`` is a whole ``__main__``.

    ``wire`` gets the service and the store that the spec's ``views`` makes. It subscribes policies, projections,
    effects and sagas, and returns the service's servicer, a tuple of several, or None. :class:`~twinlog.testing.Hosted`
    takes the same function.

    An async function ``main(shutdown)`` may take the place of both and do what it likes, such as :func:`open_service`;
    ``run`` then returns the exit code, for ``sys.exit``.

    SIGTERM, SIGINT and SIGHUP, which is ignored under nohup, request the :class:`Shutdown`; a second signal cuts it
    short. The code is 0 after an orderly stop, 1 after a crash, and 2 after a :class:`ConfigurationError`, which is one
    line on stderr. On SIGUSR1, SIGUSR2 and SIGQUIT the process writes to stderr what it is doing, even while its event
    loop hangs.
    """
    if isinstance(program, ServiceSpec) and wire is not None:
        sys.exit(runtime.run(main_of(program, wire)))
    if not isinstance(program, ServiceSpec) and callable(program) and wire is None:
        return runtime.run(program)
    raise ConfigurationError(
        "run takes a spec and what wires its service, run(SPEC, wire), or run(main) alone"
    )


def main_of(spec: ServiceSpec, wire: Wire) -> Main:
    """The ``main`` of a service's program: with the spec's settings and views, wired and served."""

    async def main(shutdown: Shutdown) -> None:
        async with open_service(spec, load(spec.settings), shutdown, wire=wire) as service:
            await service.serve()

    return main
