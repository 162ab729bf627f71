"""What a query needs to answer as of a moment: rows of views as they were, and cuts through all logs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from twinlog.log import cuts
from twinlog.log.history import Cut, History
from twinlog.log.past import Moment
from twinlog.log.past_rows import PastRow, PastRows
from twinlog.log.ports import Log
from twinlog.model.event import StreamId
from twinlog.model.schema import Schema
from twinlog.model.view import View
from twinlog.rpc.history_service import cut_at
from twinlog.rpc.peers import Peers


class HasPeers(Protocol):
    """What the past needs of its service."""

    log: Log
    schema: Schema

    @property
    def peers(self) -> Peers:
        """The services that it works with."""


class Past:
    """The past of a read side.

    past = Past(service)
    row = (await past.row(ROOMS, RoomRow, "rooms", StreamId("room", room_id), room_id, moment)).row
    """

    def __init__(self, service: HasPeers) -> None:
        self.peers = service.peers
        history: Callable[[str], Awaitable[History]] = service.peers.history
        self._rows = PastRows(history, service.log, service.schema)

    async def row(
        self, view: View[Any], of: type, log: str, stream: StreamId, key: str, upto: Moment
    ) -> PastRow:
        """A row of a view as it was at a moment of the stream that it is folded from.

        ``of``: the class of its rows; ``log``: that of the stream; ``key``: the row's. Raises StreamUnreadable,
        HistoryOutOfReach where the log's service cannot be asked, or Unavailable.
        """
        return await self._rows.row(view, of, log, stream, key, upto)

    async def cut(self, log: str, upto: Moment) -> Cut:
        """A position of each log, so that no event is in the cut without its cause: at a position of a log, at a time,
        or now. Raises HistoryOutOfReach, EventNotFound or Unavailable."""
        if upto.position:
            return await cut_at(self.peers, log, upto.position)
        return await cuts.at_time(await self.peers.histories(), upto.time)
