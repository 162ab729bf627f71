"""The log as those read it who only look: a crowd of them leaves connections to the work."""

from __future__ import annotations

import asyncio
from inspect import iscoroutinefunction
from typing import Any

from twinlog.log.ports import Log
from twinlog.observe.wrapper import Wrapper

_AT_ONCE = 2
"""Of the five connections that a process has by default; leases, too, take half of them at most."""


class InTurn(Wrapper):
    """Has so many look at a log at once, for operators and other services; the others wait for their turn.

    Without it, hundreds that begin to follow a log take every connection from commands, the relay and the leases.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def __getattr__(self, name: str) -> Any:
        part = super().__getattr__(name)
        if not iscoroutinefunction(part):
            return part

        async def in_turn(*arguments: Any, **named: Any) -> Any:
            async with self._turns:
                return await part(*arguments, **named)

        return in_turn
