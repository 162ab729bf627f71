"""``twinlog repair LOG``: mends a log whose history is not the one in its stream, while the services run or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from twinlog.jetstream.connection import close, reached
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.archive import ArchiveUnavailable
from twinlog.log.installation import named
from twinlog.log.repair import (
    Difference,
    GivenUp,
    Plan,
    Unrepairable,
    before_all,
    difference,
    shared_by,
)
from twinlog.log.twin import Twin, TwinMissing
from twinlog.log.wire import event_id_of
from twinlog.model.errors import WrongSetting
from twinlog.model.event import Recorded
from twinlog.postgres import repair as postgres
from twinlog.postgres.connection import Pool
from twinlog.postgres.identity import identity, name_of, namesakes
from twinlog.postgres.log import PostgresLog
from twinlog.service.handled import Handled, goes_on, handled, has_handled
from twinlog.service.relink import LEFT, MENDED, NOTHING, relink

_SHOWN = 20
"""Lines of a list, unless all are asked for."""
_GIVE_UP = "give them up with --give-up, which lists with --dry-run what that loses"


class Options(NamedTuple):
    """What is asked for."""

    log: str
    postgres_url: str
    nats_url: str
    database: str = ""
    """That of the log; empty: found by the events that it shares with the stream."""
    dry_run: bool = False
    give_up: bool = False
    """Let go of what neither the log nor the stream has any more."""
    namespace: str = ""
    """What the names of streams begin with: TWINLOG_NAMESPACE."""
    chain: bool = False
    """Make links of the chain again, and nothing else."""
    all: bool = False
    """List every event."""
    keys: str = ""
    """The database of the keys of persons, where it is on the same server and may have been set back with the log."""


class _Follower(NamedTuple):
    """A consumer that has handled events which the log does not have."""

    database: str
    consumer: str
    position: int
    back_to: int
    proven: int
    """The position of the event that it has handled and the log does not have; 0: only the checkpoint is beyond."""
    event_id: UUID | None
    """That event's."""


async def repair(options: Options, say: Callable[[str], None] = print) -> int:
    """Compares a log with its stream, says what is wrong and puts it right; gives the exit code.

    The code is 1 where something is left that has to be decided first. Raises Unavailable, ConfigurationError and
    Unrepairable.
    """
    name = options.log
    if options.namespace:  # messages name the stream, or the log
        name = name.removeprefix(named(options.namespace, ""))
    client = await reached(options.nats_url, "repair")
    try:
        async with AsyncExitStack() as stack:
            names = await postgres.databases(options.postgres_url)
            older = await postgres.older(options.postgres_url, names) if options.dry_run else {}
            pools = {
                each: await stack.enter_async_context(
                    postgres.opened(options.postgres_url, each, as_it_is=options.dry_run)
                )
                for each in names
                if each not in older
            }
            twin = JetStreamTwin(client, name, namespace=options.namespace)
            database = await _database_but(older, options.database, name, twin, pools)
            for why in older.values():
                say(f"Database left out: {why}.")
            if database not in pools:
                await postgres.has_log(options.postgres_url, database)  # says why nobody gets in
                raise Unrepairable(log=name, why=f"there is no database {database} with a log")
            owners = {each: await identity(pool) for each, pool in pools.items()}
            own = await identity(pools[database], name)
            twin = JetStreamTwin(client, name, namespace=options.namespace, identity=own)
            siblings = {
                each: pools[each]
                for each, owner in owners.items()
                if not (owner and own) or owner.installation == own.installation
            }
            for each in await namesakes(pools, database, name):
                say(
                    f"Database {each} holds another log {name} of this installation, too, and a stream is that of one. "
                    "If a service writes to each, give one of the two another name, or a TWINLOG_NAMESPACE of its own."
                )
            log = PostgresLog(pools[database], name)
            if options.chain:
                return await relink(log, say, dry_run=options.dry_run, give_up=options.give_up)
            if not await postgres.has_database(options.postgres_url, options.keys):
                options = options._replace(keys="")
            return await _Repair(options, log, twin, database, siblings, say).run()
    finally:
        await close(client)


async def _database_but(
    older: Mapping[str, str], asked: str, log: str, twin: Twin, pools: Mapping[str, Pool]
) -> str:
    """The log's; raises Unrepairable where it is, or may be, an older one."""
    try:
        database = asked or await _database(log, twin, pools)
    except Unrepairable:
        if not older:
            raise
        raise Unrepairable(log=log, why=". ".join(older.values())) from None
    if database in older:
        raise Unrepairable(log=log, why=older[database])
    return database


async def _database(log: str, twin: Twin, pools: Mapping[str, Pool]) -> str:
    """The database whose log begins as the stream does, or which says that it has it: it may have been made anew."""
    found: list[str] = []
    with suppress(TwinMissing):
        state = await twin.state()
        message = await twin.message(state.first)
        for name, pool in pools.items():
            with suppress(ArchiveUnavailable, WrongSetting):  # of a neighbor's archive
                for event in await PostgresLog(pool, log).read(state.first - 1, 1):
                    if message and event.event_id == event_id_of(message, state.first):
                        found.append(name)
    names = {name: await name_of(pool) for name, pool in pools.items()}
    if len(found) > 1:  # one of them was restored or imported beside another, and need not say its name yet
        found = [name for name in found if names[name] in (log, "")]
    elif not found:
        found = [name for name in pools if names[name] == log]
    if len(found) != 1:
        there = ", ".join(f"{name} (log {names[name]})" if names[name] else name for name in found or pools)
        why = f"its database is not known; say which it is with --database: {there}"
        raise Unrepairable(log=log, why=why)
    return found[0]


@dataclass(frozen=True)
class _Repair:
    """One repair."""

    options: Options
    log: PostgresLog
    twin: JetStreamTwin
    database: str
    pools: Mapping[str, Pool]
    say: Callable[[str], None]

    async def run(self) -> int:
        """Gives the exit code."""
        astray = await self.log.head_astray()
        if astray:
            self.say(f"Table log_head of {self.database} is wrong: {astray.facts['why']}.")
        found = await difference(self.log, self.twin)
        if found.since == 1 and await self.log.last():
            raise Unrepairable(
                log=self.log.name,
                why=f"they have nothing in common: the stream belongs to another log than that of database "
                f"{self.database}. If nobody needs the stream, delete it (nats stream rm {self.twin.name}), "
                f"and the relay makes it anew; otherwise use another NATS server or account",
            )
        if found.since and not self.options.give_up and not found.only_notes:
            return await self._restore(found, bool(astray))
        return await self._accept(found, bool(astray))

    async def _restore(self, found: Difference, astray: bool) -> int:
        """Puts back into the log what the stream still has."""
        if not found.complete:
            self.say(
                f"{self.log.name} lost its events from {found.since} on, and of those the stream has lost some too: "
                f"it has {len(found.theirs)} of {found.since} to {found.last} ({found.damaged})."
            )
            self.say(f"Restore a database that has them; or {_GIVE_UP}.")
            return LEFT
        made = await postgres.planned(self.log, found)
        done = await handled(made, self.pools, self.twin.of)
        self._tell(made, done)
        await self._tell_gone(found.state.last, astray)
        await self._tell_effects(made.restored)
        if self.options.dry_run:
            self.say("Nothing was changed: this was a dry run.")
            return MENDED
        made = await postgres.carry_out(self.log, found, done)
        if found.damaged:
            await self.twin.delete()
        self.say(f"Log {self.log.name} is repaired; the relay copies what is new.")
        return MENDED

    def _tell(self, made: Plan, done: Handled) -> None:
        first, last = made.restored[0], made.restored[-1]
        self.say(
            f"The log in {self.database} lost events {first.address} to {last.position}, "
            f"recorded from {first.recorded_at:%F %T} to {last.recorded_at:%F %T} UTC; the stream has them all."
        )
        self._list("They are put back at their positions:", made.restored)
        self._list(
            "What the log recorded instead, and nobody else has seen, is moved behind them:", made.kept
        )
        self._list(
            "This cannot follow them, since its streams went another way; it is given up, and kept in table "
            "given_up_events:",
            made.given_up,
        )
        for consumer, position in sorted(made.checkpoints.items()):
            self.say(goes_on(consumer, position, done))
        self.say("The outcomes of the lost requests are gone: a client that repeats one is answered anew.")
        if keys := self.options.keys:
            self.say(
                f"Where database {keys} was set back as well, persons who were erased since {first.recorded_at:%F %T} "
                "UTC have their keys again: erase them again."
            )

    async def _tell_effects(self, lost: Sequence[Recorded]) -> None:
        """What other services did because of lost events."""
        for database, pool in self.pools.items():
            if database == self.database:
                continue
            try:
                found = await postgres.effects(pool, lost)
            except (ArchiveUnavailable, WrongSetting) as error:
                self.say(f"What was recorded in {database} because of them is not known. {error}")
                continue
            if found:
                said = "1 event was" if len(found) == 1 else f"{len(found)} events were"
                self.say(f"Because of them, {said} recorded in {database}:")
            for event in self._shown(found):
                what = f"{event.type} of {event.stream.type} {event.stream.id}"
                why = f"by {event.metadata.actor} for {event.metadata.causation_id}"
                self.say(f"  {event.position} {what}, {why}")
            self._more(len(found))

    async def _tell_gone(self, last: int, astray: bool) -> bool:
        """Whether the log knows of events that are neither here nor there; ``last``: the last one that is."""
        if not astray or (known := await self.log.known_end()) <= last:
            return False
        self.say(
            f"The log recorded events {last + 1} to {known} too, and neither it nor the stream has them any more."
        )
        return True

    async def _accept(self, found: Difference, astray: bool) -> int:
        """Takes the log as it is: what it lacks is gone, or was of use to nobody else."""
        known = [one async for one in self._followers()]
        head = await self.log.last()  # asked for after them: they go on meanwhile, and are not beyond it
        back = [one async for one in self._astray(found, head, known)]
        if gap := await self.log.first_gap():
            return self._leave_gap(*gap, in_stream=bool(found.since))
        if not (found.since or found.damaged or back or astray):
            self.say(f"Log {self.log.name} in {self.database} and its stream agree: nothing to repair.")
            return NOTHING
        await self._tell_given_up(found, back, head)
        gone = await self._tell_gone(head, astray)
        if (back or gone) and not self.options.give_up:
            self.say(
                f"Neither the log nor the stream has these events. Restore a database that has them; or {_GIVE_UP}."
            )
            return LEFT
        if astray:
            self.say(f"The log ends with event {head}; its table log_head is set to that.")
        span = await self._span_given_up(head, back)
        if span:
            self.say(
                f"So that no other event is ever taken for one of {self.log.name}/{span.first} to {span.last}, the log "
                f"notes from {head + 1} on that they are gone; an audit excuses what was done because of them."
            )
        if self.options.dry_run:
            self.say("Nothing was changed: this was a dry run.")
            return MENDED
        if span:
            await postgres.note_given_up(self.log, head, span)
        else:
            await postgres.place_head(self.log.pool)
        for one in back:
            await postgres.set_back(self.pools[one.database], one.consumer, one.position, one.back_to)
        if found.since or found.damaged:
            await self.twin.delete()
            self.say(f"Stream {self.twin.name} is deleted; the relay makes it again from the log.")
        if back:
            self.say("Views of these consumers show what was given up: make them again, as an audit says.")
            self.say(
                "What cannot be handled without it becomes dead letters (`twinlog dead-letters`): discard these."
            )
        return MENDED

    async def _span_given_up(self, head: int, back: Sequence[_Follower]) -> GivenUp | None:
        """What others have handled and is gone; None where nothing is, or all of it was noted before."""
        last = max((one.proven for one in back), default=0)
        noted = max((one.last for one, _ in await self.log.given_up()), default=0)
        if last <= noted:
            return None
        shared = min(one.back_to for one in back)
        first = (
            shared + 1 if shared or before_all([one.event_id for one in back if one.event_id]) else head + 1
        )
        return GivenUp(min(max(first, noted + 1), last), last)

    def _leave_gap(self, first: int, last: int, *, in_stream: bool) -> int:
        """Positions are gapless, so what is missing between others cannot be given up."""
        self.say(
            f"Log {self.log.name} has no events {first} to {last}, though it has those behind them: they cannot be "
            "given up."
        )
        if in_stream:
            self.say("Its stream has them: repair it without --give-up.")
        else:
            self.say(
                f"Its stream has them neither. Insert them again, from a backup or an export of {self.database}, or "
                "restore a database that has them."
            )
        return LEFT

    async def _tell_given_up(self, found: Difference, back: Sequence[_Follower], head: int) -> None:
        """What is let go of, and who has to go back for it."""
        if found.since and not found.only_notes:
            self._list(f"Given up: events {found.since} to {found.last}.", found.theirs)
            await self._tell_effects(found.theirs)
        elif found.since:
            self._list(
                f"The log in {self.database} lost these notes of dead letters; they are made again when their events "
                "come again:",
                found.theirs,
            )
        if found.damaged:
            in_log = not found.since and (found.foreign or found.state.last <= head)
            self.say(
                f"The stream is damaged: {found.damaged}.{' Its log has all of its events.' if in_log else ''}"
            )
        for one in back:
            self.say(
                f"Consumer {one.consumer} in {one.database} has handled event {one.position}, which the log does not "
                f"have. It goes back to {one.back_to}; what it did for events after that stays."
            )

    async def _followers(self) -> AsyncIterator[tuple[str, postgres.FollowerState, bool]]:
        """The consumers of the log, each with its database and whether the log has what it handled last."""
        for database, pool in self.pools.items():
            for one in await postgres.followers(pool, self.log.name):
                yield database, one, await has_handled(self.log, one)

    async def _astray(
        self, found: Difference, head: int, known: Sequence[tuple[str, postgres.FollowerState, bool]]
    ) -> AsyncIterator[_Follower]:
        """Those that have handled what the log does not have."""
        there = [(one.event_position or 0, one.event_id, right) for _, one, right in known]
        sure = [(at, event_id) for at, event_id, right in there if event_id and right]
        lost = [(at, event_id) for at, event_id, right in there if event_id and not right]
        agreed = found.since - 1 if found.since else shared_by(sure, lost)
        if not found.since and (time := before_all([event_id for _, event_id in lost])):
            agreed = max(agreed, await self.log.position_at(time))
        for database, one, right in known:
            astray = one.position > head or (found.since and one.position >= found.since)
            if astray or (
                one.event_position is not None and one.event_position <= one.position and not right
            ):
                gone = (0, None) if right else (one.event_position or 0, one.event_id)
                yield _Follower(database, one.consumer, one.position, min(agreed, head), *gone)

    def _list(self, title: str, events: Sequence[Recorded]) -> None:
        if not events:
            return
        self.say(title)
        for event in self._shown(events):
            self.say(f"  {event.address} {event.type} of {event.stream.type} {event.stream.id}")
        self._more(len(events))

    def _shown(self, events: Sequence[Recorded]) -> Sequence[Recorded]:
        return events if self.options.all else events[:_SHOWN]

    def _more(self, count: int) -> None:
        if count > _SHOWN and not self.options.all:
            self.say(f"  and {count - _SHOWN} more, which --all lists")
