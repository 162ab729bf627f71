"""What every store of views does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from twinlog.log.ports import CheckpointAdvance, Conflict
from twinlog.log.view_store import ViewStore
from twinlog.model.errors import CheckpointMoved
from twinlog.model.view import AnyView
from twinlog.testing.conformance.batches import append, batch, counter

RowOf = Callable[[str, int], Any]
"""From a key and a number, a row of the view: equal for equal ones, another for each other number."""

A = counter("a")


@pytest.mark.asyncio
class ViewsConformance:
    """The suite of an adapter of the view store: derive a test class with three fixtures.

    ``store`` gives an empty one, ``view`` a view that it has a table for, ``row`` a :data:`RowOf` that view.
    """

    async def test_there_is_nothing_at_first(self, store: ViewStore, view: AnyView) -> None:
        assert await store.checkpoint("c") == 0
        assert await store.rows(view, ["a", "b"]) == {}

    async def test_rows_are_stored_with_the_checkpoint(
        self, store: ViewStore, view: AnyView, row: RowOf
    ) -> None:
        rows = {"a": row("a", 1), "b": row("b", 2)}
        assert await store.commit({view: rows}, CheckpointAdvance("c", 0, 7)) is None

        assert await store.checkpoint("c") == 7
        assert await store.checkpoint("other") == 0
        assert (await store.checkpoints()).get("c") == 7
        assert await store.rows(view, ["a", "b", "nobody"]) == rows
        assert await store.rows(view, ["b"]) == {"b": rows["b"]}

    async def test_a_changed_row_replaces_the_one_before(
        self, store: ViewStore, view: AnyView, row: RowOf
    ) -> None:
        await store.commit({view: {"a": row("a", 1), "b": row("b", 1)}}, CheckpointAdvance("c", 0, 1))
        await store.commit({view: {"a": row("a", 2)}}, CheckpointAdvance("c", 1, 2))

        assert await store.rows(view, ["a", "b"]) == {"a": row("a", 2), "b": row("b", 1)}

    async def test_a_batch_that_changes_no_row_moves_the_checkpoint(
        self, store: ViewStore, view: AnyView
    ) -> None:
        await store.commit({view: {}}, CheckpointAdvance("c", 0, 3))
        await store.commit({}, CheckpointAdvance("c", 3, 5))
        assert await store.checkpoint("c") == 5

    async def test_a_checkpoint_that_was_moved_is_told_and_nothing_is_stored(
        self, store: ViewStore, view: AnyView, row: RowOf
    ) -> None:
        await store.commit({}, CheckpointAdvance("c", 0, 4))

        with pytest.raises(CheckpointMoved) as moved:
            await store.commit({view: {"a": row("a", 1)}}, CheckpointAdvance("c", 3, 6))

        assert (moved.value.facts["actual"], moved.value.facts["expected"]) == ("4", "3")
        assert await store.checkpoint("c") == 4
        assert await store.rows(view, ["a"]) == {}

    async def test_of_two_replicas_one_stores_its_rows(
        self, store: ViewStore, view: AnyView, row: RowOf
    ) -> None:
        attempts = (
            store.commit({view: {"a": row("a", number)}}, CheckpointAdvance("c", 0, number))
            for number in range(1, 9)
        )
        results = await asyncio.gather(*attempts, return_exceptions=True)

        assert results.count(None) == 1
        assert sum(isinstance(result, CheckpointMoved) for result in results) == 7
        winner = await store.checkpoint("c")
        assert await store.rows(view, ["a"]) == {"a": row("a", winner)}

    async def test_a_batch_is_appended_with_the_rows(
        self, store: ViewStore, view: AnyView, row: RowOf
    ) -> None:
        changes = {view: {"a": row("a", 1)}}
        assert await store.commit(changes, CheckpointAdvance("c", 0, 1), batch((A, 0, 2))) is None

        assert [event.version for event in await store.log.read(0, 10)] == [1, 2]
        assert await store.rows(view, ["a"]) == changes[view]

    async def test_a_batch_in_conflict_is_told_and_nothing_is_stored(
        self, store: ViewStore, view: AnyView, row: RowOf
    ) -> None:
        await append(store.log, batch((A, 0, 1)))

        changes = {view: {"a": row("a", 1)}}
        conflict = await store.commit(changes, CheckpointAdvance("c", 0, 1), batch((A, 0, 2)))

        assert isinstance(conflict, Conflict)
        assert [*conflict.streams] == [A]
        assert await store.checkpoint("c") == 0
        assert await store.rows(view, ["a"]) == {}
        assert await store.log.head() == 1
