"""What a scenario works on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from proof.chaos.load import Load
from proof.chaos.rig import Replica, Rig

Say = Callable[[str], None]

_NOTICED_WITHIN_SECONDS = 60.0


@dataclass
class Stage:
    """What a scenario works on."""

    rig: Rig
    load: Load
    rng: Random
    say: Say
    complain: Callable[[str], None]
    """Records a problem."""

    async def go_on(self, seconds: float) -> None:
        """Lets the load run for so many seconds."""
        await asyncio.sleep(seconds)

    async def felt(self, event: str) -> None:
        """Lets the load run until a service has logged ``event``; complains where none does: no fault was felt."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_NOTICED_WITHIN_SECONDS):
                while not any(f'"{event}"' in line for line in self.rig.lines):
                    await asyncio.sleep(0.1)
                return
        self.complain(f"nobody noticed: no service said {event}")

    async def kill(self, replica: Replica) -> None:
        self.say(f"kill -9 {replica}")
        await replica.kill()
