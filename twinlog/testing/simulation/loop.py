"""An event loop without a world: time is a number, waiting is free, and nothing happens that it did not schedule.

Callbacks run in the order in which they became ready, as asyncio promises; what differs between seeds is how long
each simulated message takes. Every callback belongs to the life of a process (or to nobody): of a dead one, nothing
runs any more, no ``finally`` either; of a frozen one, everything waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_OFTEN_SECONDS = 600.0
"""What waits for no longer than this only looks whether there is something to do."""
_MOST_AT_ONCE = 1_000_000
"""Callbacks in one moment of simulated time; an order takes some thirty. They run for half a minute."""


class Life:
    """One run of a process, from its start to its crash."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen_until = 0.0


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
"""Whose callback runs; None: a server's, a client's or the simulator's."""


class Handle:
    __slots__ = ("appointed", "args", "callback", "context", "dropped", "life")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None) -> None:
        self.callback = callback
        self.args = args
        self.context = context if context is not None else contextvars.copy_context()
        self.life = self.context.get(LIFE)
        self.dropped = False
        self.appointed = False
        """Whether it waits for a time, rather than to look again soon."""

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs until told otherwise; ``steps`` counts callbacks."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._timed = 0
        # Held, so that the garbage collector has no say in the run:
        self._tasks: list[asyncio.Task[Any]] = []
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._stopped = False
        self.nobody = contextvars.copy_context()
        """The context of servers, clients and the simulator."""
        self.steps = 0

    def time(self) -> float:
        """Seconds since the start."""
        return self._now

    def run(self, until: float) -> None:
        """Runs what happens up to a time, or until :meth:`stop`. Raises RuntimeError where a moment does not end."""
        if events._get_running_loop() is not None:
            raise RuntimeError(
                "simulated time runs outside of other event loops: make the test a plain `def`"
            )
        events._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generators.append)
        self._stopped = False
        most = self.steps + _MOST_AT_ONCE
        try:
            while not self._stopped:
                if self._ready:
                    if self.steps > most:
                        raise RuntimeError(
                            f"{_MOST_AT_ONCE:,} callbacks, and no simulated time has passed: something sets itself "
                            "off, such as a policy whose command gives the event that calls for it"
                        )
                    self._step(self._ready.popleft())
                elif self._timers and self._timers[0][0] <= until:
                    passed, self._now = self._now, self._timers[0][0]
                    if self._now > passed:
                        most = self.steps + _MOST_AT_ONCE
                    self._ready.append(heapq.heappop(self._timers)[2])
                else:
                    self._now = max(self._now, until)
                    return
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(None)

    def skip(self, until: float) -> None:
        """Has time pass at once, up to ``until`` or the first callback that waits for a time before it.

        What only looks again soon does so afterwards, as if it had begun to wait later.
        """
        appointments = [when for when, _, handle in self._timers if handle.appointed and not handle.dropped]
        skipped = min([until, *appointments]) - self._now
        if skipped > 0 and not self._ready:
            self._now += skipped
            self._timers = [
                (when if handle.appointed else when + skipped, timed, handle)
                for when, timed, handle in self._timers
            ]
            heapq.heapify(self._timers)

    def stop(self) -> None:
        """Ends the run after this callback."""
        self._stopped = True

    def _step(self, handle: Handle) -> None:
        life = handle.life
        if handle.dropped or (life is not None and not life.alive):
            return
        if life is not None and life.frozen_until > self._now:
            self._at(life.frozen_until, handle)
            return
        self.steps += 1
        handle.context.run(handle.callback, *handle.args)

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        return self._at(self._now + delay, Handle(callback, args, context))

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        return self._at(when, Handle(callback, args, context))

    def _at(self, when: float, handle: Handle) -> Handle:
        self._timed += 1
        handle.appointed = when - self._now > _OFTEN_SECONDS
        heapq.heappush(self._timers, (when, self._timed, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        self._tasks.append(task)
        return task

    def start(self, work: Coroutine[Any, Any, T], life: Life | None = None) -> asyncio.Task[T]:
        """Runs ``work`` as part of a life, or as nobody's."""
        context = self.nobody.copy()
        context.run(LIFE.set, life)
        return self.create_task(work, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._stopped

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Errors are looked at by those who wait for a task; the tasks of a dead process have nobody."""

    def close(self) -> None:
        """Lets go of everything; what was suspended ends now, unheard."""
        hook, sys.unraisablehook = sys.unraisablehook, lambda _unraisable: None
        try:
            self._let_go()
        finally:
            sys.unraisablehook = hook

    def _let_go(self) -> None:
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        self._generators.clear()
        self._tasks.clear()
        self._timers.clear()
        self._ready.clear()


def _close(coroutine: Any) -> None:
    """Ends a coroutine, as often as it takes: its ``finally`` blocks may want to wait."""
    for _ in range(20):
        try:
            coroutine.close()
        except RuntimeError:
            continue
        except BaseException:
            return
        return
