"""The entrance of a method: which of its calls are begun, which are held, and which of those are refused.

A method that is asked for more than it can do is to have as much to do as it can take, and no more. So from some
number on a call is begun as another ends, and the others are held. The newest is begun first: somebody has to be
refused, and those who have waited for longest are the first to give up. What nothing could be done about in time is
refused. That takes longer the more are held: a refusal costs nearly as much as a call, and a connection has room for
so many, so what its client asks beyond that waits there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

from twinlog.rpc.gates import REFUSAL_SECONDS, Gate, Refusal

_ENOUGH, _MANY = 256, 1024
"""How many calls of a method are under way at once where it has many, held ones included."""
_FIRST, _NEXT = 16, 2
"""How many of those that are held are begun as the gate opens, and as each of them ends: if there is still too much to
do, few are refused only after they were begun."""
_MANY_HELD, _LONGEST = 250, 6
"""Where so many are held, each is for twice as long; up to six times where they are more."""
_TOGETHER_SECONDS = 0.05
"""Refusals within this time are sent together: a connection gets those of many calls in one packet."""
_MOST_TOGETHER = 128
"""No more than so many: a crowd's would hold up the loop for a second, and health with it."""


_entrance: ContextVar[Entrance | None] = ContextVar("entrance", default=None)
"""That of the call which is served."""


@contextmanager
def aside() -> Iterator[None]:
    """Has the call that is served not count as under way: it waits for others, and its method has nothing to do."""
    entrance = _entrance.get()
    if entrance is None:
        yield
        return
    entrance._leave()
    try:
        yield
    finally:
        entrance._under_way += 1


def held_seconds(held: int) -> float:
    """How long a call is held before it is refused, where so many are held already."""
    return REFUSAL_SECONDS * min(_LONGEST, 1 + held / _MANY_HELD)


class _Held(NamedTuple):
    due: float
    call: Any


class Entrance:
    """That of one method. A call is whatever ``begin`` and ``refuse`` take."""

    def __init__(
        self,
        gate: Gate,
        begin: Callable[[Any], asyncio.Task[None]],
        refuse: Callable[[Any, Refusal], None],
    ) -> None:
        self.gate = gate
        gate.on_open = partial(self._let_in, _FIRST)
        self._begin = begin
        self._send = refuse
        self._under_way = 0
        self._held: deque[_Held] = deque()
        self._timer: asyncio.Handle | None = None
        """When the first ones are refused."""
        self._closed = False

    def __len__(self) -> int:
        """How many calls are held."""
        return len(self._held)

    def come(self, call: Any) -> None:
        """Begins a call, or holds it."""
        if self.gate.too_much is None or (not self.gate.refusal and self._has_room):
            self._start(call)
            return
        loop = asyncio.get_running_loop()
        seconds = held_seconds(len(self._held))
        self._held.append(_Held(loop.time() + seconds, call))
        if self._timer is None:
            self._timer = loop.call_later(seconds, self._refuse)

    def close(self) -> None:
        """Refuses what is held as soon as that can be done, and holds nothing from now on."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        self._refuse()

    def cancel(self) -> None:
        """Forgets what is held: the server has ended."""
        self._held.clear()  # what ends yet begins none of it
        if self._timer:
            self._timer.cancel()

    @property
    def _has_room(self) -> bool:
        if self._closed or self.gate.stopping:
            return True
        return self._under_way < _ENOUGH or self._under_way + len(self._held) < _MANY

    def _start(self, call: Any) -> None:
        self._under_way += 1
        if self.gate.too_much:
            before = _entrance.set(self)
            task = self._begin(call)
            _entrance.reset(before)
        else:  # a thousand streams are not to keep a context each
            task = self._begin(call)
        task.add_done_callback(self._leave)

    def _leave(self, _task: asyncio.Task[None] | None = None) -> None:
        self._under_way -= 1
        self._let_in(_NEXT)

    def _let_in(self, most: int) -> None:
        """Begins what is held, while there is room and the gate is open."""
        while most and self._held and not self.gate.refusal and self._has_room:
            self._start(self._held.pop().call)
            most -= 1

    def _refuse(self) -> None:
        """Refuses what has been held for long enough."""
        loop = asyncio.get_running_loop()
        held, now = self._held, loop.time()
        self._timer = None
        if not held or (self.gate.stopping and not self._closed):
            return
        assert self.gate.too_much  # of others, none is held
        refusal = self.gate.refusal or self.gate.too_much(len(held))
        for _ in range(_MOST_TOGETHER):
            if not held or (held[0].due > now and not self._closed):
                break
            refusal.on_refused()
            self._send(held.popleft().call, refusal)
        if held:
            due = held[0].due
            if due <= now or self._closed:
                self._timer = loop.call_soon(self._refuse)
            else:
                self._timer = loop.call_at(max(due, now + _TOGETHER_SECONDS), self._refuse)
