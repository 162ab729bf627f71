"""Whatever is changed in a log, its stream or its chain shows, by the first position that differs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from tests.chain.history import SIZES, Messages, fill, rewrite_chain, tamper, verified
from tests.kernel.batches import grow
from twinlog.audit import Findings, chain
from twinlog.audit.twins import Stored
from twinlog.log.chain import Head
from twinlog.testing.internals import PostgresLog
from twinlog.v1.event_pb2 import RecordedEvent

EVENT, LINK = 5, 3
"""In the middle of a batch; the link of that, which begins with event 4."""

CHANGED = {
    "text": "{0} || 'x'",
    "integer": "{0} + 100",
    "smallint": "{0} % 2 + 1",
    "bigint": "{0} + 100",
    "uuid": "'00000000-0000-7000-8000-000000000001'",
    "bytea": "set_byte({0}, 0, 255 - get_byte({0}, 0))",
    "jsonb": """coalesce({0}, '{{}}') || '{{"actor": "mallory", "tenant": "south"}}'""",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
}
"""Another value of a column, by its type."""
METADATA = ("correlation_id", "causation_id", "traceparent", "actor")


@pytest.fixture
async def history(postgres_log: PostgresLog) -> AsyncIterator[tuple[PostgresLog, Messages]]:
    twin = await fill(postgres_log)
    await postgres_log.pool.execute("CREATE SCHEMA kept")
    for table in ("events", "chain", "log_head"):
        await postgres_log.pool.execute(f"CREATE TABLE kept.{table} AS TABLE {table}")
    yield postgres_log, twin


async def put_back(log: PostgresLog) -> None:
    for table in ("events", "chain", "log_head"):
        await tamper(log, f"DELETE FROM {table}", f"INSERT INTO {table} TABLE kept.{table}")


async def columns(log: PostgresLog, table: str) -> dict[str, str]:
    rows = await log.pool.fetch(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = $1",
        table,
    )
    return {row[0]: CHANGED[row[1]].format(row[0]) for row in rows}


async def test_what_nobody_touched_differs_nowhere(history: tuple[PostgresLog, Messages]) -> None:
    log, twin = history
    audit = chain.ChainAudit(log, twin)
    found = Findings()
    await audit.verify(found)
    assert (audit.first, found.kept, audit.waiting) == (None, [], 0)
    assert audit.checked == {"links": len(SIZES), "events": sum(SIZES), "twin messages": sum(SIZES)}
    newest = await log.newest_link()
    assert newest
    assert found.notes == [f"counters: note this head elsewhere: {Head.of('counters', newest)}"]


async def test_a_change_of_an_event_names_it(history: tuple[PostgresLog, Messages]) -> None:
    log, _ = history
    changes = {name: f"{name} = {to}" for name, to in (await columns(log, "events")).items()}
    changes |= {
        f"metadata.{name}": f"""metadata = metadata || '{{"{name}": "other"}}'""" for name in METADATA
    }
    changes |= {f"no {name}": f"metadata = metadata - '{name}'" for name in METADATA}
    changes |= {"no extra": "extra = NULL", "extra in metadata": "metadata = metadata || '{\"extra\": {}}'"}
    changes |= {"unreadable": "metadata = '[5]'", "no text": """metadata = metadata || '{"actor": 5}'"""}
    changes |= {"negative": "version = -1", "forever": "recorded_at = '12000-01-01'"}
    found = {}
    for name, change in changes.items():
        await tamper(log, f"UPDATE events SET {change} WHERE position = {EVENT}")
        found[name] = (await verified(log))[0]
        await put_back(log)
    # An empty `extra` in the metadata says nothing while there is one of its own.
    assert found == {name: EVENT for name in changes} | {"extra in metadata": None}
    assert (await verified(log))[0] is None


async def test_events_that_come_go_and_swap_are_named(history: tuple[PostgresLog, Messages]) -> None:
    log, _ = history
    swap = [
        f"UPDATE events SET position = {to} WHERE position = {at}" for at, to in ((5, 99), (9, 5), (99, 9))
    ]
    content = [
        f"UPDATE events SET payload = '\\x{number:02x}' WHERE position = {at}"
        for at, number in ((5, 6), (6, 5))
    ]
    copy = (
        "INSERT INTO events SELECT {0}, stream_type, 'mallory', 1, gen_random_uuid(), type, payload, metadata,"
        " partition_key, tag, recorded_at, extra FROM events WHERE position = 4"
    )
    cases = {
        "deleted": ([f"DELETE FROM events WHERE position = {EVENT}"], EVENT),
        "several deleted": (["DELETE FROM events WHERE position IN (6, 9)"], 6),
        "truncated": (["DELETE FROM events WHERE position > 9", "UPDATE log_head SET position = 9"], 10),
        "truncated, noted as such": (
            [
                "DELETE FROM events WHERE position > 9",
                "UPDATE log_head SET position = 9, linked = 9",
                "DELETE FROM chain WHERE first_position > 9",
            ],
            10,
        ),
        "swapped": (swap, 5),
        "swapped in one batch": (content, 5),
        "inserted": (
            [
                f"UPDATE events SET position = -position - 1 WHERE position > {EVENT}",
                "UPDATE events SET position = -position WHERE position < 0",
                copy.format(EVENT + 1),
                "UPDATE log_head SET position = position + 1, linked = linked + 1",
            ],
            EVENT + 1,
        ),
    }
    found = {}
    for name, (statements, _) in cases.items():
        await tamper(log, *statements)
        found[name] = (await verified(log))[0]
        await put_back(log)
    assert found == {name: first for name, (_, first) in cases.items()}


async def test_a_change_of_the_chain_names_what_it_covers(history: tuple[PostgresLog, Messages]) -> None:
    log, _ = history
    changes = {name: f"{name} = {to}" for name, to in (await columns(log, "chain")).items()}
    changes |= {
        "another mark": "marks = set_byte(marks, 8, 255 - get_byte(marks, 8))",
        "no marks": "marks = ''",
    }
    changes |= {"a cut": "kind = 3", "later": "first_position = first_position + 1"}
    found = {}
    for name, change in changes.items():
        await tamper(log, f"UPDATE chain SET {change} WHERE number = {LINK}")
        found[name] = (await verified(log))[0]
        await put_back(log)
    await tamper(log, f"DELETE FROM chain WHERE number = {LINK}")
    found["deleted"] = (await verified(log))[0]
    await put_back(log)
    await tamper(log, f"DELETE FROM chain WHERE number >= {LINK}", "UPDATE log_head SET linked = 3")
    assert [*map(tuple, await log.unlinked())] == [(4, 13)]
    await put_back(log)
    await tamper(log, "DELETE FROM chain WHERE number = 6")
    found["the last deleted"] = (await verified(log))[0]
    assert found == {name: 4 for name in found} | {"another mark": 5, "the last deleted": 12}


async def test_a_change_of_the_stream_names_the_message(history: tuple[PostgresLog, Messages]) -> None:
    log, twin = history
    good, found = twin.stored[EVENT], {}
    for field in RecordedEvent.DESCRIPTOR.fields:
        message = RecordedEvent.FromString(good.data)
        if field.name == "extra":
            message.extra["tenant"] = "south"
        elif field.name == "event_id":
            message.event_id = UUID(int=7).bytes
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, getattr(message, field.name) + "x")
        elif field.type == field.TYPE_BYTES:
            setattr(message, field.name, getattr(message, field.name) + b"x")
        else:
            setattr(message, field.name, getattr(message, field.name) + 1)
        twin.stored[EVENT] = Stored(good.subject, message.SerializeToString(deterministic=True))
        found[field.name] = (await verified(log, twin))[0]
    for name, stored in {
        "subject": Stored(good.subject + "x", good.data),
        "no event": Stored(good.subject, b"\xff"),
        "a neighbor": twin.stored[EVENT + 1],
    }.items():
        twin.stored[EVENT] = stored
        found[name] = (await verified(log, twin))[0]
    del twin.stored[EVENT]
    found["missing"] = (await verified(log, twin))[0]
    assert found == dict.fromkeys(found, EVENT)

    twin.stored[EVENT] = good
    assert (await verified(log, twin))[0] is None


async def test_a_stream_of_a_version_that_knew_fewer_fields_is_as_it_was_linked(
    history: tuple[PostgresLog, Messages],
) -> None:
    log, twin = history
    message = RecordedEvent.FromString(twin.stored[EVENT].data)
    message.ClearField("extra")
    twin.stored[EVENT] = Stored(twin.stored[EVENT].subject, message.SerializeToString())
    assert (await verified(log, twin))[0] is None


async def test_what_was_changed_everywhere_is_found_by_a_noted_head_alone(
    history: tuple[PostgresLog, Messages],
) -> None:
    log, twin = history
    links = await log.links(0, 100)
    early, late = Head.of("counters", links[1]), Head.of("counters", links[-1])
    await tamper(log, f"UPDATE events SET payload = '\\x0801' WHERE position = {EVENT}")
    twin.store(await log.read(0, 100))
    first, found = await verified(log, twin)
    assert first == EVENT
    assert {each.check for each in found.kept} == {chain.EVENTS, chain.TWIN}

    await rewrite_chain(log)

    assert (await verified(log, twin))[0] is None
    assert (await verified(log, twin, early))[0] is None
    first, found = await verified(log, twin, late)
    assert (first, [each.check for each in found.kept]) == (1, [chain.NOTED])
    first, found = await verified(log, twin, late, early)
    assert (first, [each.check for each in found.kept]) == (4, [chain.NOTED])
    assert "something from event 4 on was changed, and every store with it" in found.kept[0].says


async def test_whatever_was_forged_everywhere_is_found_by_the_noted_heads(
    history: tuple[PostgresLog, Messages],
) -> None:
    """The first of two heads proves what came before it, so the first position that may differ is the one after it."""
    log, twin = history
    links = await log.links(0, 100)
    early, late = Head.of("counters", links[1]), Head.of("counters", links[-1])
    swap = "UPDATE events SET position = {} WHERE position = {}"
    renumbered = [
        "DELETE FROM events WHERE position = 5",
        "UPDATE events SET position = 1 - position WHERE position > 5",
        "UPDATE events SET position = -position WHERE position < 0",
        "UPDATE log_head SET position = 12, linked = 12",
    ]
    after = [(1, 1), (2, 3), (4, 5), (6, 6), (7, 10), (11, 12)]
    cases: dict[str, tuple[list[str], Sequence[tuple[int, int]]]] = {
        "another payload": (["UPDATE events SET payload = '\\x0801' WHERE position = 5"], ()),
        "removed, the rest renumbered": (renumbered, after),
        "swapped": ([swap.format(to, at) for at, to in ((5, 99), (9, 5), (99, 9))], ()),
        "another actor": (
            ["""UPDATE events SET metadata = metadata || '{"actor": "mallory"}' WHERE position = 5"""],
            (),
        ),
        "another time": (
            ["UPDATE events SET recorded_at = recorded_at + interval '1 day' WHERE position = 5"],
            (),
        ),
        "another type": (["UPDATE events SET type = 'tests.v1.Other' WHERE position = 5"], ()),
    }
    found = {}
    for name, (statements, batches) in cases.items():
        await tamper(log, *statements)
        await rewrite_chain(log, batches)
        twin.stored.clear()
        twin.store(await log.read(0, 100))
        found[name] = [(await verified(log, twin, *heads))[0] for heads in ([], [early], [early, late])]
        await put_back(log)
    assert found == {name: [None, None, 13 if "removed" in name else 4] for name in cases}


async def test_batches_that_were_cut_or_joined_are_found_by_a_noted_head_alone(
    history: tuple[PostgresLog, Messages],
) -> None:
    log, twin = history
    links = await log.links(0, 100)
    early, middle, late = (Head.of("counters", links[at]) for at in (1, 2, -1))
    cut = [(1, 1), (2, 3), (4, 5), (6, 6), (7, 7), (8, 11), (12, 13)]
    joined = [(1, 1), (2, 3), (4, 7), (8, 11), (12, 13)]
    noted: Sequence[Sequence[Head]] = ([], [early], [late], [late, early], [late, middle, early])
    found = []
    for batches in (cut, joined):
        await rewrite_chain(log, batches)
        found.append([(await verified(log, twin, *heads))[0] for heads in noted])
        await put_back(log)
    assert found == [[None, None, 1, 4, 4]] * 2, "what was recorded together is part of what is proved"


async def test_a_head_of_events_that_are_lost_tells_so(history: tuple[PostgresLog, Messages]) -> None:
    log, _ = history
    noted = Head.of("counters", (await log.links(0, 100))[-1])
    await tamper(
        log,
        "DELETE FROM events WHERE position > 7",
        "DELETE FROM chain WHERE first_position > 7",
        "UPDATE log_head SET position = 7, linked = 7, links = 4, hash = (SELECT hash FROM chain WHERE number = 4)",
    )
    assert (await verified(log))[0] is None
    first, found = await verified(log, None, noted)
    assert first == 8
    assert "the log ends with event 7: it has lost what came after" in found.kept[0].says
    assert "no noted head proves events 1 to 7" in found.kept[0].says
    early = Head.of("counters", (await log.links(0, 100))[-1])
    first, found = await verified(log, None, noted, early)
    assert (first, "no noted head" in found.kept[0].says) == (8, False)
    await grow(log, 9, "after")  # as somebody does who hides it behind other events
    first, found = await verified(log, None, noted, early)
    assert (first, found.kept[0].check) == (8, chain.NOTED)


async def test_a_head_that_was_changed_alone_is_named(history: tuple[PostgresLog, Messages]) -> None:
    log, _ = history
    found = {}
    for change in (
        "position = position - 1",
        "position = position + 1",
        "position = position + 9",
        "links = links + 1",
        "links = links - 1",
        "hash = set_byte(hash, 0, 255 - get_byte(hash, 0))",
        "hash = (SELECT hash FROM chain WHERE number = 5)",
    ):
        await tamper(log, f"UPDATE log_head SET {change}")
        found[change] = (await verified(log))[0]
        await put_back(log)
    assert found == dict.fromkeys(found, 14) | {"position = position - 1": 13}


async def test_a_pretended_repair_hides_nothing_from_a_noted_head(
    history: tuple[PostgresLog, Messages],
) -> None:
    log, _ = history
    noted = Head.of("counters", (await log.links(0, 100))[-1])
    async with log.pool.acquire() as connection:
        await connection.execute(f"SELECT cut_chain({EVENT})")
    await tamper(log, f"UPDATE events SET payload = '\\x0801' WHERE position = {EVENT}")
    while await log.seal(100):
        pass

    first, found = await verified(log)
    assert first is None
    assert "a repair changed the log from event 4 on" in found.notes[0]
    first, found = await verified(log, None, noted)
    assert first == EVENT
    assert f"event {EVENT} was changed after head {noted} was noted" in found.kept[0].says


async def test_heads_are_noted_from_then_on(history: tuple[PostgresLog, Messages]) -> None:
    log, _ = history
    noted = [Head.of("counters", link) for link in await log.links(0, 100)]
    await grow(log, 3, "b")
    short = [head._replace(hash=head.hash[:12].upper()) for head in noted]
    parsed = [Head.parse(str(head)) for head in (*noted, *short)]
    assert (await verified(log, None, *parsed))[0] is None
    with pytest.raises(ValueError, match="is no head; write it as it was told, such as orders:120:4f4f"):
        Head.parse("orders:120")
