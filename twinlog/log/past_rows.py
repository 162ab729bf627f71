"""Rows of views as they were, folded from the log of the stream that each is about; the view itself has only now.

Like states, they are kept at every so many versions of the stream, so that any moment is read at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from twinlog.log.history import History, OtherHistory
from twinlog.log.kept_snapshots import spread
from twinlog.log.past import KeepsRows, KeptRow, Moment, RowKey
from twinlog.log.ports import Log
from twinlog.log.snapshots import ValueCodec, snapshot_schema
from twinlog.model.errors import StreamUnreadable, Unavailable, named
from twinlog.model.event import Recorded, StreamId
from twinlog.model.schema import Schema
from twinlog.model.view import View

KEEP_EVERY = 200
"""Versions between two kept rows: they are small, and the events between come from another service."""
KEEP_BYTES = 16 * 2**20
"""About what the rows of one stream may take: where they would take more, they are kept at fewer versions."""


class PastRow(NamedTuple):
    """A row of a view as it was."""

    row: Any
    """None: there was none."""
    version: int
    """Of its stream; 0: it had not begun."""
    position: int
    """Of the last event of its stream by then."""


class PastRows:
    """The rows of one process's views as they were."""

    def __init__(self, history: Callable[[str], Awaitable[History]], store: Log, schema: Schema) -> None:
        """``history`` gives that of a log, by name. ``store``: the log beside the views, where rows are kept."""
        self._history = history
        self._store = store
        self._schema = schema
        self._unfit: set[str] = set()
        """Views whose rows pydantic cannot encode, so that no row of theirs is kept."""

    async def row(
        self, view: View[Any], of: type, log: str, stream: StreamId, key: str, upto: Moment
    ) -> PastRow:
        """A row of a view as it was at a moment of the stream that it is about.

        ``of``: the class of its rows. Raises StreamUnreadable, HistoryOutOfReach or Unavailable.
        """
        history, codec = await self._history(log), self._codec(view, of)
        at = RowKey(view.name, log, str(stream))

        async def folded(since: PastRow, after_id: UUID | None) -> PastRow:
            found = since
            async for events in history.events(stream, upto, since.version, after_id):
                for event in events:
                    found = self._after(view, key, found, event)
                    if codec and event.version % KEEP_EVERY == 0 and found.row is not None:
                        await self._keep(at, codec, event, found.row)
            return found

        nearest = None
        if codec and isinstance(self._store, KeepsRows):
            nearest = await self._store.nearest_row(at, self._marked(codec), upto)
        if codec and nearest:
            with suppress(OtherHistory, ValueError):  # it was kept in another history, or is damaged
                since = PastRow(codec.decode(nearest.row), nearest.version, nearest.position)
                return await folded(since, nearest.event_id)
        return await folded(PastRow(None, 0, 0), None)

    def _after(self, view: View[Any], key: str, before: PastRow, event: Recorded) -> PastRow:
        """The row after an event. Raises StreamUnreadable."""
        row = before.row
        try:
            for message in self._schema.decode(event):
                if key in view.keys(event, message):
                    row = view.after(key, row, event, message)
        except Exception as error:  # an event that cannot be read, or a view that cannot bear it
            why = f"view {view.name} fails over {event.type} ({event.address}): {named(error)}"
            raise StreamUnreadable(stream=event.stream, version=event.version, why=why) from error
        return PastRow(row, event.version, event.position)

    async def _keep(self, at: RowKey, codec: ValueCodec, event: Recorded, row: Any) -> None:
        if not isinstance(self._store, KeepsRows):
            return
        encoded = codec.encode(row)
        if event.version % spread(KEEP_EVERY, KEEP_BYTES, event.version, len(encoded)):
            return
        place = event.version, event.position, event.recorded_at, event.event_id
        kept = KeptRow(*place, self._marked(codec), encoded)
        with suppress(Unavailable):  # it is only a cache
            await self._store.keep_row(at, kept)

    def _marked(self, codec: ValueCodec) -> str:
        return snapshot_schema(codec, self._schema)

    def _codec(self, view: View[Any], of: type) -> ValueCodec | None:
        if view.name in self._unfit:
            return None
        try:
            return ValueCodec(of)
        except Exception as error:  # whatever pydantic raises over a class that it does not understand
            self._unfit.add(view.name)
            structlog.get_logger().warning("rows.not_kept", view=view.name, why=str(error))
            return None
