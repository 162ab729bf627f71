"""The metrics of a process, put together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from twinlog.consume import Consumer
from twinlog.log.lease import Lease
from twinlog.log.ports import Log
from twinlog.log.relay import Relay
from twinlog.log.saga_list import SagaList
from twinlog.log.timers import Timers
from twinlog.log.writer import Writer
from twinlog.model.clock import Clock
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.observe.metrics.clocks import Clocks
from twinlog.observe.metrics.commands import Commands
from twinlog.observe.metrics.consumers import Consumers, ConsumerTallies
from twinlog.observe.metrics.info import Info
from twinlog.observe.metrics.leases import Leases
from twinlog.observe.metrics.log import LogTally
from twinlog.observe.metrics.metric import Concern
from twinlog.observe.metrics.pool import PoolUse
from twinlog.observe.metrics.problems import Problems
from twinlog.observe.metrics.sagas import EVENTS, Sagas
from twinlog.observe.metrics.serving import telling
from twinlog.observe.metrics.timers import TimersDue
from twinlog.observe.metrics.twins import Streams, Twins
from twinlog.observe.metrics.writer import Writing
from twinlog.rpc import Behavior, Method
from twinlog.rpc.inspection import Inspected


class Process(Protocol):
    """What is looked at: a :class:`twinlog.Service`."""

    name: str
    log: Log
    inspected: Inspected
    relay: Relay
    writer: Writer
    timers: Timers
    leases: dict[str, Lease]
    saga_list: SagaList | None


class Metrics:
    """The wrappers that count, for the wiring of the process, and what a scrape tells of it."""

    def __init__(self, clock: Clock) -> None:
        """``clock``: the one that events are recorded by."""
        self._clock = clock
        self._commands = Commands()
        self._log = LogTally()
        self._consumers = ConsumerTallies(clock)

    def log(self, log: Log) -> Log:
        """Goes around the log that a writer appends to."""
        return self._log.around(log)

    def call(self, method: Method, behavior: Behavior) -> Behavior:
        """Goes around each method, outside of other middleware."""
        return self._commands.middleware(method, behavior)

    def refused(self, method: str, reason: str) -> None:
        """Counts a call that was refused before any middleware."""
        self._commands.refused(method, reason)

    def consumer(self, consumer: Consumer) -> Consumer:
        """Goes around each consumer, outside of other middleware."""
        return self._consumers.middleware(consumer)

    def served(self, process: Process, address: str) -> AbstractAsyncContextManager[str]:
        """Serves the metrics of a process at host:port while the block runs; gives the URL."""
        return telling(self.concerns(process), address)

    def concerns(self, process: Process) -> Sequence[Concern]:
        """All that is told of a process, but for its event loop."""
        inspected, clock = process.inspected, self._clock
        streams = Streams(inspected)
        tables = [each for each in inspected.aggregates if isinstance(each, SagaAggregate)]
        for table in tables:
            self._log.expect(table.name, EVENTS)
        return [
            Info(process.name),
            self._commands,
            self._log,
            Writing(process.log.name, process.writer),
            Twins(inspected, streams, process.relay, clock),
            Consumers(inspected, streams, self._consumers, clock),
            Sagas(lambda: process.saga_list, [each.current.name for each in tables], clock, self._log.events),
            TimersDue(process.log, process.timers, clock),
            Leases(process.leases),
            Problems(inspected),
            PoolUse(process.log),
            Clocks(clock),
        ]
