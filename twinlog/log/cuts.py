"""Consistent cuts through several logs: a position of each, such that the cause of every event is in it, too.

A time alone does not give one: clocks differ, and an effect may seem to be older than its cause. So what was recorded
by the time is shrunk until the cause of every event is in it: what is left is the largest cut that a time has.
(Friedemann Mattern, "Virtual Time and Global States of Distributed Systems".)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from twinlog.log.history import Cut, History


async def closed(histories: Mapping[str, History], cut: Cut) -> Cut:
    """The largest consistent cut in one that may not be. Raises Unavailable."""
    while True:
        found = await asyncio.gather(*(histories[log].closed(cut) for log in cut))
        within = dict(zip(cut, found, strict=True))
        if within == cut:
            return cut
        cut = within


async def at_time(histories: Mapping[str, History], time: datetime | None) -> Cut:
    """The cut with what was recorded by a time; None: now. Raises Unavailable."""
    found = await asyncio.gather(*(history.at(time) for history in histories.values()))
    return await closed(histories, {log: at.position for log, at in zip(histories, found, strict=True)})


async def at_position(histories: Mapping[str, History], log: str, position: int, time: datetime) -> Cut:
    """The cut with a position of a log, all that led to it, and what was recorded elsewhere by its ``time``.

    Raises Unavailable.
    """
    led = await _led_to(histories, {**dict.fromkeys(histories, 0), log: position})
    found = await asyncio.gather(*(history.at(time) for history in histories.values()))
    recorded = {of: at.position for of, at in zip(histories, found, strict=True)}
    wanted = {of: max(led[of], recorded[of]) for of in histories}
    return await closed(histories, {**wanted, log: position})


async def _led_to(histories: Mapping[str, History], cut: Cut) -> Cut:
    """The smallest consistent cut that has all of another one."""
    while True:
        causes = await asyncio.gather(*(histories[log].causes(cut[log]) for log in cut))
        grown = {log: max(cut[log], *(each.get(log, 0) for each in causes)) for log in cut}
        if grown == cut:
            return cut
        cut = grown
