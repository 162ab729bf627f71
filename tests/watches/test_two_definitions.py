"""Watches that move between two replicas: one reads a view's home, the other a build of the view's next version."""

from __future__ import annotations

import asyncio
import random
from collections import namedtuple
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from copy import copy
from typing import Any, NamedTuple

import pytest

from tests.watches.board import FIELDS, PIECES, Piece, Watcher
from twinlog import InvalidArgument, View
from twinlog.log.ports import CheckpointAdvance
from twinlog.log.view_builds import LiveBuilds
from twinlog.log.view_store import Build, consumer_of
from twinlog.model.row_changes import Mark
from twinlog.model.view import AnyView
from twinlog.rpc import resume_tokens, watches
from twinlog.rpc.freshness import Freshness
from twinlog.rpc.watched_build import Behind, Consumers, Crossings
from twinlog.rpc.watches import Watches
from twinlog.testing import MemoryViews

PLAYS = 15
LOG_OF = {"a": "left", "b": "middle", "c": "right"}
"""Whose events each piece is made by."""
LOGS = {f"tests.{log}": log for log in LOG_OF.values()}
"""What keeps the home, by consumer."""
KEYS, COLORS = tuple(LOG_OF), ("red", "blue", "")


class WeighedPiece(NamedTuple):
    """A piece as version 2 has it."""

    key: str
    color: str
    version: int
    weight: int


WEIGHED: View[WeighedPiece] = View("pieces", lambda _event, _message: None, shared=True, version=2)


class Store:
    """Two builds of the pieces, which three logs feed, as two replicas read them."""

    def __init__(self) -> None:
        self.views = MemoryViews()
        self.views.note({PIECES: FIELDS, WEIGHED: FIELDS})
        self.positions = dict.fromkeys(LOGS, 0)
        self.events = 0
        self._past: list[tuple[str, str]] = []
        self._rows: dict[str, Piece] = {}
        self.dropped = False
        """Whether the home is not kept any more."""

    async def begin(self) -> None:
        """A build begins that takes in every event; the one before it takes in no more."""
        self.build = await self.views.begin_build(WEIGHED, 1)
        self.kept = self.views.at(self.build.place)
        past, self._past = self._past, []
        positions, self.positions = self.positions, dict.fromkeys(LOGS, 0)
        self._rows.clear()
        for number, (key, color) in enumerate(past):
            self.events = number
            await self.event(key, color)[-1]
        self.kept.begin_noting()
        assert self.positions == positions

    async def write(self, key: str, color: str) -> None:
        """An event, which both builds take in; without a color the piece is taken away."""
        for take_in in self.event(key, color):
            await take_in

    def event(self, key: str, color: str) -> list[Coroutine[Any, Any, object]]:
        """What has the home and the other build take it in, each unless it was dropped."""
        self._past.append((key, color))
        log, home = LOG_OF[key], f"tests.{LOG_OF[key]}"
        after, self.events = self.positions[home], self.events + 1
        self.positions[home] += 1
        old, new = self._rows.get(key), Piece(key, color, self.events) if color else None
        taking_in: list[Coroutine[Any, Any, object]] = [
            views.commit(
                {view: {key: _shaped(view, new)}},
                CheckpointAdvance(consumer, after, after + 1),
                before={view: {key: _shaped(view, old)}} if old else {},
            )
            for views, view, consumer in (
                (self.views, PIECES, home),
                (self.kept, WEIGHED, consumer_of(self.build, home, log)),
            )
            if view is WEIGHED or not self.dropped
        ]
        self._rows |= {key: new} if new else {}
        if new is None:
            self._rows.pop(key, None)
        return taking_in

    def reading(self, reads: Build | None) -> MemoryViews:
        """The store as one replica reads it."""
        store = copy(self.views)
        store.live = LiveBuilds({"pieces": reads} if reads else {})
        return store

    async def drop_home(self) -> None:
        """Raises Behind where the other build is not as far."""
        await self.drop((await self.views.builds())[0])
        self.dropped = True

    async def drop(self, left: Build) -> None:
        """Has the newest build read, and drops the one that was. Raises Behind."""
        consumers = Consumers(WEIGHED, LOGS)
        if (await self.views.builds())[left.number - 1].live:
            await self.views.switch(self.build, left, {}, None)
        crossing = await Crossings(self.reading(self.build), consumers, FIELDS, 100).left(left)
        await self.views.drop_build(left, [*consumers.of(left).values()], left.table, crossing)

    @asynccontextmanager
    async def replica(self, view: AnyView, reads: Build | None) -> AsyncIterator[Watches]:
        """Serves watches of what one replica reads inside the block."""
        logs = {consumer_of(reads, name, log) if reads else name: log for name, log in LOGS.items()}
        made = Watches(view, FIELDS, LOGS, self.reading(reads), Freshness(logs))
        running = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def settled(self, replicas: list[Watches]) -> None:
        """Whoever watches has been told what there is."""
        for replica in replicas:
            looks = replica.looks
            async with asyncio.timeout(60):
                await asyncio.sleep(0)  # who has just come joins
                while len(replica) and replica.looks <= looks + 1:
                    self._advance(replica)
                    await asyncio.sleep(0)
            self._advance(replica)
        for _ in range(5):
            await asyncio.sleep(0)

    def _advance(self, replica: Watches) -> None:
        """Has it look at how far the logs are."""
        for consumer, log in replica._freshness._logs.items():
            replica._freshness.changed(consumer, self.positions[f"tests.{log}"], ())


def _shaped(view: AnyView, piece: Piece | None) -> Piece | WeighedPiece | None:
    return piece if piece is None or view is PIECES else WeighedPiece(*piece, weight=len(piece.color))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "_LOOKS_APART_SECONDS", 0.0)


async def play(seed: int) -> None:
    """Watchers come and go, at one replica and at the other; each refuses to be told a state twice."""
    chance, store = random.Random(seed), Store()
    await store.begin()
    crowd = [Watcher(), Watcher("red"), Watcher(key="a"), Watcher(key="b")]
    async with store.replica(PIECES, None) as home, store.replica(WEIGHED, store.build) as newer:
        replicas = [home, newer]
        for round in range(12):
            if round == 6 and seed % 3:
                await drop_home(store, chance, crowd)
                replicas = [newer]
            for _ in range(chance.randrange(3)):
                await store.write(chance.choice(KEYS), chance.choice(COLORS))
            await store.settled(replicas)
            for watcher in crowd:
                if chance.random() < 0.6:
                    await watcher.disconnect()
            if chance.random() < 0.5:
                await store.write(chance.choice(KEYS), chance.choice(COLORS))
            await store.settled(replicas)
            for watcher in crowd:
                if not watcher.connected:
                    watcher.connect(chance.choice(replicas))
            await store.settled(replicas)
        for watcher in crowd:
            await watcher.disconnect()
            assert_held(watcher, store)


def assert_held(watcher: Watcher, store: Store) -> None:
    held = {key: piece[:3] for key, piece in watcher.held.items()}
    there = {
        key: tuple(piece)
        for key, piece in store._rows.items()
        if watcher.key in ("", key) and watcher.color in ("", piece.color)
    }
    assert held == there


async def play_two_drops(seed: int) -> None:
    """Watchers are away while the build that they were told from is dropped, and the one that took its place."""
    chance, store = random.Random(seed), Store()
    await store.begin()
    crowd = [Watcher(), Watcher("red"), Watcher(), Watcher("blue"), Watcher(key="a"), Watcher(key="b")]

    async def write() -> None:
        for _ in range(chance.randrange(4)):
            await store.write(chance.choice(KEYS), chance.choice(COLORS))

    await write()
    async with store.replica(PIECES, None) as home, store.replica(WEIGHED, store.build) as newer:
        for watcher in crowd:
            watcher.connect(chance.choice([home, newer]))
        await store.settled([home, newer])
        await write()
        await store.settled([home, newer])
        await drop_home(store, chance, crowd)
    await write()
    second = store.build
    await store.begin()
    await write()
    async with store.replica(WEIGHED, store.build) as newest:
        await store.drop(second)
        await write()
        await store.settled([newest])
        for watcher in crowd:
            watcher.connect(newest)
        await store.settled([newest])
        for watcher in crowd:
            await watcher.disconnect()
    for watcher in crowd:
        assert_held(watcher, store)


async def drop_home(store: Store, chance: random.Random, crowd: list[Watcher]) -> None:
    """Nobody reads it any more when it is dropped. The other build may be ahead of it, and has to be as far."""
    for watcher in crowd:
        await watcher.disconnect()
    for _ in range(chance.randrange(3)):
        await store.write(chance.choice(KEYS), chance.choice(COLORS))
    behind, ahead = chance.sample(KEYS, 2)  # of two logs: the other build may be ahead in one alone
    in_home, in_other = store.event(behind, chance.choice(COLORS))
    ahead_in_home, ahead_in_other = store.event(ahead, chance.choice(COLORS))
    await ahead_in_other
    if chance.random() < 0.5:
        await in_home
        with pytest.raises(Behind):
            await store.drop_home()
        await in_other
        await store.drop_home()
    else:
        await in_other
        await store.drop_home()
        in_home.close()
    ahead_in_home.close()


async def test_a_watch_that_moves_between_definitions_is_told_nothing_twice() -> None:
    found = []
    for playing in (play, play_two_drops):
        for seed in range(PLAYS):
            try:
                await playing(seed)
            except AssertionError as error:
                found.append(f"{playing.__name__} {seed}: {error}")
    assert not found


async def test_a_row_of_another_shape_is_told_again_only_where_it_has_changed() -> None:
    """The watch resumes where nothing but the token is left of the definition that told it."""
    store = Store()
    await store.begin()
    for key in KEYS:
        await store.write(key, "red")
    watchers = {key: Watcher(key=key) for key in KEYS}

    async def watched(view: AnyView, reads: Build | None, *ending: str) -> list[str]:
        """The pieces that were told; the watches of ``ending`` end by themselves, as nothing more is to come."""
        before = {key: len(each.history) for key, each in watchers.items()}
        async with store.replica(view, reads) as replica:
            await store.settled([replica])
            for each in watchers.values():
                each.connect(replica)
            for key in ending:
                rest = replica.row(key, watchers[key].history[-1].token, lambda _row: True)
                async with asyncio.timeout(60):
                    assert [change async for change in rest] == []
            await store.settled([replica])
            for each in watchers.values():
                await each.disconnect()
        return [key for key, each in watchers.items() if len(each.history) > before[key]]

    assert await watched(PIECES, None) == [*KEYS]
    await store.write("b", "blue")
    await store.write("c", "")
    home = (await store.views.builds())[0]
    await store.views.switch(store.build, home, {}, None)
    await store.views.drop_build(home, [*LOGS], "pieces")
    assert await watched(WEIGHED, store.build, "a") == ["b", "c"]
    assert [key for key, each in watchers.items() if each.held] == ["a", "b"]


def test_states_of_two_shapes_are_compared_by_what_both_have() -> None:
    old, new = Piece("a", "red", 1), WeighedPiece("a", "red", 1, 3)
    states = [resume_tokens.state_of(row) for row in (old, new)]
    assert resume_tokens.is_same(*states) and resume_tokens.is_same(*reversed(states))
    for other in (new._replace(color="blue"), new._replace(version=2), None):
        assert not resume_tokens.is_same(states[0], resume_tokens.state_of(other)), other
    heavier = resume_tokens.state_of(new._replace(weight=4))
    assert not resume_tokens.is_same(states[1], heavier), "of one shape, every field counts"
    assert resume_tokens.is_same(states[0], heavier)


def test_rows_of_many_columns_are_compared_by_column_and_their_tokens_are_taken_back() -> None:
    columns = [f"column_{number}" for number in range(150)]
    shaped: Any = namedtuple
    old, new = shaped("old", columns), shaped("new", ["more", *columns])
    token = resume_tokens.write(
        {"left": Mark(2**63 - 1)}, "what", "whose", resume_tokens.state_of(old(*columns))
    )
    told = resume_tokens.read(token, ["left"], "what", "whose").state
    assert resume_tokens.is_same(told, resume_tokens.state_of(new("", *columns)))
    assert not resume_tokens.is_same(told, resume_tokens.state_of(new("", *columns[:-1], "other")))


async def test_a_token_of_another_installation_is_refused() -> None:
    here, there = Store(), Store()
    for each in (here, there):
        await each.begin()
        await each.write("a", "red")
    async with here.replica(PIECES, None) as ours, there.replica(PIECES, None) as theirs:
        for key in ("a", ""):
            tokens = []
            for store, of in ((here, ours), (there, theirs)):
                watcher = Watcher(key=key)
                watcher.connect(of)
                await store.settled([of])
                await watcher.disconnect()
                tokens.append(watcher.history[-1].token)
            for token, of in zip(reversed(tokens), (ours, theirs), strict=True):
                assert token
                with pytest.raises(InvalidArgument, match="of another installation"):
                    await anext(of.row(key, token) if key else of.many({}, token))
