"""Wherever a watch is interrupted and resumed, it is told every last state, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.watches.board import CONSUMERS, PACKAGE, Board, Watcher, views
from twinlog.log.view_store import NotingViewStore
from twinlog.model import row_changes
from twinlog.model.row_changes import Mark, Noted
from twinlog.rpc import watches
from twinlog.testing import MemoryViews
from twinlog.testing.internals import open_log

KEYS, COLORS = ("a", "b", "c"), ("red", "blue", "")
LOGS = tuple(CONSUMERS)
PIECE = st.tuples(st.sampled_from(KEYS), st.sampled_from(COLORS))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(LOGS), st.lists(PIECE, max_size=4)),
        st.tuples(st.just("replay"), st.sampled_from(LOGS), PIECE),
        st.tuples(st.just("connect"), st.integers(0, 4)),
        st.tuples(st.just("disconnect"), st.integers(0, 4), st.integers(0, 3)),
        st.tuples(st.just("settle")),
        st.tuples(st.just("restart")),
    ),
    max_size=25,
)


class Play:
    """A board, and those who watch it."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.crowd = [Watcher(), Watcher("red"), Watcher("blue"), Watcher(key="a"), Watcher(key="b")]
        self.serving = AsyncExitStack()

    async def play(self, steps: Sequence[tuple[Any, ...]]) -> None:
        """Plays the steps, has all watchers come back, and compares what they hold with what there is."""
        async with self.serving:
            await self.serving.enter_async_context(self.board.running())
            for what, *which in steps:
                await getattr(self, what)(*which)
            for number in range(len(self.crowd)):
                await self.connect(number)
            await self.settle()
            for watcher in self.crowd:
                await watcher.disconnect()  # raises what it did not bear
                there = await self.board.pieces(watcher.color)
                assert watcher.held == {k: p for k, p in there.items() if watcher.key in ("", k)}

    async def write(self, consumer: str, pieces: Sequence[tuple[str, str]]) -> None:
        await self.board.write(consumer, *pieces)

    async def replay(self, consumer: str, piece: tuple[str, str]) -> None:
        await self.board.replay(consumer, *piece)

    async def connect(self, number: int) -> None:
        if not self.crowd[number].connected:
            self.crowd[number].connect(self.board.watches)

    async def disconnect(self, number: int, forget: int) -> None:
        await self.crowd[number].disconnect(forget)

    async def settle(self) -> None:
        await self.board.settled(lambda: sum(watcher.watching for watcher in self.crowd))

    async def restart(self) -> None:
        for watcher in self.crowd:
            await watcher.disconnect()
        await self.serving.aclose()
        self.board.restart()
        await self.serving.enter_async_context(self.board.running())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "_LOOKS_APART_SECONDS", 0.0)


def any_steps(examples: int, *phases: Phase) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return lambda test: settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=phases or list(Phase),
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )(given(STEPS)(test))


@any_steps(150)
def test_resumed_anywhere_it_holds_what_there_is_and_is_told_nothing_twice(steps: Any) -> None:
    asyncio.run(Play(Board(MemoryViews())).play(steps))


def misses_a_change_at_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    since = row_changes.since
    monkeypatch.setattr(watches, "since", lambda noted, _marks: since(noted, noted.now))


def reads_rows_later_than_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = MemoryViews.noted

    async def one_behind(self: MemoryViews, *of: Any) -> Noted:
        found = await noted(self, *of)
        for note in found.notes[:1]:
            now = {**found.now, note.consumer: Mark(note.after, max(note.at.part - 1, 0))}
            return Noted(now, found.notes[1:])
        return found

    monkeypatch.setattr(MemoryViews, "noted", one_behind)


@pytest.mark.parametrize("plant", [misses_a_change_at_resume, reads_rows_later_than_notes])
def test_the_property_finds_what_is_planted(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    @any_steps(100, Phase.generate)
    def found(steps: Any) -> None:
        asyncio.run(Play(Board(MemoryViews())).play(steps))

    plant(monkeypatch)
    with pytest.raises((AssertionError, ExceptionGroup)):
        found()


@asynccontextmanager
async def stored(postgres_url: str, database: str) -> AsyncIterator[NotingViewStore]:
    async with open_log(postgres_url, database, "views", PACKAGE) as log:
        yield views(log)


SCRIPT: Sequence[tuple[Any, ...]] = [
    ("connect", 0),
    ("connect", 3),
    ("write", LOGS[0], [("a", "red"), ("b", "red"), ("b", "blue")]),
    ("connect", 1),
    ("settle",),
    ("disconnect", 0, 1),
    ("disconnect", 1, 0),
    ("write", LOGS[1], [("a", "blue"), ("c", "red")]),
    ("write", LOGS[0], []),
    ("replay", LOGS[0], ("b", "red")),
    ("connect", 0),
    ("settle",),
    ("replay", LOGS[0], ("b", "")),
    ("restart",),
    ("connect", 1),
    ("write", LOGS[1], [("a", "red")]),
    ("settle",),
    ("disconnect", 3, 1),
]


async def test_the_same_in_postgres(postgres_url: str, database: str) -> None:
    async with stored(postgres_url, database) as store:
        for turn in range(3):
            board = Board(store)
            for consumer in LOGS:
                board.positions[consumer] = await store.checkpoint(consumer)
            board.restart()
            board.version = 1000 * turn
            await Play(board).play([*SCRIPT[5 * turn :], *SCRIPT])


async def test_without_notes_a_watch_of_many_begins_anew_and_one_of_a_row_goes_on(
    postgres_url: str, database: str
) -> None:
    async with stored(postgres_url, database) as store:
        board = Board(store)
        many, one = Watcher(), Watcher(key="a")
        async with board.running() as running:
            await board.write(LOGS[0], ("a", "red"))
            many.connect(running)
            one.connect(running)
            await board.settled()
            await many.disconnect()
            await one.disconnect()
            await board.write(LOGS[0], ("a", "blue"))
            await board.write(LOGS[0], ("b", "blue"))
            await store.forget_notes(0.0)  # keeps the newest position, which another one may follow
            many.connect(running)
            one.connect(running)
            await board.settled()
            assert one.held["a"].color == "blue"
            with pytest.raises(watches.WatchExpired):
                await many.ended()
            await one.disconnect()
            token = (await anext(running.many({}))).resume_token
            with pytest.raises(watches.WatchExpired):  # a restore has lost replays that it was told of
                await anext(running.many({}, token.replace(".0", ".7", 1)))
            assert [*(await board.pieces())] == ["a", "b"]
