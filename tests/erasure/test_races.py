"""An erasure meets what others do at that moment, in every order that a seed comes to: what it left opens nowhere."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.erasure.guests import M
from twinlog import Metadata, Personal, StreamId
from twinlog.log.keys import cipher
from twinlog.memory.keys import MemoryKeys
from twinlog.model.event import NewEvent
from twinlog.model.personal import unseal

NAME = "Zephyrine Quartermaine"
ADA = StreamId("guest", "ada")


class SlowKeys(MemoryKeys):
    """Each question takes its time, before and after it is answered."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self.ever: set[bytes] = set()

    async def _pass(self) -> None:
        for _ in range(self._dice.randrange(4)):
            await asyncio.sleep(0)

    async def get_or_make(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        await self._pass()
        found = await super().get_or_make(subjects)
        self.ever |= {key for key in found.values() if key}
        await self._pass()
        return found

    async def destroy(self, subject: str) -> bool:
        await self._pass()
        was = await super().destroy(subject)
        await self._pass()
        return was

    async def destroyed(self, within: timedelta) -> Collection[str]:
        await self._pass()
        return await super().destroyed(within)


class Forgetful(SlowKeys):
    """A planted bug: a destroyed key leaves no mark, and the next event gets a fresh one."""

    async def destroy(self, subject: str) -> bool:
        was = await super().destroy(subject)
        self._keys.pop(subject, None)
        return was


async def _left_open(keys: SlowKeys, dice: random.Random) -> list[str]:
    """What two processes wrote about a person, while one of them erased them, that a key of today opens."""
    here, there = Personal(keys), Personal(keys)
    stored: list[Any] = []

    async def writes(personal: Personal) -> None:
        for version in range(3):
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            event = NewEvent.of(ADA, version + 1, uuid4(), M["GuestNamed"](name=NAME), Metadata(), "")
            stored.extend(await personal.sealed([event]))

    async def erases() -> None:
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        await here.erase("ada")

    await asyncio.gather(writes(here), writes(there), erases())
    texts = [M["GuestNamed"].FromString(event.payload).name for event in stored]
    assert not [text for text in texts if NAME in text]
    now = (await keys.get(["ada"])).get("ada")
    return [text for text in texts if now and unseal(cipher(now), "ada", text)]


@pytest.mark.parametrize("kind", [SlowKeys, Forgetful])
async def test_no_order_of_events_leaves_a_key(kind: type[SlowKeys]) -> None:
    found = []
    for seed in range(60):
        dice = random.Random(seed)
        found += await _left_open(kind(dice), dice)
    assert bool(found) == (kind is Forgetful), "and the planted bug is found"
