"""Takes the wrappers of metrics off running services, and puts them on again, for :mod:`proof.bench.metered`.

One shop is compared with itself so: the same processes, tables and connections. All services look at one byte of a
file before they call what is around a method, a consumer or a log, or what is inside of it. They look in either case,
so what is between the two is what the wrappers cost. What is around is wrapped several times, each of which counts all:
a cost that is less than what a turn differs from the next shows when it is had several times over.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest.mock import patch

from stack.topology import ROOT
from twinlog.consume import Consumer, ConsumerWrapper, Progress
from twinlog.log.ports import Log
from twinlog.model.event import Recorded
from twinlog.observe.metrics.process import Metrics
from twinlog.observe.wrapper import Wrapper
from twinlog.rpc import Behavior, Context, Method

T = TypeVar("T")
_FILE = "BENCH_METRICS_SWITCH"
_SITE = Path(__file__).with_name("switched")
LAYERS = 10
"""So often everything is wrapped."""


class Switch:
    """One byte that processes share; on at first."""

    def __init__(self, file: Path) -> None:
        """``file``: is made where it is missing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as opened:
            if not opened.tell():
                opened.write(b"\1")
                opened.flush()
            self._byte = mmap.mmap(opened.fileno(), 1)

    @property
    def on(self) -> int:
        """Whether metrics are on."""
        return self._byte[0]

    @on.setter
    def on(self, on: bool) -> None:
        self._byte[0] = on


@contextmanager
def switched(file: Path) -> Iterator[Switch]:
    """Services that are started within the block obey this switch, where their metrics are on."""
    path = os.pathsep.join([str(_SITE), str(ROOT)])
    with patch.dict(os.environ, {_FILE: str(file), "PYTHONPATH": path}):
        yield Switch(file)


def switch_metrics() -> None:
    """Has the metrics of this process obey the switch that its environment names."""
    switch = Switch(Path(os.environ[_FILE]))
    log, call, consumer = Metrics.log, Metrics.call, Metrics.consumer

    def switched_log(self: Metrics, inner: Log) -> Log:
        return cast(Log, _Log(switch, _layers(partial(log, self), inner), inner))

    def switched_call(self: Metrics, method: Method, behavior: Behavior) -> Behavior:
        return _either(switch, _layers(partial(call, self, method), behavior), behavior)

    def switched_consumer(self: Metrics, inner: Consumer) -> Consumer:
        return _Consumer(switch, _layers(partial(consumer, self), inner), inner)

    for name, method in {"log": switched_log, "call": switched_call, "consumer": switched_consumer}.items():
        setattr(Metrics, name, method)


def _layers(put_around: Callable[[T], T], inner: T) -> T:
    for _ in range(LAYERS):
        inner = put_around(inner)
    return inner


def _either(switch: Switch, counted: Behavior, plain: Behavior) -> Behavior:
    def call(request: Any, context: Context) -> Any:
        return (counted if switch.on else plain)(request, context)

    return call


class _Consumer(ConsumerWrapper):
    def __init__(self, switch: Switch, counted: Consumer, plain: Consumer) -> None:
        super().__init__(plain)
        self._switch, self._counted = switch, counted

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        return await (self._counted if self._switch.on else self.inner).apply(events, progress)


class _Log(Wrapper):
    _inner: Log

    def __init__(self, switch: Switch, counted: Log, plain: Log) -> None:
        super().__init__(plain)
        self._switch, self._counted = switch, counted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._counted if self._switch.on else self._inner, name)
