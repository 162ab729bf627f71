"""What every store of views does, in Postgres and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests import servers
from tests.dead_letters.journal import Row, Source
from twinlog import PostgresViews, ViewStore
from twinlog.log.ports import CheckpointAdvance
from twinlog.model.view import AnyView
from twinlog.testing import START, MemoryViews
from twinlog.testing.conformance import RowOf, ViewsConformance
from twinlog.testing.internals import open_log

PACKAGE = "tests.dead_letters.sql"


class TestViews(ViewsConformance):
    """Both adapters."""

    @pytest.fixture(params=["memory", "postgres"])
    def server(self, request: pytest.FixtureRequest) -> str | None:
        """Where the views are kept; None: in memory."""
        return request.getfixturevalue("postgres_url") if request.param == "postgres" else None

    @pytest.fixture
    async def store(self, server: str | None) -> AsyncIterator[ViewStore]:
        if server is None:
            yield MemoryViews()
            return
        async with (
            servers.database(server) as database,
            open_log(server, database, "views", PACKAGE) as log,
        ):
            yield PostgresViews(log, PACKAGE, {"journal": Row})

    @pytest.fixture
    def view(self) -> AnyView:
        return Source().view()

    @pytest.fixture
    def row(self) -> RowOf:
        return lambda key, number: Row(key, f"{number}", START + timedelta(seconds=number))

    async def test_one_row_is_given_as_among_others(
        self, store: ViewStore, view: AnyView, row: RowOf
    ) -> None:
        assert isinstance(store, MemoryViews | PostgresViews)
        await store.commit({view: {"a": row("a", 1), "b": row("b", 2)}}, CheckpointAdvance("c", 0, 1))
        rows = await asyncio.gather(*(store.row(view, key) for key in ("a", "b", "nobody", "a")))
        assert rows == [row("a", 1), row("b", 2), None, row("a", 1)]
