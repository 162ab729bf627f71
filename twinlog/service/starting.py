"""Steps of a start: what passes is waited for, whenever it happens; what does not is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from twinlog._aio.retrying import Retrying
from twinlog.model.errors import ConfigurationError, Unavailable, WrongSetting

T = TypeVar("T")


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
