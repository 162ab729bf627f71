"""What is stored stays what it was: a program that would read it otherwise, or not find it, is refused at its start."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

from tests.dead_letters.journal import JOURNAL
from tests.kernel.batches import append, new_event
from twinlog import Schema, StreamId, Upcast
from twinlog.log.declarations import (
    AGGREGATE,
    EFFECTS,
    POLICIES,
    Declarations,
    Held,
    Kept,
    KeptConsumers,
    StoredOtherwise,
    check_declarations,
    read_otherwise,
)
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.stored_forms import ENUM, MESSAGE, Form, Named, forms
from twinlog.postgres.declarations import PostgresDeclarations
from twinlog.testing import START
from twinlog.testing.internals import Batch, open_log
from twinlog.v1 import options_pb2

_PROTO = FieldDescriptorProto
_STORED = "library.v1.BookLent"


class MemoryDeclarations:
    """Declarations in memory, of a log that holds ``events``."""

    def __init__(self, *events: Held) -> None:
        self.events = events
        self.all: dict[Named, Kept] = {}

    async def kept(self) -> Mapping[Named, Kept]:
        return dict(self.all)

    async def keep(self, given: Mapping[Named, Form], *, anew: bool = False) -> None:
        for named, form in given.items():
            before = self.all.get(named, Kept({})).form
            self.all[named] = Kept(form if anew else {**form, **before})

    async def retire(self, gone: Collection[Named]) -> None:
        self.all |= {named: self.all[named]._replace(retired=True) for named in gone}

    async def stored(self, asked: Collection[Held]) -> Collection[Held]:
        return [
            (s, t) for s, t in asked if any(s in ("", of) and t in ("", type) for of, type in self.events)
        ]

    async def checkpoints(self) -> Mapping[str, int]:
        return {}


def library() -> FileDescriptorProto:
    """Books are lent, by a desk; a loan has lines."""
    file = FileDescriptorProto(name="library.proto", package="library.v1", syntax="proto3")
    file.dependency.append(options_pb2.DESCRIPTOR.name)
    desk = file.enum_type.add(name="Desk")
    for number, name in enumerate(("DESK_UNSPECIFIED", "DESK_FRONT", "DESK_BACK")):
        desk.value.add(name=name, number=number)
    lent = file.message_type.add(name="BookLent")
    of(lent, "book_id", _PROTO.TYPE_STRING)
    of(lent, "days", _PROTO.TYPE_INT32)
    of(lent, "desk", _PROTO.TYPE_ENUM, ".library.v1.Desk").options.Extensions[options_pb2.tag] = True
    of(lent, "reader", _PROTO.TYPE_STRING).options.Extensions[options_pb2.personal] = True
    of(lent, "reader_id", _PROTO.TYPE_STRING).options.Extensions[options_pb2.subject] = True
    of(lent, "line", _PROTO.TYPE_MESSAGE, ".library.v1.Line")
    of(lent, "notes", _PROTO.TYPE_STRING).label = _PROTO.LABEL_REPEATED
    of(file.message_type.add(name="Line"), "fee", _PROTO.TYPE_INT64)
    of(file.message_type.add(name="LendBook"), "book_id", _PROTO.TYPE_STRING)
    method = file.service.add(name="Library").method.add(name="Lend")
    method.input_type = method.output_type = ".library.v1.LendBook"
    return file


def of(message: DescriptorProto, name: str, type: _PROTO.Type.ValueType, named: str = "") -> _PROTO:
    number = len(message.field) + 1
    made = message.field.add(name=name, number=number, type=type, label=_PROTO.LABEL_OPTIONAL)
    if named:
        made.type_name = named
    return made


def read(file: FileDescriptorProto) -> dict[Named, Form]:
    pool = DescriptorPool()
    for name in ("google/protobuf/descriptor.proto", options_pb2.DESCRIPTOR.name):
        pool.AddSerializedFile(serialized(name))
    pool.AddSerializedFile(file.SerializeToString())
    return forms([pool.FindFileByName(file.name)])


def serialized(name: str) -> bytes:
    file: FileDescriptor = descriptor_pb2.DESCRIPTOR if "descriptor" in name else options_pb2.DESCRIPTOR
    return bytes(file.serialized_pb)


async def start(
    kept: Declarations,
    messages: Mapping[Named, Form] = {},
    aggregates: Sequence[AnyAggregate] = (),
    schema: Schema | None = None,
) -> None:
    keep = await check_declarations(
        kept, await kept.kept(), "library_svc", aggregates, schema or Schema(), messages
    )
    await keep()


def field(file: FileDescriptorProto, name: str, message: int = 0) -> _PROTO:
    return next(each for each in file.message_type[message].field if each.name == name)


def mark(file: FileDescriptorProto, name: str, marked: bool) -> None:
    field(file, name).options.Extensions[options_pb2.personal] = marked


def subject(file: FileDescriptorProto) -> None:
    field(file, "reader_id").ClearField("options")


def routed(file: FileDescriptorProto) -> None:
    field(file, "desk").ClearField("options")


def tagged(file: FileDescriptorProto) -> None:
    file.message_type[1].options.Extensions[options_pb2.tagged] = "desk"


def swapped(file: FileDescriptorProto) -> None:
    one, other = field(file, "book_id"), field(file, "reader_id")
    one.number, other.number = other.number, one.number


def inserted(file: FileDescriptorProto) -> None:
    for each in file.message_type[0].field:
        each.number += 1
    file.message_type[0].field.add(name="branch", number=1, type=_PROTO.TYPE_STRING, label=1)


def optional(file: FileDescriptorProto) -> None:
    file.message_type[0].oneof_decl.add(name="_days")
    field(file, "days").oneof_index = 0


def removed(file: FileDescriptorProto, name: str) -> None:
    file.message_type[0].field.remove(field(file, name))


def put(part: str, value: object, name: str, message: int = 0) -> Callable[[FileDescriptorProto], None]:
    return lambda file: setattr(field(file, name, message), part, value)


REFUSED: dict[str, tuple[Callable[[FileDescriptorProto], object], str]] = {
    "a field renumbered": (put("number", 9, "days"), "field days was number 2 and is 9"),
    "two fields swapped": (swapped, "field book_id was number 1 and is 5"),
    "a field inserted before the others": (inserted, "field days was number 2 and is 3"),
    "a number used again": (put("name", "pages", "days"), "field 2 was `days int32` and is `pages int32`"),
    "another type": (put("type", _PROTO.TYPE_SINT32, "days"), "`days int32` and is `days sint32`"),
    "a wider type": (put("type", _PROTO.TYPE_INT64, "days"), "`days int32` and is `days int64`"),
    "one instead of several": (put("label", 1, "notes"), "`notes repeated string` and is `notes string`"),
    "another message": (
        put("type_name", ".library.v1.LendBook", "line"),
        "`line library.v1.Line` and is `line library.v1.LendBook`",
    ),
    "a message inside changed": (
        put("number", 3, "fee", 1),
        "library.v1.Line is in what is stored|field fee was",
    ),
    "no longer personal": (lambda file: mark(file, "reader", False), "field reader was marked as personal"),
    "another subject": (subject, "its personal fields were those of `reader_id`"),
    "no routing key any more": (routed, "its routing key was `field desk` and is `-`"),
    "a value renumbered": (
        lambda file: setattr(file.enum_type[0].value[1], "number", 7),
        "value DESK_FRONT was 1 and is 7",
    ),
    "a value renamed": (
        lambda file: setattr(file.enum_type[0].value[1], "name", "DESK_SIDE"),
        "value 1 was called DESK_FRONT and is called DESK_SIDE",
    ),
}

ALLOWED: dict[str, Callable[[FileDescriptorProto], object]] = {
    "a field more": lambda file: of(file.message_type[0], "branch", _PROTO.TYPE_STRING),
    "a field less": lambda file: removed(file, "days"),
    "a value more": lambda file: file.enum_type[0].value.add(name="DESK_SIDE", number=9),
    "a value less": lambda file: file.enum_type[0].value.pop(),
    "a type more": lambda file: file.message_type.add(name="BookReturned"),
    "now personal": lambda file: mark(file, "book_id", True),
    "optional": optional,
    "what a method takes": put("number", 9, "book_id", 2),
}


async def test_what_changes_stored_bytes_is_refused_and_what_grows_is_not() -> None:
    wrong = []
    for what, (change, told) in REFUSED.items():
        kept, file = MemoryDeclarations(("loan", _STORED)), library()
        await start(kept, read(file))
        change(file)
        try:
            await start(kept, read(file))
            wrong.append(f"{what}: was let pass")
        except StoredOtherwise as error:
            if not re.search(told, str(error)):
                wrong.append(f"{what}: {error}")
        kept.events = ()
        await start(kept, read(file))  # of such there are no events
        await start(kept, read(file))
    for what, allow in ALLOWED.items():
        kept, file = MemoryDeclarations(("loan", _STORED)), library()
        await start(kept, read(file))
        allow(file)
        try:
            for each in (file, library(), file) if what != "now personal" else (file,):
                await start(kept, read(each))  # older and newer replicas start in turn
        except StoredOtherwise as error:
            wrong.append(f"{what}: {error}")
    assert not wrong


async def test_a_replica_from_before_the_mark_would_take_sealed_texts_for_plain_ones() -> None:
    kept, file = MemoryDeclarations(("loan", _STORED)), library()
    await start(kept, read(file))
    mark(file, "book_id", True)
    await start(kept, read(file))
    with pytest.raises(StoredOtherwise, match="book_id was marked as personal"):
        await start(kept, read(library()))


async def test_what_a_newer_program_added_is_compared_when_an_older_one_has_started_since() -> None:
    kept, newer, other = MemoryDeclarations(("loan", _STORED)), library(), library()
    of(newer.message_type[0], "branch", _PROTO.TYPE_STRING)
    of(other.message_type[0], "branch", _PROTO.TYPE_INT64)
    for file in (library(), newer, library()):
        await start(kept, read(file))
    with pytest.raises(StoredOtherwise, match="`branch string` and is `branch int64`"):
        await start(kept, read(other))


GONE = {(MESSAGE, _STORED): {"routing key": "-"}}
NEW = {(MESSAGE, "library.v2.BookLent"): {"routing key": "-"}}


async def test_a_type_that_moved_is_refused_and_an_older_program_that_lacks_one_is_not() -> None:
    """No generated module has these types, so that each program knows what it is given only."""
    kept = MemoryDeclarations(("loan", _STORED))
    await start(kept, GONE)
    with pytest.raises(StoredOtherwise, match=r"Upcast\.rename\(BookLent, library\.v2\.BookLent\)"):
        await start(kept, NEW)
    await start(kept, {})  # an older program, or one that did without it: it brings nothing
    await start(kept, NEW)
    await start(kept, GONE)
    assert not kept.all[MESSAGE, _STORED].retired


async def test_an_aggregate_keeps_its_name_and_the_events_that_its_streams_have() -> None:
    kept = MemoryDeclarations(("journal", StringValue.DESCRIPTOR.full_name))
    journal = replace(JOURNAL, events=[StringValue])
    await start(kept, aggregates=[journal])
    with pytest.raises(
        StoredOtherwise, match="aggregate 'journal' are stored, and it is gone, while 'diary'"
    ):
        await start(kept, aggregates=[replace(journal, name="diary")])
    renamed = replace(journal, events=[Int64Value])
    with pytest.raises(
        StoredOtherwise, match=r"StringValue, which it does not name among .* while '.*Int64Value'"
    ):
        await start(kept, aggregates=[renamed])
    await start(kept, aggregates=[replace(journal, events=[StringValue, Int64Value])])
    await start(kept, aggregates=[journal])  # an older one
    upcast = Schema([Upcast.rename(StringValue, Int64Value, by=lambda old: Int64Value(value=len(old.value)))])
    await start(kept, aggregates=[replace(journal, events=[Int64Value, BoolValue])], schema=upcast)
    await start(kept)
    await start(kept, aggregates=[replace(journal, name="diary")])  # retired by the one before


async def test_policies_and_effects_under_another_name_would_do_everything_again() -> None:
    wrong = []
    for kind, at, refused in ((POLICIES, 12, True), (EFFECTS, 12, True), (POLICIES, 0, False)):
        kept = MemoryDeclarations()

        async def starts(
            given: Mapping[Named, str], checkpoints: Mapping[str, int], kept: MemoryDeclarations = kept
        ) -> None:
            consumers = KeptConsumers(kept, "desk_svc", await kept.kept(), checkpoints)
            consumers.refuse_renamed(given)
            await consumers.keep(given)

        old, new = {(kind, "desk.loans"): "loans"}, {(kind, "desks.loans"): "loans"}
        await starts(old, {})
        await starts({**old, (kind, "desk.books"): "books"}, {"desk.loans": at})
        await starts(old, {"desk.loans": at})  # an older one
        try:
            await starts(new, {"desk.loans": at})
            wrong += [f"{kind}: was let pass"] if refused else []
        except StoredOtherwise as error:
            wrong += [] if refused and "SET consumer = 'desks.loans'" in str(error) else [str(error)]
        await starts(new, {"desks.loans": at})  # its checkpoint was renamed
        try:
            await starts(old, {"desks.loans": at})  # and the program is rolled back
            wrong += [f"{kind}: was let pass after a rollback"] if refused else []
        except StoredOtherwise as error:
            wrong += [] if refused and "SET consumer = 'desk.loans'" in str(error) else [str(error)]
        await starts(new, {"desk.loans": at, "desks.loans": at})
    assert not wrong


async def test_declarations_are_kept_beside_the_log(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "journal") as log:
        kept = PostgresDeclarations(log.pool)
        await start(kept, read(library()), [JOURNAL])
        assert (await kept.kept())[ENUM, "library.v1.Desk"].form["DESK_BACK"] == "2"
        moved = library()
        put("number", 9, "days")(moved)
        await start(kept, read(moved), [JOURNAL])  # nothing is stored
        assert "9" in (await kept.kept())[MESSAGE, _STORED].form
        stream = StreamId("journal", "one")
        await append(log, Batch(START, {stream: 0}, [new_event(stream, 1, StringValue(value="first"))]))
        asked = [("journal", ""), ("diary", ""), ("", "google.protobuf.StringValue"), ("", _STORED)]
        assert await kept.stored(asked) == [asked[0], asked[2]]
        with pytest.raises(StoredOtherwise, match="'diary' is new"):
            await start(kept, {}, [replace(JOURNAL, name="diary")])
        await start(kept, {}, [])
        assert (await kept.kept())[AGGREGATE, "journal"].retired
        await start(kept, {}, [JOURNAL])
        assert not (await kept.kept())[AGGREGATE, "journal"].retired


@pytest.mark.parametrize(
    "form", ["[]", "5", "null", '"text"', '[{"1": "a"}]', '{"1": 5}', '{"1": {"a": "b"}}']
)
async def test_a_row_that_somebody_garbled_is_told_with_its_way_out(
    form: str, postgres_url: str, database: str
) -> None:
    async with open_log(postgres_url, database, "journal") as log:
        kept = PostgresDeclarations(log.pool)
        await start(kept, read(library()), [JOURNAL])
        await log.pool.execute(
            "UPDATE declarations SET form = $1::text::jsonb WHERE name = $2", form, _STORED
        )
        with pytest.raises(StoredOtherwise, match="table declarations") as refused:
            await start(kept, read(library()), [JOURNAL])
        told = str(refused.value)
        assert "\n" not in told
        await log.pool.execute(told[told.index("DELETE FROM") :])
        await start(kept, read(library()), [JOURNAL])
        assert (await kept.kept())[MESSAGE, _STORED].form == read(library())[MESSAGE, _STORED]


def test_a_form_says_types_as_protos_do() -> None:
    assert read(library())[MESSAGE, _STORED]["6"] == "line library.v1.Line"


def test_a_follower_s_copy_of_a_proto_is_compared_with_what_the_owner_keeps() -> None:
    """Type by type that it wants, with all that is inside; what only one of them has is no difference."""
    owner, copy = library(), library()
    of(owner.message_type[0], "shelf", _PROTO.TYPE_STRING)
    of(copy.message_type[0], "branch", _PROTO.TYPE_STRING).number = 40
    kept = {named: Kept(form) for named, form in read(owner).items()}
    assert not read_otherwise(kept, [], read(copy))
    field(copy, "days").name = "weeks"
    field(copy, "fee", 1).type = _PROTO.TYPE_STRING
    copy.enum_type[0].value[2].number = 3
    days, fee, desk = (
        "library.v1.BookLent: field 2 was `days",
        "library.v1.Line: field 1 was `fee",
        "library.v1.Desk: value DESK_BACK was 2 and is 3",
    )
    for types, words in {("BookLent",): (days, fee, desk), (): (days, fee, desk), ("Line",): (fee,)}.items():
        found = read_otherwise(kept, types, read(copy))
        assert all(any(each.startswith(one) for each in found) for one in words)
        assert len(found) == len(words)
    assert not read_otherwise(kept, ["BookReturned"], read(copy))
    assert not read_otherwise({}, [], read(copy)), "an owner that keeps nothing yet"
