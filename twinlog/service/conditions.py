"""What has to hold before a service begins: a start checks it, and so does ``twinlog doctor``, by the same lists.

A condition only reads. What a start keeps, it keeps once all of them hold, so that one that is refused has changed
nothing that the next is compared with. What passes is waited for; what does not is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from inspect import isawaitable
from typing import NamedTuple, TypeVar

import structlog

from twinlog._aio.retrying import Retrying
from twinlog.model.errors import ConfigurationError, Unavailable, WrongSetting

T = TypeVar("T")

ADDRESS = "address"
"""The name of the one that does not hold where the service itself is running."""
STREAMS = "streams"
"""The name of the one that nobody can tell while NATS is away; a start goes on then."""


class Condition(NamedTuple):
    """One thing that has to hold."""

    name: str
    """For people."""
    check: Callable[[], object]
    """Raises ConfigurationError where it does not hold, and Unavailable where nobody can tell now. It may be async."""

    async def hold(self) -> None:
        """Checks it. Raises what :attr:`check` does."""
        if isawaitable(checking := self.check()):
            await checking


async def hold(conditions: Sequence[Condition]) -> None:
    """Checks them in order. What nobody can tell now is no refusal: a server that is away is an outage."""
    for condition in conditions:
        with suppress(Unavailable):
            await condition.hold()


async def waited_for(what: str, step: Callable[[], Awaitable[T]]) -> T:
    """What a step gives, which is done again while a server will not have it. Raises ConfigurationError.

    A process that ended instead would be started again, and meet the same.
    """
    log = structlog.get_logger()

    async def attempted() -> T:
        try:
            return await step()
        except WrongSetting as error:
            raise ConfigurationError(str(error)) from error

    retrying = Retrying(
        say_failing=lambda error: log.warning("start.waiting", what=what, why=str(error)),
        say_working=lambda: log.info("start.going_on", what=what),
        on=(Unavailable,),
    )
    return await retrying(attempted)
