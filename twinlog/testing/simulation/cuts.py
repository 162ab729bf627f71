"""Consistent cuts while everything goes wrong: with each event, its cause is in the cut."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from twinlog.log import cuts
from twinlog.log.history import Cut, LogHistory
from twinlog.testing.simulation.scene import Scene
from twinlog.testing.simulation.violation import Violation

_EVERY = 10
"""Commits between two looks."""
_LOOKED_AT = 300
"""Events of each log before the cut whose causes are looked for: clocks are off by seconds."""


class Cuts:
    """Cuts at times just gone by, now and then. What is wrong is told at the next commit."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._commits = 0
        self._looks: set[asyncio.Task[None]] = set()
        self._wrong = ""

    def committed(self) -> None:
        """Looks now and then. Raises Violation."""
        self.judge()
        self._commits += 1
        if self._commits % _EVERY == 0:
            ago = timedelta(seconds=self._commits // _EVERY % 10 * 0.2)
            look = asyncio.get_running_loop().create_task(self._look(self._scene.now() - ago))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    def judge(self) -> None:
        """Raises Violation where something was wrong."""
        if self._wrong:
            raise Violation("cuts", self._wrong)

    async def _look(self, time: datetime) -> None:
        logs = self._scene.logs
        eras = {name: log.eras for name, log in logs.items()}
        heads = {name: len(log.events) for name, log in logs.items()}
        cut = await cuts.at_time({name: LogHistory(log) for name, log in logs.items()}, time)
        if any(log.eras != eras[name] or len(log.events) < heads[name] for name, log in logs.items()):
            return  # one has lost events meanwhile
        self._wrong = self._wrong or self._without_cause(cut)

    def _without_cause(self, cut: Cut) -> str:
        """An event in a cut whose cause is not; empty: there is none."""
        for name, log in self._scene.logs.items():
            for event in log.events[max(0, cut[name] - _LOOKED_AT) : cut[name]]:
                of, _, position = event.metadata.causation_id.partition("/")
                if of in cut and position.isdigit() and int(position) > cut[of]:
                    return f"{event.address} is in the cut {dict(cut)}, and its cause {of}/{position} is not"
        return ""
