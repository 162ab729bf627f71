"""Watches of a view: every change of a row, or of the rows that have some values, resumable by a token.

One look serves all watchers: at one moment it reads the notes of which rows have changed, and those rows. So a change
costs one read, however many watch, and what is told at a moment is what has changed since the moment before, exactly.
Who joins takes part in the next look, which then begins where the one that was away longest had stopped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from twinlog.log.view_builds import RebuildableStore
from twinlog.log.view_store import NotingViewStore, ViewMoment
from twinlog.model.errors import FailedPrecondition, InvalidArgument, TwinlogError, Unavailable
from twinlog.model.row_changes import Changed, plain, since, sorted_by
from twinlog.model.view import AnyView
from twinlog.rpc import resume_tokens
from twinlog.rpc.freshness import Freshness, ViewLagging
from twinlog.rpc.watched_build import (
    MOST_KEYS,
    Behind,
    Consumers,
    Crossings,
    Place,
    Told,
    number_of,
    of_consumers,
    of_logs,
    oldest,
)
from twinlog.rpc.watcher import Change, First, Watcher

_LOOKS_APART_SECONDS = 0.01
_LOOK_EVERY_SECONDS = 5.0
"""Also without a sign of a change: each may get lost."""
_RETRY_SECONDS = 0.5
_CROSS_SECONDS = 5.0
"""How long watches wait where another build of the view begins to be read that is not yet as far."""
_REACH_SECONDS = 5.0
"""How long a resumed watch waits for views that are not as far as it has seen them elsewhere."""


class WatchExpired(FailedPrecondition):
    """What has changed since then is not known any more; watch again without a resume_token."""

    reason = "WATCH_EXPIRED"


class _Seen(NamedTuple):
    """What one look has found."""

    now: Told
    changed: Mapping[Place, Changed | None]
    """By where watches were told last; None: that is not known."""
    rows: Mapping[str, Any]
    firsts: Mapping[Watcher, Mapping[str, Any]]
    states: dict[str, str]
    """Of rows by key, as far as they were asked for: many watch the same."""

    def state(self, key: str) -> str:
        """The state of a row that was read, see :func:`resume_tokens.state_of`."""
        if key not in self.states:
            self.states[key] = resume_tokens.state_of(self.rows.get(key))
        return self.states[key]


class Watches:
    """Those who watch one view."""

    def __init__(
        self,
        view: AnyView,
        fields: Collection[str],
        consumers: Mapping[str, str],
        store: NotingViewStore,
        freshness: Freshness,
    ) -> None:
        """``fields``: those that filters may name; ``consumers``: the log that each consumer which feeds it reads."""
        self._view = view
        self._fields = fields
        self._consumers = Consumers(view, consumers)
        self._logs = set(consumers.values())
        self._store = store
        self._freshness = freshness
        self._joining: list[Watcher] = []
        self._of_key: dict[str, dict[Watcher, None]] = defaultdict(dict)
        self._of_filter: dict[tuple[str, ...], dict[tuple[Any, ...], dict[Watcher, None]]] = defaultdict(dict)
        self._open: set[Watcher] = set()
        self._told: Told | None = None
        """Up to where those who watch have been told; None while nobody does."""
        self._crossing_since: float | None = None
        """When another build began to be read that is not yet as far; None: it is."""
        self._beginning: Watcher | None = None
        """Whose first rows are being read, so that a failure there is its own."""
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self.looks = 0
        """How often the store was read."""
        self._origin = ""
        """Whose tokens these are; empty until somebody watches."""

    def __len__(self) -> int:
        return len(self._open)

    async def row(
        self, key: str, resume_token: str = "", until: Callable[[Any], bool] = lambda _row: False
    ) -> AsyncIterator[Change]:
        """See :meth:`twinlog.rpc.ReadModel.watch_row`."""
        watcher = Watcher(resume_tokens.hash_of(self._view.name, key), key=key)
        await self._resume(watcher, resume_token)
        told = watcher.state
        try:
            self._join(watcher)
            while True:
                change = await watcher.take()
                if not told or not resume_tokens.is_same(told, resume_tokens.state_of(change.row)):
                    yield change
                told = ""  # what it resumes with may be the first change only
                if change.row is not None and until(change.row):
                    return
        finally:
            self._leave(watcher)

    async def many(
        self, by: Mapping[str, Any], resume_token: str = "", first: First | None = None
    ) -> AsyncIterator[Change]:
        """See :meth:`twinlog.rpc.ReadModel.watch_rows`."""
        if unknown := by.keys() - set(self._fields):
            raise ValueError(
                f"view {self._view.name}: {', '.join(sorted(unknown))} are not named in `watched`"
            )
        fields = tuple(sorted(by))
        filter = fields, tuple(plain(by[field]) for field in fields)
        watcher = Watcher(resume_tokens.hash_of(self._view.name, *filter), filter=filter)
        watcher.first = None if resume_token else first
        await self._resume(watcher, resume_token)
        try:
            self._join(watcher)
            while True:
                yield await watcher.take()
        finally:
            self._leave(watcher)

    async def run(self) -> None:
        """Looks while anybody watches, until it is cancelled."""
        while True:
            await self._wanted.wait()
            while self._open:
                await self._watch_consumers(self._consumers_read())
            self._told = None
            self._wanted.clear()

    async def _watch_consumers(self, consumers: Collection[str]) -> None:
        """Looks while these consumers keep what is read."""
        loop = asyncio.get_running_loop()
        async with self._freshness.watching(*consumers) as self._changed:
            while self._open and consumers == self._consumers_read():
                self._changed.clear()  # before it is read, so that no change is missed
                began = loop.time()
                await self._look()
                await asyncio.sleep(began + _LOOKS_APART_SECONDS - loop.time())
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_SECONDS):
                        await self._changed.wait()

    def _consumers_read(self) -> Collection[str]:
        store = self._store
        build = store.live.current.get(self._view.name) if isinstance(store, RebuildableStore) else None
        return list(self._consumers.of(build).values())

    async def _resume(self, watcher: Watcher, token: str) -> None:
        if not token:
            return
        resumed = resume_tokens.read(token, self._logs, watcher.watched, await self._whose())
        if bool(resumed.state) != (watcher.filter is None):
            raise InvalidArgument({resume_tokens.FIELD: "is of another watch; pass none to start anew"})
        watcher.given, watcher.state = token, resumed.state
        wanted = {log: mark.position for log, mark in resumed.marks.items()}
        await self._freshness.reached(wanted, _REACH_SECONDS)
        watcher.told = Told(resumed.build, resumed.marks)

    async def _whose(self) -> str:
        """The origin of the tokens that are given here. Raises Unavailable."""
        self._origin = self._origin or resume_tokens.origin_of(await self._store.log.page_token_secret())
        return self._origin

    def _join(self, watcher: Watcher) -> None:
        self._open.add(watcher)
        self._joining.append(watcher)
        self._wanted.set()
        self._changed.set()

    def _leave(self, watcher: Watcher) -> None:
        self._open.discard(watcher)
        crowd: Any
        if watcher.filter is None:
            crowd, place = self._of_key, watcher.key
        else:
            crowd, place = self._of_filter[watcher.filter[0]], watcher.filter[1]  # type: ignore[assignment]
        if place in crowd:
            crowd[place].pop(watcher, None)
            if not crowd[place]:
                del crowd[place]
        if not self._open:
            self._changed.set()

    # --- one look ---

    async def _look(self) -> None:
        joining, self._joining = [each for each in self._joining if each in self._open], []
        self._beginning = None  # of the last look, which may have failed there
        try:
            await self._whose()
            seen = await self._store.at_once(partial(self._read, joining))
            self.looks += 1
        except Unavailable as error:
            _fail(joining, error)  # the others wait: nothing is lost to them
            await asyncio.sleep(_RETRY_SECONDS)
            self._changed.set()
        except Behind:
            self._joining = joining + self._joining
            self._crossing_since = self._crossing_since or asyncio.get_running_loop().time()
            self._changed.set()
        except Exception as error:  # mostly of the query that reads what a watch begins with
            _fail([self._beginning] if self._beginning else self._open, error)
            self._joining += [each for each in joining if not each.failed]
            self._changed.set()
        else:
            self._crossing_since = None
            # A database that was set back gets there again, and nobody is shown how it does.
            if self._lagging(self._told, seen.now) is None:
                self._tell(seen)
                self._told = seen.now
            for watcher in joining:
                self._welcome(watcher, seen)

    async def _read(self, joining: Sequence[Watcher], moment: ViewMoment) -> _Seen:
        self._beginning = None
        build = moment.reads(self._view)
        number, consumers = number_of(build), self._consumers.of(build)
        starts = [each.told for each in joining if each.told and each.filter]
        starts += [self._told] if self._told else []
        by_build: dict[int, list[Told]] = defaultdict(list)
        for told in {each.place: each for each in starts}.values():
            by_build[told.build].append(told)
        here = {told.place: of_consumers(told.marks, consumers) for told in by_build.pop(number, [])}
        noted = await moment.noted(self._view, list(consumers.values()), oldest([*here.values()]), MOST_KEYS)
        now = Told(number, of_logs(noted, consumers))
        changed = {place: since(noted, marks) for place, marks in here.items()}
        for elsewhere in by_build.values():
            changed |= await self._across(moment, elsewhere, now)
        wanted = {each.key for each in joining if each.filter is None}
        wanted.update(self._wanted_of(changed[self._told.place] if self._told else {}))
        for each in joining:
            if each.filter and each.told:
                wanted.update(changed[each.told.place] or ())
        rows = await moment.rows(self._view, list(wanted)) if wanted else {}
        firsts = {each: await self._first(each, moment) for each in joining if each.first}
        return _Seen(now, changed, rows, firsts, {})

    async def _across(
        self, moment: ViewMoment, starts: Sequence[Told], now: Told
    ) -> Mapping[Place, Changed | None]:
        """What has changed since something was told from another build."""
        began, loop = self._crossing_since, asyncio.get_running_loop()
        patient = began is None or loop.time() - began < _CROSS_SECONDS
        crossings = Crossings(moment, self._consumers, self._fields, MOST_KEYS)
        return await crossings.changed(starts, now, patient=patient)

    def _wanted_of(self, changed: Changed | None) -> Collection[str]:
        """The changed rows that anybody watches."""
        if changed is None:
            return self._of_key.keys()
        return changed.keys() if any(self._of_filter.values()) else changed.keys() & self._of_key.keys()

    async def _first(self, watcher: Watcher, moment: ViewMoment) -> Mapping[str, Any]:
        assert watcher.first is not None
        self._beginning = watcher
        try:
            rows = {row[0]: row for row in await watcher.first(moment)}
            self._beginning = None
            return rows
        except Unavailable:
            raise
        except TwinlogError as refusal:
            watcher.fail(refusal)
            self._beginning = None
            return {}

    def _tell(self, seen: _Seen) -> None:
        """Tells those who watch what has changed since they were told last."""
        changed = seen.changed[self._told.place] if self._told else {}
        for key in list(self._of_key if changed is None else changed.keys() & self._of_key.keys()):
            self._tell_of_row(key, seen)
        for fields, crowds in self._of_filter.items():
            everybody = [watcher for crowd in crowds.values() for watcher in crowd]
            found = sorted_by(fields, crowds, changed, seen.rows) if everybody else {}
            if found is None:
                _fail(everybody, WatchExpired())
                continue
            for values, (rows, left) in found.items():
                watchers = crowds[values]
                change = Change(rows, left, self._token(seen, next(iter(watchers)).watched))
                for watcher in watchers:
                    watcher.tell(change)

    def _tell_of_row(self, key: str, seen: _Seen) -> None:
        row, watchers = seen.rows.get(key), self._of_key[key]
        state = seen.state(key)
        token = self._token(seen, next(iter(watchers)).watched, state)
        change = Change({} if row is None else {key: row}, [key] if row is None else [], token)
        for watcher in watchers:
            told, watcher.state = watcher.state, state
            if not resume_tokens.is_same(told, state):
                watcher.tell(change)

    def _welcome(self, watcher: Watcher, seen: _Seen) -> None:
        """Tells a watcher what it has not seen, and has it watch from here on."""
        if watcher not in self._open or watcher.failed:
            return
        if _has_lost(seen.now, watcher.told):
            watcher.fail(WatchExpired())
            return
        if lagging := self._lagging(watcher.told, seen.now) or self._lagging(self._told, seen.now):
            watcher.fail(lagging)
            return
        if watcher.filter is None:
            row = seen.rows.get(watcher.key)
            watcher.state = seen.state(watcher.key)
            token = self._token(seen, watcher.watched, watcher.state)
            gone = [watcher.key] if row is None and watcher.told else []
            watcher.tell(Change({} if row is None else {watcher.key: row}, gone, token))
            self._of_key[watcher.key][watcher] = None
            return
        fields, values = watcher.filter
        rows: Mapping[str, Any] = seen.firsts.get(watcher, {})
        left: Sequence[str] = []
        if watcher.told:
            found = sorted_by(fields, {values}, seen.changed[watcher.told.place], seen.rows)
            if found is None:
                watcher.fail(WatchExpired())
                return
            rows, left = found.get(values, ({}, []))
        watcher.tell(Change(rows, left, self._token(seen, watcher.watched)))
        watcher.told = watcher.first = None
        self._of_filter[fields].setdefault(values, {})[watcher] = None

    def _lagging(self, told: Told | None, now: Told) -> ViewLagging | None:
        for log, mark in told.marks.items() if told else ():
            reached = now.marks[log]
            if reached < mark if told and told.build == now.build else reached.position < mark.position:
                return ViewLagging(log=log, reached=reached.position, wanted=mark.position)
        return None

    def _token(self, seen: _Seen, watched: str, state: str = "") -> str:
        return resume_tokens.write(seen.now.marks, watched, self._origin, state, seen.now.build)


def _has_lost(now: Told, told: Told | None) -> bool:
    """Whether a replay that was told of is gone, as after a restore; no event brings it back."""
    return (
        told is not None
        and told.build == now.build
        and any(
            now.marks[log].position == mark.position and now.marks[log] < mark
            for log, mark in told.marks.items()
        )
    )


def _fail(watchers: Iterable[Watcher], why: Exception) -> None:
    for watcher in watchers:
        watcher.fail(why)
