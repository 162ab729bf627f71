"""Hints over core NATS: that there may be something new to look at. Anybody can send one, so none is believed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

APART_SECONDS = 0.005
"""Hints that come faster than this are taken together, so that a flood of them costs a bounded number of looks."""


class Hints:
    """The hints on one subject. What a message says is not read."""

    def __init__(self, client: Client, subject: str) -> None:
        self._client = client
        self._subject = subject
        self._heard = asyncio.Event()
        self._listening = False
        self._last_taken = float("-inf")

    async def give(self) -> None:
        """Tells all that wait in :meth:`taken`, in any process. May get lost."""
        with suppress(NatsError):
            await self._client.publish(self._subject, b"")

    async def taken(self, timeout_seconds: float) -> None:
        """Returns at the next hint, or after ``timeout_seconds``; a hint that comes alone is not delayed."""
        if not self._listening:
            await self._client.subscribe(self._subject, cb=self._on_message)
            self._listening = True
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._heard.wait()
                await asyncio.sleep(self._last_taken + APART_SECONDS - loop.time())
        self._last_taken = loop.time()
        self._heard.clear()

    async def _on_message(self, _message: Msg) -> None:
        self._heard.set()
