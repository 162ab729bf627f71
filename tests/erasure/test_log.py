"""What the kernel stores of personal fields, over the log's adapters, and what deciders and policies are given."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.erasure.guests import GUEST, ROOM, Book, Guest, M, Name
from tests.servers import database
from tests.waiting import until
from twinlog import Events, Log, Metadata, Policies, Recorded, Schema, StreamId, Unavailable, Writer
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.consume.logged import Logged
from twinlog.consume.policies import PolicyConsumer
from twinlog.log.kept_snapshots import KeptStates
from twinlog.log.keys import Keys, KeysUnavailable
from twinlog.log.past import KeepsSnapshots, Moment
from twinlog.log.personal import SEALED_STATE, Personal
from twinlog.log.ports import ReadRequest, Snapshot, StreamSlice
from twinlog.log.snapshots import EVERY, Snapshots, StateCodecs
from twinlog.log.streams import fold
from twinlog.log.time_travel import StillFolding, TimeTravel
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.memory.keys import MemoryKeys
from twinlog.model.errors import StreamUnreadable
from twinlog.model.event import encoded
from twinlog.model.personal import ERASED, MARK
from twinlog.postgres.log import open_log
from twinlog.testing import START, MemoryLog
from twinlog.testing.internals import RandomIds, SystemClock

NAME = "Zephyrine Quartermaine"
ADA = StreamId("guest", "ada")


@pytest.fixture(params=["memory", "postgres"])
def server(request: pytest.FixtureRequest) -> str | None:
    """The URL of a Postgres; None: in memory."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else None


@pytest.fixture
async def log(server: str | None) -> AsyncIterator[Log]:
    if server is None:
        yield MemoryLog("guests")
        return
    async with database(server) as name, open_log(server, name, "guests") as opened:
        yield opened


def _writer(log: Log, keys: Keys | None) -> Writer:
    personal = Personal(keys) if keys else None
    return Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds(), personal=personal)


async def _name(writer: Writer, name: str, guest: str = "ada") -> Guest:
    return (await writer.execute(lambda tx: tx.do(GUEST, guest, Name(name)))).result


async def _guest(writer: Writer, guest: str = "ada") -> Guest:
    return (await writer.execute(lambda tx: tx.state(GUEST, guest))).result


async def _snapshot(log: Log, stream: StreamId = ADA) -> Snapshot | None:
    """The snapshot of a stream, whether it is sealed or not."""
    plain = StateCodecs().schema(GUEST if stream.type == "guest" else ROOM)
    for schema in (plain + SEALED_STATE, plain):
        [slice] = await log.load([ReadRequest(stream, schema=schema)])
        if slice.snapshot:
            return slice.snapshot
    return None


async def _stored(log: Log) -> bytes:
    """Everything that is kept of events and of a snapshot."""
    snapshot = await _snapshot(log)
    return b"".join(
        [*(event.payload for event in await log.read(0, 1_000)), snapshot.state if snapshot else b""]
    )


async def test_deciders_are_given_what_nothing_stores(log: Log) -> None:
    keys = MemoryKeys()
    async with _writer(log, keys) as writer:
        assert await _name(writer, NAME) == Guest(NAME, 1)
    async with _writer(log, keys) as another:
        assert await _guest(another) == Guest(NAME, 1)
    [event] = await log.read(0, 10)
    assert M["GuestNamed"].FromString(event.payload).name.startswith(MARK)
    assert NAME.encode() not in await _stored(log)


async def test_a_fold_gives_erased_in_every_process(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.01)
    keys = MemoryKeys()
    async with _writer(log, keys) as here, _writer(log, keys) as there:
        await _name(here, NAME)
        assert (await _guest(there)).name == NAME
        assert here.personal and there.personal
        looking = asyncio.create_task(there.personal.known.run())
        await here.personal.erase("ada")
        assert (await _guest(here)).name == ERASED

        async def forgotten() -> bool:
            return (await _guest(there)).name == ERASED

        await until(forgotten)
        looking.cancel()
        assert await _name(there, "another name", "bob") == Guest("another name", 1)
        await _name(here, NAME)
    async with _writer(log, keys) as later:
        assert await _guest(later) == Guest(ERASED, 2), "what is said later is not kept at all"
    assert NAME.encode() not in await _stored(log)


async def test_snapshots_are_sealed_and_serve(log: Log) -> None:
    keys = MemoryKeys()
    async with _writer(log, keys) as writer:
        await asyncio.gather(*(_name(writer, f"{NAME} {number}") for number in range(EVERY + 5)))
        newest = await _guest(writer)
    async with _writer(log, keys) as restarted:
        await _guest(restarted)  # from here on it knows that guests have something personal

        async def sealed() -> bool:
            return (found := await _snapshot(log)) is not None and found.schema.endswith(SEALED_STATE)

        await _name(restarted, "Bob", "bob")
        restarted._states.known.clear()
        assert await _guest(restarted) == newest
        await until(sealed)
        assert NAME.encode() not in await _stored(log)
        assert restarted.personal
        await restarted.personal.erase("ada")
        restarted._states.known.clear()
        assert await _guest(restarted) == Guest(ERASED, EVERY + 5), (
            "the snapshot opens no more, so events are read"
        )


async def test_snapshots_that_are_kept_are_sealed_too(log: Log) -> None:
    keys, kept = MemoryKeys(), replace(GUEST, keep_every=100)
    codecs = StateCodecs(Schema(), Personal(keys))
    travel = TimeTravel(log, Schema(), codecs)
    assert codecs.personal
    async with _writer(log, keys) as writer:
        for number in range(205):
            await writer.execute(lambda tx, n=number: tx.do(kept, "ada", Name(f"{NAME} {n}")))  # type: ignore[misc]
    for _ in range(2):  # the second look begins with what the first one kept
        found = await travel.state(kept, "ada", Moment(version=150))
        assert not isinstance(found, Unreadable) and found.state == Guest(f"{NAME} 149", 150)
    assert isinstance(log, KeepsSnapshots)
    nearest = await log.nearest(ADA, codecs.schema(kept), 150)
    assert nearest and nearest.snapshot.version == 100 and NAME.encode() not in nearest.snapshot.state
    assert await log.nearest(ADA, codecs.schema(kept).removesuffix(SEALED_STATE), 204) is None
    await codecs.personal.erase("ada")
    found = await travel.state(kept, "ada", Moment(version=150))
    assert not isinstance(found, Unreadable) and found.state == Guest(ERASED, 150)


@dataclass(frozen=True)
class First:
    """The first name of a guest: a state of which the snapshots of others are none."""

    first: str = ""
    named: int = 0


FIRST = cast(
    Any,
    replace(
        cast(Any, GUEST),
        initial=First(),
        evolve=lambda guest, event: First(guest.first or event.name, guest.named + 1),
        keep_every=0,
    ),
)


class _Hooked(MemoryLog):
    """A log that has something done while a stream is folded."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.meanwhile: list[Coroutine[Any, Any, Any]] = []

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        slices = await super().load(wanted)
        self.doing = [asyncio.create_task(each) for each in self.meanwhile]
        self.meanwhile = []
        return slices


async def test_how_far_a_stream_was_folded_is_forgotten_once_its_person_is_erased() -> None:
    """It was opened while there was a key."""
    log, keys = _Hooked("guests"), MemoryKeys()
    async with _writer(log, keys) as writer:
        for guest in ("ada", "bob", "carol", "dan"):
            await asyncio.gather(*(_name(writer, NAME, guest) for _ in range(250)))
    codecs = StateCodecs(Schema(), personal := Personal(keys))
    travel = TimeTravel(log, Schema(), codecs)

    async def look(guest: str, *, waits: bool = False) -> int | First:
        until = None if waits else asyncio.get_running_loop().time() - 1
        try:
            found = await travel.state(FIRST, guest, Moment(250), until=until)
        except StillFolding as still:
            return still.folded
        assert isinstance(found, Entry)
        return cast(First, found.state)

    assert [await look("ada"), await look("ada"), await look("bob")] == [100, 200, 100]
    await personal.erase("ada")
    assert [await look("bob"), await look("ada")] == [200, 100], "of others it is kept"
    assert await look("ada", waits=True) == First(ERASED, 250)

    log.meanwhile.append(personal.erase("carol"))
    assert [await look("carol"), await look("carol")] == [100, 100], "what was begun before is not kept"
    assert await look("carol", waits=True) == First(ERASED, 250)

    assert await look("dan") == 100
    await Personal(keys).erase("dan")
    personal.known._confirmed -= 3_600  # nobody could be asked for long
    assert await look("dan") == 100
    assert await look("dan", waits=True) == First(ERASED, 250)


class _Interrupted(Snapshots):
    """Has something done once a snapshot is encoded, before it is sealed or before it is stored."""

    def __init__(self, log: Log, personal: Personal) -> None:
        super().__init__(log, events=Schema(), personal=personal)
        self.before: list[Callable[[], Awaitable[Any]]] = []
        self.after: list[Callable[[], Awaitable[Any]]] = []

    async def sealed(self, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        for each in self.before:
            await each()
        found = await super().sealed(snapshots)
        for each in self.after:
            await each()
        return found


async def test_a_snapshot_of_the_moment_of_an_erasure_has_no_name(log: Log) -> None:
    """The newest and one that is kept, made of a state in plain, whoever destroys the key meanwhile."""
    keys, kept, guests = MemoryKeys(), replace(FIRST, keep_every=100), ("a", "b", "c", "d")
    async with _writer(log, keys) as writer:
        for guest in guests:
            await asyncio.gather(*(_name(writer, NAME, guest) for _ in range(100)))
    assert isinstance(log, KeepsSnapshots)
    stored: dict[str, list[bytes]] = {}
    for number, guest in enumerate(guests):
        stream, personal = StreamId("guest", guest), Personal(keys)
        snapshots = _Interrupted(log, personal)
        then = await TimeTravel(log, Schema(), snapshots).state(FIRST, guest, Moment(100))
        assert isinstance(then, Entry) and then.state == First(NAME, 100)
        then = then._replace(aggregate=kept)
        meanwhile = snapshots.before if number % 2 else snapshots.after
        meanwhile.append(partial((personal if number < 2 else Personal(keys)).erase, guest))
        snapshots.replace(stream, then)
        await snapshots._save_some()
        await KeptStates(log, snapshots).keep(stream, then)

        schema = snapshots.schema(kept)
        [slice] = await log.load([ReadRequest(stream, schema=schema)])
        nearest = await log.nearest(stream, schema, 100)
        found = [slice.snapshot, nearest and nearest.snapshot]
        stored[guest] = [each.state for each in found if each]
        later = TimeTravel(log, Schema(), StateCodecs(Schema(), Personal(keys)))
        now = await later.state(kept, guest, Moment(100))
        assert isinstance(now, Entry) and now.state == First(ERASED, 100), guest
    # What is nearest may be the newest.

    assert {guest: len(states) for guest, states in stored.items()} == {"a": 2, "b": 0, "c": 2, "d": 2}
    assert not [state for states in stored.values() for state in states if NAME.encode() in state]
    async with _writer(log, keys) as restarted:
        assert [await _guest(restarted, guest) for guest in guests] == [Guest(ERASED, 100)] * 4


async def test_of_a_stream_about_several_persons_no_snapshot_is_kept(log: Log) -> None:
    async with _writer(log, MemoryKeys()) as writer:
        for number in range(EVERY + 1):
            await writer.execute(lambda tx, n=number: tx.do(ROOM, "101", Book(f"guest-{n}", NAME)))  # type: ignore[misc]
        await writer.execute(lambda tx: tx.state(ROOM, "101"))
        await until(lambda: not writer._snapshots.waiting)
    assert await _snapshot(log, StreamId("room", "101")) is None
    assert NAME.encode() not in b"".join(event.payload for event in await log.read(0, 1_000))


async def test_while_the_keys_are_away_others_go_on(log: Log) -> None:
    class Away(MemoryKeys):
        async def get_or_make(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
            raise Unavailable("no answer")

    async with _writer(log, Away()) as writer:
        outcomes = await asyncio.gather(
            *(_name(writer, name, guest) for name, guest in ((NAME, "ada"), ("", "bob"), (NAME, "carol"))),
            return_exceptions=True,
        )
    kinds = [type(each).__name__ for each in outcomes]
    assert kinds == [KeysUnavailable.__name__, Guest.__name__, KeysUnavailable.__name__]
    assert len(await log.read(0, 10)) == 1


class _Lost(MemoryKeys):
    """Keys that can be taken away."""

    away = False

    async def get(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        if self.away:
            raise Unavailable("no answer")
        return await super().get(subjects)


async def test_where_no_state_keeps_a_name_nobody_waits_for_the_keys(log: Log) -> None:
    keys, forgetful = _Lost(), replace(GUEST, keeps_personal=False, evolve=_counted)
    async with _writer(log, keys) as writer:
        for guest in ("ada", "bob"):
            await _name(writer, NAME, guest)
    keys.away = True
    async with _writer(log, keys) as writer:
        assert (await writer.execute(lambda tx: tx.state(forgetful, "ada"))).result == Guest("", 1)
        with pytest.raises(KeysUnavailable):
            await _guest(writer, "bob")


def _counted(guest: Guest, _event: Any) -> Guest:
    return replace(guest, named=guest.named + 1)


async def test_a_state_in_memory_is_trusted_no_longer_than_its_key(log: Log) -> None:
    """While nobody can ask who was erased, nobody decides by what was known of them."""
    keys = _Lost()
    async with _writer(log, keys) as writer:
        await _name(writer, NAME)
        keys.away = True
        assert (await _guest(writer)).name == NAME
        assert writer.personal
        writer.personal.known._confirmed -= 3_600
        with pytest.raises(KeysUnavailable):
            await _guest(writer)
        keys.away = False
        assert (await _guest(writer)).name == NAME


async def test_events_from_before_the_mark_stay_readable(log: Log) -> None:
    async with _writer(log, None) as before:
        await _name(before, NAME)
    async with _writer(log, MemoryKeys()) as writer:
        assert (await _guest(writer)).name == NAME
        assert writer.personal
        assert [event.position for event in writer.personal.plain(await log.read(0, 10))] == [1]


async def test_the_text_of_an_error_is_told_nobody(log: Log) -> None:
    async with _writer(log, MemoryKeys()) as writer:
        await _name(writer, NAME)
        with (
            capture_logs() as lines,
            pytest.raises(StreamUnreadable, match="_Refused, whose text is left out"),
        ):
            await _name(writer, f"!{NAME}")
    assert "Quartermaine" not in _with_traceback(lines)


@pytest.mark.parametrize("quotes", ["the state", "the event"])
async def test_the_text_of_an_error_of_a_fold_is_told_nobody_whatever_it_quotes(quotes: str) -> None:
    """An event without a name may meet a state that has one, and a state that keeps none an event that has one."""
    of_state = quotes == "the state"

    def fails(guest: Guest, event: Any) -> Guest:
        raise ValueError(guest.name if of_state else event.name)

    guest = replace(GUEST, events=[M["GuestNamed"], M["Noted"]], evolve=fails, keeps_personal=of_state)
    event = M["Noted"]() if of_state else M["GuestNamed"](name=NAME)
    type_, payload, routing_key = encoded(event)
    said = type_, payload, Metadata(), "guests", routing_key, START
    recorded = Recorded("guests", 2, ADA, 2, RandomIds().uuid7(), *said)
    found = fold(Schema(), Entry(guest, Guest(NAME), 1, 1, 0), [recorded])
    assert isinstance(found, Unreadable)
    assert "ValueError, whose text is left out" in str(found.why)


@pytest.mark.parametrize("text", ["a defect", "no such thing"])
async def test_where_no_state_keeps_a_name_only_what_quotes_the_command_is_left_out(text: str) -> None:
    forgetful = replace(GUEST, keeps_personal=False)
    async with _writer(MemoryLog("guests"), MemoryKeys()) as writer:
        await _name(writer, NAME)
        for said, told in ((text, text), ("not Zephyrine again", "whose text is left out")):

            def fail(_guest: Guest, _command: Name, said: str = said) -> Events:
                raise ValueError(said)

            failing = replace(forgetful, decide=fail)
            with pytest.raises(StreamUnreadable, match=told):
                await writer.execute(lambda tx, failing=failing: tx.do(failing, "ada", Name(NAME)))  # type: ignore[misc]


async def test_a_dead_letter_holds_no_name(log: Log) -> None:
    """Neither the event in it, nor the error, nor the lines that tell of it."""
    keys = MemoryKeys()
    own = MemoryLog("own")
    told: list[str] = []

    def react(event: Any) -> Any:
        told.append(event.name)
        raise ValueError(f"cannot bear {event.name}")

    policies = Policies(log="guests", actor="tests", rules={M["GuestNamed"]: react})
    async with _writer(log, keys) as writer, _writer(own, keys) as follower:
        await _name(writer, NAME)
        consumer = Logged(PolicyConsumer(policies, follower, own, Schema()))
        handler = DeadLettering(consumer, own, clock=SystemClock(), ids=RandomIds(), schema=Schema())
        with capture_logs() as lines:
            events = await log.read(0, 10)
            await handler.checkpoint()
            assert await handler.handle(events, 0) == 1
    assert set(told) == {NAME}, "the policy is given it"
    [parked] = own.streams[StreamId(DEAD_LETTERS.name, "tests.guests")]
    assert NAME.encode() not in parked.payload
    assert b"ValueError" in parked.payload and b"react" in parked.payload, "what is wrong, and where"
    assert [line["event"] for line in lines if line["event"] == "dead_letter.parked"]
    assert NAME not in _with_traceback(lines)


def _with_traceback(lines: list[Any]) -> str:
    found = []
    for line in lines:
        found.append(str(line))
        error = line.get("exc_info")
        if isinstance(error, BaseException):
            found += traceback.format_exception(error)
    return "\n".join(found)
