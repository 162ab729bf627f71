"""The streams that this process cannot read: named in health, told in the logs once, and tried again.

Nothing is stored of them. A stream that can be read again, because the program knows the type now or because the
stream was mended, is not among them any more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import NamedTuple

import structlog

from twinlog.log.transaction import Entry
from twinlog.log.units import StreamRef
from twinlog.model.errors import StreamUnreadable
from twinlog.model.event import StreamId

_MOST = 1_000
"""How many are remembered; beyond, the one that was found first is forgotten until it is read again."""
_NAMED = 5
"""How many health names."""
_AGAIN_SECONDS = 5.0
_AGAIN_STREAMS = 200


class Unreadable(NamedTuple):
    """A stream that cannot be read to its end."""

    so_far: Entry
    """The stream up to what cannot be read, where the next try begins."""
    why: StreamUnreadable

    def error(self) -> StreamUnreadable:
        """A new error for each caller: one that is raised again gathers the tracebacks of all."""
        return StreamUnreadable(**self.why.facts)


class UnreadableStreams:
    """Those of one log."""

    def __init__(self) -> None:
        self._known: OrderedDict[StreamId, Unreadable] = OrderedDict()
        self._any = asyncio.Event()
        self._told: OrderedDict[str, None] = OrderedDict()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known)

    @property
    def problem(self) -> str | None:
        """Which they are and why, in ASCII; None where there are none."""
        said = [str(each.why).removesuffix(".") for each in islice(reversed(self._known.values()), _NAMED)]
        if len(self._known) > _NAMED:
            said.append(f"and {len(self._known) - _NAMED} more")
        if said:
            said.append(f"commands are refused there; tried again every {_AGAIN_SECONDS:g} s")
        return "; ".join(said).encode("ascii", "backslashreplace").decode() or None

    def clear(self) -> None:
        """Forgets them: each is found again when it is read."""
        self._known.clear()
        self._any.clear()

    def so_far(self, stream: StreamId) -> Entry | None:
        """As much of a stream as could be read; None where it is not among them."""
        known = self._known.get(stream)
        return known.so_far if known else None

    def add(self, stream: StreamId, found: Unreadable) -> None:
        """Notes that a stream cannot be read, and logs it once."""
        before = self._known.pop(stream, None)
        self._known[stream] = found
        self._any.set()
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        if before is None or str(before.why) != str(found.why):
            self._log(found.why)
        found.why.__cause__ = None  # its traceback holds on to everything that was read

    def discard(self, stream: StreamId) -> None:
        """Notes that a stream can be read."""
        if stream in self._known:
            del self._known[stream]
            structlog.get_logger().info("stream.readable", stream=str(stream))
            if not self._known:
                self._any.clear()

    def tell(self, error: StreamUnreadable) -> None:
        """Logs, once, that a stream can be read and not be decided on: a defect of its aggregate."""
        if error.__cause__ is None or (text := str(error)) in self._told:
            return
        self._told[text] = None
        if len(self._told) > _MOST:
            self._told.popitem(last=False)
        self._log(error)

    async def run(self, read: Callable[[Sequence[StreamRef]], Awaitable[object]]) -> None:
        """Has them read again, some every few seconds; idle while there are none."""
        while True:
            await self._any.wait()
            await asyncio.sleep(_AGAIN_SECONDS)
            chosen = list(self._known.items())[:_AGAIN_STREAMS]
            for stream, _ in chosen:
                self._known.move_to_end(stream)
            try:
                await read([(each.so_far.aggregate, stream.id) for stream, each in chosen])
            except Exception as error:  # whatever it is passes, or shows elsewhere: there is a next time
                structlog.get_logger().debug("stream.not_read_again", why=str(error))

    @staticmethod
    def _log(error: StreamUnreadable) -> None:
        structlog.get_logger().error("stream.unreadable", **error.facts, exc_info=error)
