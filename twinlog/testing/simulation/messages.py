"""Short messages between processes, as core NATS carries them: they overtake each other, and anybody may send one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any, NamedTuple

from twinlog.testing.simulation.faults import MESSAGES
from twinlog.testing.simulation.loop import Life
from twinlog.testing.simulation.network import Network, latency

Heard = Callable[[Any], Awaitable[None]]


class Message(NamedTuple):
    data: bytes


class Subscriber(NamedTuple):
    life: Life
    subject: str
    heard: Heard


class MessageServer:
    """Carries them. In bad times each is followed by another that says what is not so."""

    def __init__(self, network: Network, seed: int, failed: Callable[[BaseException], None]) -> None:
        self._network = network
        self._chance = Random(f"{seed}/{MESSAGES}")
        self._failed = failed
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers = [*(each for each in self._subscribers if each.life.alive), subscriber]

    def publish(self, subject: str, payload: bytes) -> None:
        """Sends to the present subscribers."""
        loop = self._network.loop
        sent = [payload]
        if self._network.weather.bad("forged messages", MESSAGES, loop.time()):
            sent.append(forged(payload, self._chance))
        for data in sent:
            for each in self._subscribers:
                if each.life.alive and each.subject == subject:
                    told = partial(self._tell, each, data)
                    loop.call_later(latency(self._chance), told, context=loop.nobody)

    def _tell(self, subscriber: Subscriber, data: bytes) -> None:
        self._network.loop.start(self._telling(subscriber, data), subscriber.life)

    async def _telling(self, subscriber: Subscriber, data: bytes) -> None:
        try:
            await subscriber.heard(Message(data))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(error)


class RemoteMessages:
    """Messages as a process sends and hears them."""

    def __init__(self, server: MessageServer, life: Life) -> None:
        self._server = server
        self._life = life

    async def publish(self, subject: str, payload: bytes) -> None:
        self._server.publish(subject, payload)

    async def subscribe(self, subject: str, *, cb: Heard) -> None:
        self._server.subscribe(Subscriber(self._life, subject, cb))


def forged(payload: bytes, chance: Random) -> bytes:
    """The same message from somebody else, with all that it counts counted too high."""
    told = json.loads(payload)
    more = {key: value + chance.randint(1, 6) for key, value in told.items() if isinstance(value, int)}
    return json.dumps({**told, **more, "from": "somebody else"}).encode()
