"""A fake of the outside world: a mail server that remembers what it was asked, and can be down, slow or strict."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from tests.dead_letters.journal import JOURNAL, Write
from twinlog import Attempt, Dispatch, Effects, Unavailable, on


class Refused(Exception):
    """The server will not have this one."""


class Server:
    """Keyed by idempotency key, as a good one is."""

    def __init__(self) -> None:
        self.down = False
        self.refuses: set[str] = set()
        """Texts that it has an error for."""
        self.hangs: set[str] = set()
        """Texts that it never answers."""
        self.asked: list[str] = []
        """The text of every call, repetitions too."""
        self.sent: dict[str, str] = {}
        """What was sent, by key."""
        self.attempts: Counter[str] = Counter()
        self.open = self.most_open = 0
        self.seconds = 0.0
        """What a call takes."""
        self.works = asyncio.Event()
        """Cleared: calls wait."""
        self.works.set()

    async def send(self, text: str, attempt: Attempt) -> None:
        self.asked.append(text)
        self.attempts[text] = attempt.number
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self.works.wait()
            await asyncio.sleep(self.seconds)
            if text in self.hangs:
                await asyncio.Event().wait()
            if self.down:
                raise Unavailable("no route to the mail server")
            if text in self.refuses:
                raise Refused(text)
            self.sent.setdefault(attempt.key, text)
        finally:
            self.open -= 1

    def texts(self, key: str) -> list[str]:
        """What was sent for a key, in order."""
        return [text for text in self.sent.values() if text.partition(":")[0] == key]


def effects(server: Server, **changes: Any) -> Effects:
    """Sends each ``key:value`` of the source log, then writes the value into the key's journal."""

    async def send(event: StringValue, attempt: Attempt) -> Dispatch:
        await server.send(event.value, attempt)
        key, _, value = event.value.partition(":")
        return on(JOURNAL, key).do(Write(int(value)))

    settings: dict[str, Any] = {
        "first_wait": timedelta(),
        "longest_wait": timedelta(),
        "retries": 2,
        "timeout": timedelta(seconds=30),
        **changes,
    }
    return Effects(log="source", actor="tests", name="mail", rules={StringValue: send}, **settings)
