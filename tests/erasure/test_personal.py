"""Personal fields, sealed and opened: any text, anywhere in a message."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from shop.customers.v1.events_pb2 import CustomerCreated
from tests.erasure.messages import declare
from tests.waiting import until
from twinlog import Metadata, Recorded, StreamId, Unavailable
from twinlog.log.keys import cipher
from twinlog.log.known_keys import EVERYBODY
from twinlog.log.personal import SEALED_STATE, Erased, NotOpened, Personal
from twinlog.log.ports import Snapshot
from twinlog.memory.keys import MemoryKeys
from twinlog.model.event import NewEvent
from twinlog.model.personal import (
    ERASED,
    MARK,
    NONCE_BYTES,
    NoSubject,
    WrongMark,
    personal_fields,
    seal,
    unseal,
)
from twinlog.model.withheld import TextWithheld, withheld

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
M: dict[str, Any] = declare(
    "tests.erasure.v1",
    Address=[("street", "personal"), ("zip", "text")],
    Member=[("name", "personal"), ("member_id", "subject")],
    Moved=[
        ("who", "subject"),
        ("name", "personal"),
        ("nicknames", "several personal"),
        ("to", "Address"),
        ("before", "several Address"),
        ("with", "several Member"),
        ("note", "text"),
        ("cause", "Any"),
    ],
    Noted=[("text", "personal")],
    Started=[("trigger", "Any")],
)


def _event(message: Message, stream: str = "ada") -> NewEvent:
    return NewEvent.of(StreamId("person", stream), 1, uuid4(), message, Metadata(), stream)


def _recorded(event: NewEvent) -> Recorded:
    return Recorded("people", 1, *event, datetime.now(UTC))


def _message(event: NewEvent | Recorded) -> Any:
    return M[event.type.rpartition(".")[2]].FromString(event.payload)


def _packed(message: Message) -> Packed:
    packed = Packed()
    packed.Pack(message)
    return packed


@given(TEXTS, st.text(min_size=1), st.text(min_size=1))
def test_a_text_is_opened_for_its_person_and_with_its_key_only(text: str, subject: str, other: str) -> None:
    subject, other = subject.encode("utf-8", "replace").decode(), other.encode("utf-8", "replace").decode()
    key = cipher(b"k" * 32)
    sealed = seal(key, os.urandom(NONCE_BYTES), subject, text)
    assert sealed.startswith(MARK)
    assert unseal(key, subject, sealed) == text
    assert unseal(cipher(b"o" * 32), subject, sealed) is None
    assert other == subject or unseal(key, other, sealed) is None


@given(TEXTS)
def test_what_is_no_sealed_text_is_not_opened(text: str) -> None:
    key = cipher(b"k" * 32)
    assert unseal(key, "ada", text) is None
    assert unseal(key, "ada", MARK + text) is None


@given(
    texts=st.lists(TEXTS.map("«{}»".format), min_size=8, max_size=8),
    name=st.one_of(TEXTS, TEXTS.map(MARK.__add__)),
)
async def test_a_message_comes_back_as_it_was(texts: list[str], name: str) -> None:
    message = M["Moved"](
        who="ada",
        name=name,
        nicknames=texts[:3],
        to=M["Address"](street=texts[3], zip="1010"),
        before=[M["Address"](street=text) for text in texts[4:6]],
        note="moved",
        cause=_packed(M["Member"](name=texts[6], member_id="bob")),
        **{"with": [M["Member"](name=texts[7], member_id="carol")]},
    )
    personal = Personal(MemoryKeys())
    [sealed] = await personal.sealed([_event(message)])
    assert "«".encode() not in sealed.payload
    stored = _message(sealed)
    assert (stored.who, stored.note, stored.to.zip) == ("ada", "moved", "1010")
    [opened] = await personal.opened([_recorded(sealed)])
    assert _message(opened) == message


async def test_each_person_is_erased_alone() -> None:
    personal = Personal(MemoryKeys())
    message = M["Moved"](who="ada", name="Ada", cause=_packed(M["Member"](name="Bob", member_id="bob")))
    [sealed] = await personal.sealed([_event(message)])
    await personal.erase("ada")
    [opened] = await personal.opened([_recorded(sealed)])
    assert _message(opened).name == ERASED
    assert M["Member"].FromString(_message(opened).cause.value).name == "Bob"
    await personal.erase("bob")
    [opened] = await personal.opened([_recorded(sealed)])
    assert M["Member"].FromString(_message(opened).cause.value).name == ERASED


async def test_without_a_subject_it_is_about_the_stream() -> None:
    personal = Personal(MemoryKeys())
    [of_ada] = await personal.sealed([_event(M["Noted"](text="tall"), "ada")])
    [of_bob] = await personal.sealed([_event(M["Noted"](text="small"), "bob")])
    await personal.erase("ada")
    opened = await personal.opened([_recorded(of_ada), _recorded(of_bob)])
    assert [_message(event).text for event in opened] == [ERASED, "small"]


async def test_what_is_packed_in_another_message_names_its_person() -> None:
    """The stream is another one's there: nobody could tell whom it is about."""
    await Personal(MemoryKeys()).sealed([_event(M["Noted"](text="tall"))])
    with pytest.raises(NoSubject, match=r"tests.erasure.v1.Noted .* part of tests.erasure.v1.Started"):
        await Personal(MemoryKeys()).sealed([_event(M["Started"](trigger=_packed(M["Noted"](text="tall"))))])


async def test_nothing_more_is_kept_of_who_is_erased() -> None:
    personal = Personal(MemoryKeys())
    await personal.erase("ada")
    [sealed] = await personal.sealed([_event(M["Noted"](text="tall"))])
    assert _message(sealed).text == MARK
    assert _message((await personal.opened([_recorded(sealed)]))[0]).text == ERASED


async def test_a_text_that_is_sealed_for_another_stays_closed() -> None:
    """As somebody may give it as a name to a program that does not seal."""
    personal = Personal(MemoryKeys())
    [sealed] = await personal.sealed([_event(M["Noted"](text="tall"), "ada")])
    stolen = _recorded(_event(_message(sealed), "bob"))
    await personal.sealed([_event(M["Noted"](text="small"), "bob")])
    assert (await personal.opened([stolen]))[0].payload == stolen.payload
    assert await personal.open("bob", _message(sealed).text) == _message(sealed).text
    assert await personal.open("ada", _message(sealed).text) == "tall"
    assert await personal.open("ada", f"{MARK}forged") == f"{MARK}forged"
    assert await personal.open("ada", "plain") == "plain"


async def test_a_batch_asks_for_its_keys_once_and_for_none_that_are_known() -> None:
    class Counted(MemoryKeys):
        asked = 0

        async def get_or_make(self, subjects: Any) -> Any:
            self.asked += 1
            return await super().get_or_make(subjects)

    keys = Counted()
    personal = Personal(keys, cached=100)
    events = [_event(M["Noted"](text="x"), f"person-{number}") for number in range(50)]
    sealed = await personal.sealed(events)
    await personal.sealed(events)
    await personal.opened([_recorded(event) for event in sealed])
    assert keys.asked == 1
    await personal.sealed([_event(M["Noted"](text="x"), f"other-{number}") for number in range(150)])
    assert personal.known.cached == 100


async def test_another_process_forgets_the_key_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.01)
    keys = MemoryKeys()
    here, there = Personal(keys), Personal(keys)
    [sealed] = await here.sealed([_event(M["Noted"](text="tall"))])
    told: list[str] = []
    there.known.on_erased.append(told.append)
    assert await there.open("ada", _message(sealed).text) == "tall"
    watching = asyncio.create_task(there.known.run())
    await here.erase("ada")
    async with asyncio.timeout(60):
        while not told:
            await asyncio.sleep(0.01)
    watching.cancel()
    assert told == ["ada"]
    assert await there.open("ada", _message(sealed).text) == ERASED


async def test_who_asked_for_an_erased_key_before_it_was_told_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it knows of the person may be older than the key that it asked for."""
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.01)
    keys = MemoryKeys()
    here, there = Personal(keys), Personal(keys, cached=1)
    [sealed] = await here.sealed([_event(M["Noted"](text="tall"))])
    told: list[str] = []
    there.known.on_erased.append(told.append)
    assert await there.open("ada", _message(sealed).text) == "tall"
    await there.sealed([_event(M["Noted"](text="small"), "bob")])  # whose key takes the place of hers
    await here.erase("ada")
    assert await there.open("ada", _message(sealed).text) == ERASED
    assert not told
    watching = asyncio.create_task(there.known.run())
    await until(lambda: told == ["ada"])
    watching.cancel()


async def test_a_kept_state_is_opened_and_a_damaged_one_or_that_of_an_erased_person_is_refused() -> None:
    here = Personal(MemoryKeys())
    plain = Snapshot(StreamId("person", "ada"), 3, 7, "schema", b"tall")
    assert await here.opened_state(plain) == plain
    [sealed] = await here.sealed_states([plain._replace(schema="schema" + SEALED_STATE)])
    assert b"tall" not in sealed.state
    assert await here.opened_state(sealed) == plain
    with pytest.raises(NotOpened):
        await here.opened_state(sealed._replace(state=sealed.state + b"x"))
    await here.erase("ada")
    with pytest.raises(Erased):
        await here.opened_state(sealed)


async def test_a_process_without_keys_in_memory_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.0)
    keys = MemoryKeys()
    asked: list[float] = []

    async def destroyed(within: timedelta) -> list[str]:
        asked.append(within.total_seconds())
        return []

    monkeypatch.setattr(keys, "destroyed", destroyed)
    personal = Personal(keys)
    watching = asyncio.create_task(personal.known.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asked
    await personal.sealed([_event(M["Noted"](text="tall"))])
    async with asyncio.timeout(60):
        while not asked:
            await asyncio.sleep(0)
    watching.cancel()


async def test_keys_that_nobody_can_ask_about_are_not_trusted_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("twinlog.log.known_keys.TRUSTED_SECONDS", 0.0)
    keys = MemoryKeys()
    here, there = Personal(keys), Personal(keys)
    [sealed] = await here.sealed([_event(M["Noted"](text="tall"))])
    assert await there.open("ada", _message(sealed).text) == "tall"
    await here.erase("ada")
    assert await there.open("ada", _message(sealed).text) == ERASED, "although nobody told it"


async def test_an_erasure_from_long_ago_is_learned_by_who_could_not_ask_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose keys were destroyed is told for ten minutes: a process that was away for longer trusts none of its own."""
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.01)

    class Forgetting(MemoryKeys):
        async def destroyed(self, within: timedelta) -> list[str]:
            return []  # it is too long ago

    keys = Forgetting()
    here, there = Personal(keys), Personal(keys)
    [sealed] = await here.sealed([_event(M["Noted"](text="tall"))])
    told: list[str] = []
    there.known.on_erased.append(told.append)
    assert await there.open("ada", _message(sealed).text) == "tall"
    await here.erase("ada")
    there.known._confirmed -= 3_600  # it was stopped, or cut off
    watching = asyncio.create_task(there.known.run())
    await until(lambda: told == [EVERYBODY])
    watching.cancel()
    assert await there.open("ada", _message(sealed).text) == ERASED


async def test_an_outage_ends_in_health_although_no_key_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.01)

    class Away(MemoryKeys):
        away = True

        async def destroyed(self, within: timedelta) -> Collection[str]:
            if self.away:
                raise Unavailable("no answer")
            return await super().destroyed(within)

    keys = Away()
    personal = Personal(keys)
    await personal.sealed([_event(M["Noted"](text="tall"))])
    watching = asyncio.create_task(personal.known.run())
    await until(lambda: "no answer" in (personal.known.problem or ""))
    personal.known._confirmed -= 3_600
    await until(lambda: not personal.known.cached)
    keys.away = False
    await until(lambda: personal.known.problem is None)
    watching.cancel()


async def test_silence_about_keys_has_a_reason_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("twinlog.log.known_keys.TRUSTED_SECONDS", 0.0)

    class Silent(MemoryKeys):
        async def destroyed(self, within: timedelta) -> Collection[str]:
            never: asyncio.Future[Collection[str]] = asyncio.get_running_loop().create_future()
            return await never

    personal = Personal(Silent())
    await personal.sealed([_event(M["Noted"](text="tall"))])
    personal.known._confirmed = inf  # so that it has something to ask about, however long the test takes
    with capture_logs() as logged:
        watching = asyncio.create_task(personal.known.run())
        await until(lambda: personal.known.problem is not None)
        watching.cancel()
    said = "The keys of personal data cannot be read: no answer in time."
    assert (personal.known.problem, logged[0]["problem"]) == (said, said)


async def test_a_key_that_was_read_before_an_erasure_and_comes_after_it_opens_nothing() -> None:
    class Slow(MemoryKeys):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.go_on = asyncio.Event(), asyncio.Event()

        async def get(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
            found = await super().get(subjects)
            self.read.set()
            await self.go_on.wait()
            return found

    keys = Slow()
    keys.go_on.set()
    [sealed] = await Personal(keys).sealed([_event(M["Noted"](text="tall"))])
    keys.go_on.clear()
    keys.read.clear()
    personal = Personal(keys)
    opening = asyncio.create_task(personal.open("ada", _message(sealed).text))
    await keys.read.wait()
    await personal.erase("ada")
    keys.go_on.set()
    assert await opening == ERASED
    assert await personal.open("ada", _message(sealed).text) == ERASED


async def test_who_is_erased_is_told_also_where_the_key_is_in_memory_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A state that was made with it may be there still."""
    monkeypatch.setattr("twinlog.log.known_keys.LOOK_SECONDS", 0.01)
    keys = MemoryKeys()
    there = Personal(keys, cached=1)
    await there.sealed([_event(M["Noted"](text="tall"), "ada")])
    await there.sealed([_event(M["Noted"](text="tall"), "bob")])
    told: list[str] = []
    there.known.on_erased.append(told.append)
    watching = asyncio.create_task(there.known.run())
    await keys.destroy("ada")
    await until(lambda: told == ["ada"])
    watching.cancel()


async def test_events_from_before_the_mark_are_read_as_they_are() -> None:
    personal = Personal(MemoryKeys())
    old = _recorded(_event(M["Noted"](text="tall")))
    [sealed] = await personal.sealed([_event(M["Noted"](text="tall"))])
    assert (await personal.opened([old]))[0] == old
    assert personal.plain([old, _recorded(sealed), _recorded(_event(M["Started"]()))]) == [old]


def test_only_texts_can_be_marked() -> None:
    for name, fields in {
        "Numbers": [("age", "number personal")],
        "Several": [("ids", "several subject"), ("name", "personal")],
        "Two": [("one", "subject"), ("other", "subject")],
    }.items():
        [wrong] = declare(f"tests.erasure.wrong.{name.lower()}", services={}, **{name: fields}).values()
        with pytest.raises(WrongMark, match="only"):
            personal_fields(wrong.DESCRIPTOR)


def test_the_shops_customers_name_is_personal() -> None:
    fields = personal_fields(CustomerCreated.DESCRIPTOR)
    assert fields and (fields.texts, fields.subject) == (("name",), "customer_id")


def test_what_led_to_an_error_of_ours_is_withheld_whether_it_was_named_as_the_cause_or_not() -> None:
    for named in (False, True):
        try:
            try:
                raise ValueError("Ann Smith")
            except ValueError as cause:
                if named:
                    raise Unavailable("try again") from cause
                raise Unavailable("try again")  # noqa: B904 - so that it has a context, and no cause
        except Unavailable as error:
            assert withheld(error, True) is error
            led = [error.__context__, *([error.__cause__] if named else [])]
            assert [type(each) for each in led] == [TextWithheld] * len(led)
            assert withheld(error, True).__context__ is led[0]  # once is enough
