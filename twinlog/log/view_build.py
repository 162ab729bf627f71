"""One build of a view, and who keeps it; see :mod:`twinlog.log.view_builds`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from twinlog.model.view import versioned

NEVER = datetime.fromtimestamp(0, UTC)
"""When a build was begun of which nobody has noted it, as of a home."""


class Build(NamedTuple):
    """One build of a view."""

    view: str
    number: int
    """1, 2, 3 … within the view."""
    version: int
    """The version of the view that it is of."""
    home: bool
    """Whether it is the table that a migration made, which the declared projections keep."""
    live: bool
    """Whether queries read it."""
    dropped: bool
    """Whether nobody keeps it any more; only a home is remembered then."""
    begun_at: datetime
    live_since: datetime | None = None
    live_until: datetime | None = None
    """When queries left it last; None: never."""
    share: int = 100
    """Percent of the time that it may be filled in."""
    may_lack: bool = False
    """Whether it was confirmed, when queries began to read it, that it may lack events which it has set aside."""

    @property
    def place(self) -> str:
        """Where its table is; empty: at home."""
        return "" if self.home else f"{self.view}@{self.number}"

    @property
    def table(self) -> str:
        """The name of its table, wherever that is."""
        return versioned(self.view, self.version)


def consumer_of(build: Build, projection: str, source: str) -> str:
    """The name of the consumer that keeps a build up to date with a log, by that of the declared projection."""
    prefix = projection.rpartition(".")[0] or projection
    return projection if build.home else f"{prefix}.{build.place}.{source}"
