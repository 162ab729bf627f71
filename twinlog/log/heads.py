"""Heads: seals events that came without a link, and reports now and then how far the chain of a log is.

A head that was noted outside of the database proves the past, even against those who may write to the database. So
every replica logs it, at a bounded rate, and metrics and inspection tell it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import say
from twinlog.log.chain import Chained, Head

INTERVAL_SECONDS = 60.0
_BATCH = 500
_BETWEEN_BATCHES_SECONDS = 0.05
"""Keeps the work beside the commands: at most 10,000 events a second are sealed."""

Sign = Callable[[Head], Head]
"""Gives a head with a signature."""


def unsigned(head: Head) -> Head:
    """The head as it is."""
    return head


class Heads:
    """The head of one log's chain."""

    def __init__(
        self,
        log: str,
        chain: Chained,
        *,
        sign: Sign = unsigned,
        interval_seconds: float = INTERVAL_SECONDS,
        randomness: Randomness = random,
    ) -> None:
        """``interval_seconds``: between two heads that are logged."""
        self._log = log
        self._chain = chain
        self._sign = sign
        self._interval_seconds = interval_seconds
        self._logged = ""
        self._retrying = Retrying(
            say_failing=say.warning("chain.not_noted", log=log),
            say_working=say.info("chain.noting", log=log),
            on=(Exception,),  # whatever it is, it concerns no command
            first_seconds=1.0,
            cap_seconds=interval_seconds,
            randomness=randomness,
        )

    async def run(self) -> None:
        """Seals and logs endlessly, first after the interval."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self._retrying(self.note)
            self._retrying.succeeded()

    async def newest(self) -> Head | None:
        """The head as it is now, signed if there is a key; None where nothing was linked yet. Raises Unavailable."""
        link = await self._chain.newest_link()
        return self._sign(Head.of(self._log, link)) if link else None

    async def note(self) -> None:
        """Seals what came without a link, and logs the head if it is another than before. Raises Unavailable."""
        count = 0
        while sealed := await self._chain.seal(_BATCH):
            count += sealed
            await asyncio.sleep(_BETWEEN_BATCHES_SECONDS)
        if count:
            structlog.get_logger().info("chain.sealed", log=self._log, count=count)
        head = await self.newest()
        if head and head.hash != self._logged:
            self._logged = head.hash
            structlog.get_logger().info("chain.head", log=self._log, position=head.position, head=str(head))
