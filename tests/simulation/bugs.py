"""Deliberate bugs: each takes away one thing that a promise rests on. A simulator that never failed proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from customer_svc.domain import CUSTOMER, Customer
from order_svc.domain import ORDER, ApproveOrder, ExpireOrder, Order, State
from shop.customers.v1.events_pb2 import CreditReleased
from shop.orders.v1.events_pb2 import OrderApproved, OrderRejected
from shop.orders.v1.order_pb2 import REJECTION_REASON_DEADLINE_EXCEEDED
from tests.rebuild.simulated import FILLS, REBUILDS
from tests.simulation import shop
from tests.simulation.leases import LEASES
from tests.simulation.outside import OUTSIDE
from twinlog import FailedPrecondition, Projection, Recorded, StreamId, Unavailable, Writer
from twinlog.consume import dead_letter_operations
from twinlog.consume.cursor import BATCH
from twinlog.consume.dead_lettering import NOT_THE_EVENTS_FAULT, DeadLettering
from twinlog.consume.dead_letters import Failure, TriedInVain
from twinlog.consume.filling import Filling
from twinlog.consume.view_builds import ViewBuilds
from twinlog.log import cuts, lineage, relay
from twinlog.log.group_commit import GroupCommit
from twinlog.log.lease import LeaseRow
from twinlog.log.lineage import Common
from twinlog.log.ports import CheckpointAdvance, LogSession, ReadRequest, StreamSlice
from twinlog.log.snapshots import StateCodecs
from twinlog.log.states import StateCache
from twinlog.log.timers import Timers
from twinlog.log.transaction import Transaction
from twinlog.log.twin import DeliveryLost
from twinlog.log.view_store import Build
from twinlog.rpc.freshness import Freshness
from twinlog.rpc.view_operations import ViewOperations
from twinlog.testing import Kinds, MemoryLog, MemoryTwin, MemoryViews, Simulation
from twinlog.testing.internals import Appended, Batch, Cursor, Relay, StoreClock, to_wire
from twinlog.testing.simulation.twin import RemoteDelivery

Patches = Sequence[tuple[Any, str, Any]]
"""What to set on what, while the bug is in."""


@dataclass(frozen=True)
class Bug:
    """One of them."""

    about: str
    patches: Callable[[], Patches]
    near: int = 0
    """Where the test begins to look: a seed that found it soon, once. Elsewhere it only takes longer."""
    simulation: Simulation = shop.SHOP
    """What it shows in."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The bug is in, inside the block."""
        before = [(target, name, getattr(target, name)) for target, name, _ in self.patches()]
        try:
            _set(self.patches())
            yield
        finally:
            _set(before)


BUGS: dict[str, Bug] = {}


def bug(
    name: str, near: int = 0, simulation: Simulation = shop.SHOP
) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    """Enters a bug into the list."""

    def enter(patches: Callable[[], Patches]) -> Callable[[], Patches]:
        BUGS[name] = Bug(str(patches.__doc__), patches, near, simulation)
        return patches

    return enter


def _set(patches: Patches) -> None:
    for target, name, value in patches:
        if isinstance(target, type | ModuleType):
            setattr(target, name, value)
        else:
            object.__setattr__(target, name, value)  # aggregates are frozen


# --- the past ---


@bug("cut-by-time-alone", near=145)
def cut_by_time_alone() -> Patches:
    """A cut is what was recorded by a time, so there may be an effect before its cause in it."""

    async def closed(_histories: Any, cut: Any) -> Any:
        return cut

    return [(cuts, "closed", closed)]


# --- the writer ---

_execute, _append, _batch = Writer.execute, GroupCommit._append, GroupCommit._batch
_resolve = GroupCommit._resolve
_load, _history, _attempt = StateCache.load, MemoryLog._history, DeadLettering._attempt


@bug("checkpoint-outside")
def checkpoint_outside() -> Patches:
    """A policy's checkpoint is moved after its effects, in a transaction of its own."""

    async def execute(self: Writer, work: Any, *, advance: Any = None, **options: Any) -> Any:
        outcome = await _execute(self, work, **options)
        if advance:
            await _execute(self, lambda _tx: None, advance=advance)
        return outcome

    return [(Writer, "execute", execute)]


@bug("request-outside", near=2)
def request_outside() -> Patches:
    """A request's outcome is stored after its events, in a transaction of its own."""
    return [(GroupCommit, "_append", _appending_later("replies"))]


@bug("timer-outside")
def timer_outside() -> Patches:
    """Timers are set and cleared after the events that call for it, in a transaction of their own."""
    return [(GroupCommit, "_append", _appending_later("timers"))]


def _appending_later(part: str) -> Any:
    async def append(self: GroupCommit, batch: Batch) -> Any:
        none: Mapping[str, Any] = {part: ()}
        result = await _append(self, replace(batch, **none))
        if isinstance(result, Appended) and getattr(batch, part):
            later = replace(batch, expects={}, events=(), advances=(), replies=(), timers=())
            now: Mapping[str, Any] = {part: getattr(batch, part)}
            asyncio.create_task(_append(self, replace(later, **now)))  # noqa: RUF006
        return result

    return append


@bug("reads-unchecked", near=6)
def reads_unchecked() -> Patches:
    """Only the streams that are written are checked for their version, not those that were read."""

    def batch(self: GroupCommit, draft: Any, decided: Any) -> Batch:
        whole = _batch(self, draft, decided)
        return replace(whole, expects={s: v for s, v in whole.expects.items() if s in draft.written})

    return [(GroupCommit, "_batch", batch)]


@bug("versions-unchecked")
def versions_unchecked() -> Patches:
    """No stream is checked for its version."""
    return [(GroupCommit, "_batch", lambda self, *of: replace(_batch(self, *of), expects={}))]


@bug("lost-reply-is-failure", near=1)
def lost_reply_is_failure() -> Patches:
    """An append without an answer is told to the client as one that failed."""

    async def append(self: GroupCommit, batch: Batch) -> Any:
        try:
            return await self._log.append(batch)
        except Unavailable as error:
            raise FailedPrecondition("the append failed") from error

    return [(GroupCommit, "_append", append)]


@bug("lost-reply-decided-anew", near=1547)
def lost_reply_decided_anew() -> Patches:
    """After a lost answer, the writer does not recognize its own events, and decides once more."""

    async def recognize(self: GroupCommit, batch: Batch) -> None:
        return None

    return [(GroupCommit, "_recognize", recognize)]


@bug("down-for-good", near=1)
def down_for_good() -> Patches:
    """A writer that has met one outage refuses all that comes after it."""

    async def resolve(self: GroupCommit, batch: Batch, error: Unavailable) -> Any:
        result = await _resolve(self, batch, error)
        self.down = error
        return result

    return [(GroupCommit, "_resolve", resolve)]


@bug("stale-states", near=7)
def stale_states() -> Patches:
    """States that lost a race stay in the cache as they are."""

    async def refresh(self: StateCache, session: LogSession, streams: Any) -> None:
        return None

    return [(StateCache, "refresh", refresh)]


# --- snapshots ---


@bug("garbage-is-a-state", near=8, simulation=OUTSIDE)
def garbage_is_a_state() -> Patches:
    """A snapshot that cannot be decoded counts as the state of a stream that begins."""
    restore = StateCodecs.restore

    def believe(self: StateCodecs, aggregate: Any, snapshot: Any) -> Any:
        try:
            return restore(self, aggregate, snapshot)
        except Exception:
            return aggregate.initial

    return [(StateCodecs, "restore", believe)]


@bug("any-schema-is-ours", near=33, simulation=OUTSIDE)
def any_schema_is_ours() -> Patches:
    """A snapshot is read whatever schema it was written with."""

    def history(self: MemoryLog, want: ReadRequest) -> StreamSlice:
        kept = self.snapshots.get(want.stream)
        return _history(self, want._replace(schema=kept.schema) if kept and want.schema else want)

    return [(MemoryLog, "_history", history)]


@bug("snapshot-ahead-believed", near=41, simulation=OUTSIDE)
def snapshot_ahead_believed() -> Patches:
    """A snapshot of a later version than its stream has is read like any other."""

    def history(self: MemoryLog, want: ReadRequest) -> StreamSlice:
        found, kept = _history(self, want), self.snapshots.get(want.stream)
        return found._replace(snapshot=kept) if found.snapshot else found

    return [(MemoryLog, "_history", history)]


# --- the relay ---


@bug("relay-without-fence")
def relay_without_fence() -> Patches:
    """A batch is published without saying which sequence it follows."""

    async def publish(self: MemoryTwin, events: Sequence[Recorded]) -> None:
        messages = self._existing()
        for event in events:
            self.last += 1
            messages[self.last] = (event.subject, to_wire(event))
        self.wake_deliveries()

    return [(MemoryTwin, "publish", publish)]


@bug("relay-never-looks", near=2)
def relay_never_looks() -> Patches:
    """In quiet times nobody looks whether the twin is still whole."""

    async def look(self: Relay) -> None:
        return None

    return [(Relay, "_inspect_twin", look)]


@bug("relay-skips-others", near=52)
def relay_skips_others() -> Patches:
    """The relay copies what its own process committed, and skips what others did in between."""

    def handed_over(self: Relay, after: int) -> list[Recorded]:
        follows = self._pending and self._pending[0][0].position == after + 1
        events = [event for event, _ in self._pending] if follows else []
        if follows:
            self._pending.clear()
        return events

    return [(Relay, "_handed_over", handed_over)]


@bug("pokes-for-ever", near=3)
def pokes_for_ever() -> Patches:
    """A replica that does not copy passes on the pokes that it hears, its own too."""

    async def listen(self: Relay) -> None:
        while True:
            await self._twin.notified(60.0)
            self._look_at_log()

    return [(Relay, "_listen", listen)]


_publish = Relay._publish


@bug("relay-spins", near=1, simulation=OUTSIDE)
def relay_spins() -> Patches:
    """What a stream does not take is published again at once."""

    async def publish(self: Relay, events: Sequence[Recorded]) -> None:
        while True:
            try:
                return await _publish(self, events)
            except Unavailable as error:
                self._retrying.failed(error)

    return [(Relay, "_publish", publish)]


@bug("relay-says-nothing", simulation=OUTSIDE)
def relay_says_nothing() -> Patches:
    """A relay that makes no progress looks well."""
    return [(Relay, "problem", None)]


# --- forks ---


@bug("fork-unseen-by-writer", near=3320)
def fork_unseen_by_writer() -> Patches:
    """An append does not say which event it knows of the log."""
    return [(GroupCommit, "_batch", lambda self, *of: replace(_batch(self, *of), tip=None))]


@bug("fork-unseen-by-relay", near=2)
def fork_unseen_by_relay() -> Patches:
    """Nobody compares log and twin: the relay goes on from wherever the twin is, and so does the writer."""

    async def trust(log: Any, twin: Any, state: Any) -> Common:
        events = await log.read(state.last - 1, 1) if state.last else ()
        return Common(state.last, events[0].event_id if events else None)

    async def read(self: Relay, position: int) -> Sequence[Recorded]:
        return await self._log.read(position, BATCH)

    return [
        (relay, "compare", trust),
        (lineage, "compare", trust),
        (Relay, "_read", read),
        (GroupCommit, "_batch", lambda self, *of: replace(_batch(self, *of), tip=None)),
    ]


@bug("set-back-unseen", near=6)
def set_back_unseen() -> Patches:
    """A cursor without events does not look whether its checkpoint was set back."""

    async def watch(self: Cursor, _until_moved: Any) -> None:
        return None

    return [(Cursor, "_watch", watch)]


@bug("timers-not-put-right", near=2)
def timers_not_put_right() -> Patches:
    """After a repair, the timers of restored streams stay as they were."""
    return [(Transaction, "check_timer", lambda self, _aggregate, _id: None)]


# --- the clock ---


@bug("machine-clock-decides", near=5)
def machine_clock_decides() -> Patches:
    """The machine's clock decides, and not the store's."""
    return [(StoreClock, "now", lambda self: self._machine.now())]


@bug("lease-outlives-its-length", near=5, simulation=LEASES)
def lease_outlives_its_length() -> Patches:
    """A lease counts as held until it expires, however far off that is."""
    return [(LeaseRow, "reaches_too_far", lambda self, _now, _seconds: False)]


# --- the cursor and the views ---


@bug("cursor-trusts-deliveries")
def cursor_trusts_deliveries() -> Patches:
    """The cursor handles what is delivered, whether it has seen it or not."""

    async def follow(self: Cursor) -> None:
        stored = self.position = await self._handler.checkpoint()
        async with self._twin.deliver(stored, self._handler.types, self._handler.routing_key) as delivery:
            while True:
                events = await delivery.next(BATCH)
                stored = await self._handler.handle(events, stored)
                self.position = events[-1].position

    return [(Cursor, "_follow", follow)]


@bug("gaps-unseen", near=7)
def gaps_unseen() -> Patches:
    """A delivery goes on behind the messages that it lost."""
    honest = RemoteDelivery.next

    async def next_events(self: RemoteDelivery, limit: int) -> Sequence[Recorded]:
        while True:
            try:
                return await honest(self, limit)
            except DeliveryLost as lost:
                if "missing" not in str(lost):
                    raise

    return [(RemoteDelivery, "next", next_events)]


@bug("views-without-fence")
def views_without_fence() -> Patches:
    """Views are stored wherever their checkpoint is."""

    async def commit(
        self: MemoryViews, changes: Any, advance: Any, _batch: Any = None, *, before: Any = None
    ) -> None:
        self.positions[advance.consumer] = advance.upto
        for view, rows in changes.items():
            self.tables.setdefault(view.name, {}).update(rows)

    return [(MemoryViews, "commit", commit)]


@bug("stale-rows", near=55)
def stale_rows() -> Patches:
    """A projection keeps its rows although another replica may have changed them."""
    return [(Projection, "forget", lambda self: None)]


@bug("hint-believed", near=1, simulation=OUTSIDE)
def hint_believed() -> Patches:
    """What is said between replicas is taken for what the views have."""
    return [(Freshness, "hinted", Freshness.changed)]


# --- poison ---


@bug("outage-sets-aside", near=13)
def outage_sets_aside() -> Patches:
    """An outage counts as the fault of the event that met it."""

    async def attempt(self: DeadLettering, events: Sequence[Recorded], after: int) -> int:
        try:
            return await _attempt(self, events, after)
        except Unavailable as error:
            raise TriedInVain(error, 1) from error

    return [(DeadLettering, "_attempt", attempt)]


@bug("batch-fails-together", near=96, simulation=shop.UNREADABLE)
def batch_fails_together() -> Patches:
    """A stream that cannot be read fails every command that is decided on together with its own."""

    async def load(self: StateCache, session: LogSession, refs: Any) -> None:
        await _load(self, session, refs)
        for why in self.failed.values():
            raise why

    return [(StateCache, "load", load)]


@bug("neighbors-set-aside", near=85, simulation=shop.UNREADABLE)
def neighbors_set_aside() -> Patches:
    """What fails over a stream that cannot be read is set aside with its whole batch."""

    async def handle(self: DeadLettering, events: Sequence[Recorded], after: int, _pauses: Any) -> int:
        try:
            return await self._attempt(events, after)
        except NOT_THE_EVENTS_FAULT:
            raise
        except Exception as error:
            for event in events:
                after = await self.dead_letter(event, Failure.of(error, 1), after)
            return after

    return [(DeadLettering, "_handle", handle)]


@bug("parked-key-overtaken", near=4, simulation=shop.UNREADABLE)
def parked_key_overtaken() -> Patches:
    """Later events of a key are handled although an earlier one is set aside."""

    async def attempt(self: DeadLettering, events: Sequence[Recorded], after: int) -> int:
        advance = CheckpointAdvance(self.name, after, events[-1].position, events[-1].event_id)
        async with self._turn:
            await self._refresh()
            return await self._apply(events, advance)

    return [(DeadLettering, "_attempt", attempt)]


@bug("never-tried-waits-for-ever", near=50, simulation=shop.UNREADABLE)
def never_tried_waits_for_ever() -> Patches:
    """An event that was set aside behind others during their replay is not replayed."""
    return [(dead_letter_operations, "_REPLAYED", dead_letter_operations._REPLAYED - {""})]


@bug("never-read-again", simulation=shop.UNREADABLE)
def never_read_again() -> Patches:
    """A stream that could not be read once is not read again by that process."""
    return [(StateCache, "begin", lambda self: None)]


# --- views that are built anew ---


@bug("switch-steps-back", near=53, simulation=REBUILDS)
def switch_steps_back() -> Patches:
    """A build begins to be read although it is not as far as the one that was read."""
    switch = MemoryViews.switch

    async def blindly(
        self: MemoryViews, to: Build, live: Build, _consumers: Mapping[str, str], letters: Any
    ) -> Mapping[str, int]:
        return await switch(self, to, live, {}, letters)

    async def unchecked(self: ViewOperations, _declared: Any, _build: Build, _live: Build) -> None:
        return None

    async def not_waited_for(self: ViewBuilds, store: Any, _pairs: Any, _floor: Any) -> Any:
        return await store.checkpoints()

    return [
        (MemoryViews, "switch", blindly),
        (ViewOperations, "_catch_up", unchecked),
        (ViewBuilds, "_caught_up", not_waited_for),
    ]


@bug("switch-overlooks-parked", near=66, simulation=REBUILDS)
def switch_overlooks_parked() -> Patches:
    """What a build has set aside since its dead letters were looked at steps back when it begins to be read."""
    switch = MemoryViews.switch

    async def blindly(
        self: MemoryViews, to: Build, live: Build, consumers: Mapping[str, str], _letters: Any
    ) -> Mapping[str, int]:
        return await switch(self, to, live, consumers, {})

    async def never(self: ViewBuilds, _old: str, _new: str, _shown: int) -> bool:
        return False

    return [(MemoryViews, "switch", blindly), (ViewBuilds, "_steps_back", never)]


@bug("rebuild-skips-parked", near=3, simulation=REBUILDS)
def rebuild_skips_parked() -> Patches:
    """What a new build of a view cannot handle it passes over, instead of setting it aside."""
    set_aside = DeadLettering.dead_letter

    async def skip(self: DeadLettering, event: Recorded, failure: Any, after: int, error: Any = None) -> int:
        if "@" not in self.name:
            return await set_aside(self, event, failure, after, error)
        return await self._attempt(
            [event._replace(type="google.protobuf.Empty", payload=b"", stream=StreamId("none", "none"))],
            after,
        )

    return [(DeadLettering, "dead_letter", skip)]


@bug("fill-trusts-the-log", near=14, simulation=FILLS)
def fill_trusts_the_log() -> Patches:
    """A build takes in what the log says, although the log was set back while it was filled."""

    async def trust(self: Filling, _event: Recorded) -> None:
        return None

    return [(Filling, "_refuse_fork", trust)]


# --- the shop ---


@bug("late-deadline-obeyed", near=392)
def late_deadline_obeyed() -> Patches:
    """A deadline that has been overtaken by the answer still rejects the order."""
    decide = ORDER.decide

    def obey(order: Order, command: Any) -> Any:
        if isinstance(command, ExpireOrder) and order.state is State.APPROVED:
            reason = REJECTION_REASON_DEADLINE_EXCEEDED
            ids = {"order_id": order.order_id, "customer_id": order.customer_id}
            return [OrderRejected(**ids, saga_mode=order.saga_mode, reason=reason)]
        return decide(order, command)

    def wake(self: Timers, transaction: Any, timers: Any, now: Any, *_of: Any) -> Mapping[Any, Exception]:
        for timer in timers:
            aggregate = self._aggregates[timer.stream.type]
            state = transaction.state(aggregate, timer.stream.id)
            transaction.do(aggregate, timer.stream.id, aggregate.on_due(state, now))
        return {}

    return [(ORDER, "decide", obey), (Timers, "_wake", wake)]


@bug("approval-of-cancelled", near=9)
def approval_of_cancelled() -> Patches:
    """An order that was cancelled is approved when the credit comes."""
    decide = ORDER.decide

    def approve(order: Order, command: Any) -> Any:
        if isinstance(command, ApproveOrder) and order.state is State.CANCELLED:
            ids = {"order_id": order.order_id, "customer_id": order.customer_id}
            return [OrderApproved(**ids, saga_mode=order.saga_mode)]
        return decide(order, command)

    return [(ORDER, "decide", approve)]


@bug("assumed-again", near=573)
def assumed_again() -> Patches:
    """What should be new is taken for new in every round of an append, and not only in the first."""
    decide = GroupCommit._decide

    async def assume(self: GroupCommit, session: LogSession, units: Sequence[Any]) -> Any:
        self._states.assume_empty([ref for unit in units for ref in unit.assume_empty])
        return await decide(self, session, units)

    # It takes a saga that begins again where it is forgotten: rare among all faults, so there are no others.
    def kinds(every: Kinds) -> Kinds:
        replays = every["replay"]._replace(targets=("saga_orchestrator.orders",))
        return {"replay": replays, "crash": every["crash"]}

    return [(GroupCommit, "_decide", assume), (shop, "kinds", kinds)]


@bug("no-tombstone", near=263)
def no_tombstone() -> Patches:
    """What was released is forgotten: a reservation that comes again, or late, is made."""
    evolve = CUSTOMER.evolve

    def forget(customer: Customer, event: Any) -> Customer:
        after = evolve(customer, event)
        if isinstance(event, CreditReleased):
            order = event.order_id
            return replace(after, holds=after.holds.remove(order), settled=after.settled.remove(order))
        return after

    return [(CUSTOMER, "evolve", forget)]


@bug("release-twice", near=129)
def release_twice() -> Patches:
    """A second release gives back the same credit again."""
    evolve = CUSTOMER.evolve

    def keep(customer: Customer, event: Any) -> Customer:
        after = evolve(customer, event)
        if isinstance(event, CreditReleased):
            return replace(after, holds=customer.holds, settled=customer.settled)
        return after

    return [(CUSTOMER, "evolve", keep)]
