"""What somebody adds to the tables of a running service is an outage of what it refuses, told by name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import asyncpg
import pytest

from tests.dead_letters.journal import CONSUMER, Row, Source, dead_lettering, positions
from tests.kernel.batches import METADATA, batch, counter
from tests.kernel.counter import COUNTER, Add
from tests.mistakes.test_refused_starts import package
from twinlog import ConfigurationError, PostgresViews, Projection, Recorded, Schema, View, Writer
from twinlog.consume import dead_lettering as dead_lettering_module
from twinlog.log.ports import Batch, NewReply, TimerChange
from twinlog.model.errors import RowsRefused
from twinlog.postgres.added import refused
from twinlog.postgres.declarations import PostgresDeclarations
from twinlog.testing import START
from twinlog.testing.internals import CheckpointAdvance, RandomIds, SystemClock, open_log

PACKAGE = "tests.dead_letters.sql"

_FUNCTIONS = """
    CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''not on my watch''; END';
    CREATE FUNCTION blunder() RETURNS trigger LANGUAGE plpgsql AS
        'DECLARE one int; BEGIN one := (SELECT abs(n) FROM generate_series(1, 2) AS n); RETURN new; END';
    CREATE FUNCTION miss() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.missing := 1; RETURN new; END';
    CREATE FUNCTION divide() RETURNS trigger LANGUAGE plpgsql AS
        'DECLARE none int := 0; BEGIN RAISE NOTICE ''%'', 1 / none; RETURN new; END';
    CREATE FUNCTION own_code() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''not so'' USING ERRCODE = ''ZZ999''; END';
"""


def _trigger(table: str, function: str, when: str = "", on: str = "INSERT") -> tuple[str, str]:
    condition = f"WHEN ({when})" if when else ""
    return (
        f"CREATE TRIGGER added BEFORE {on} ON {table} FOR EACH ROW {condition} EXECUTE FUNCTION {function}()",
        f"DROP TRIGGER added ON {table}",
    )


_SWALLOWED = "a trigger or rule of table {table}, which no migration made, refuses rows"
IN_THE_LOG: dict[str, tuple[tuple[str, str], str]] = {
    "events swallowed": (
        _trigger("events", "swallow", "new.stream_id LIKE 'bad%'"),
        _SWALLOWED.format(table="events"),
    ),
    "events ruled out": (
        (
            "CREATE RULE added AS ON INSERT TO events WHERE new.stream_id LIKE 'bad%' DO INSTEAD NOTHING",
            "DROP RULE added ON events",
        ),
        _SWALLOWED.format(table="events"),
    ),
    "events checked": (
        (
            "ALTER TABLE events ADD CHECK (stream_id NOT LIKE 'bad%') NOT VALID",
            "ALTER TABLE events DROP CONSTRAINT events_stream_id_check",
        ),
        "constraint events_stream_id_check of table events, which no migration made, refuses rows",
    ),
    "events refused": (
        _trigger("events", "shout", "new.stream_id LIKE 'bad%'"),
        "trigger function shout, which no migration made, refuses rows",
    ),
    "events stumbled over": (
        _trigger("events", "blunder", "new.stream_id LIKE 'bad%'"),
        "trigger function blunder, which no migration made, refuses rows",
    ),
    "events taken for others": (
        _trigger("events", "miss", "new.stream_id LIKE 'bad%'"),
        "trigger function miss, which no migration made, refuses rows",
    ),
    "timers divided": (
        _trigger("timers", "divide"),
        "trigger function divide, which no migration made, refuses rows",
    ),
    "outcomes refused by a code of somebody's own": (
        _trigger("requests", "own_code"),
        "trigger function own_code, which no migration made, refuses rows",
    ),
    "outcomes swallowed": (_trigger("requests", "swallow"), _SWALLOWED.format(table="requests")),
    "checkpoints swallowed": (_trigger("checkpoints", "swallow"), _SWALLOWED.format(table="checkpoints")),
    "timers swallowed": (_trigger("timers", "swallow"), _SWALLOWED.format(table="timers")),
    "timers with a column": (
        (
            "ALTER TABLE timers ADD COLUMN added text NOT NULL",
            "ALTER TABLE timers DROP COLUMN added",
        ),
        "NOT NULL of column added of table timers, which no migration made, refuses rows",
    ),
    "links swallowed": (_trigger("chain", "swallow"), _SWALLOWED.format(table="chain")),
    "head swallowed": (_trigger("log_head", "swallow", on="UPDATE"), _SWALLOWED.format(table="log_head")),
}


def _everything(name: str, after: int) -> Batch:
    stream = counter(name)
    return Batch(
        recorded_at=START,
        expects={stream: 0},
        events=batch((stream, 0, 1)).events,
        replies=[NewReply(name, b"fingerprint", b"reply", 1)],
        advances=[CheckpointAdvance(CONSUMER, after, after + 1)],
        timers=[TimerChange(stream, 1, START)],
    )


async def test_what_a_table_of_the_log_does_not_take_is_not_acknowledged(
    postgres_url: str, database: str
) -> None:
    """Nothing of a batch is there unless all is, and whoever removes what was added has all go on."""
    wrong: list[str] = []
    async with open_log(postgres_url, database, "counters") as log:
        await log.pool.execute(_FUNCTIONS)
        for number, (what, ((add, remove), told)) in enumerate(IN_THE_LOG.items()):
            await log.pool.execute("DELETE FROM timers")
            # A checkpoint is inserted, or is not: a trigger may be on either.
            await log.pool.execute("DELETE FROM checkpoints")
            wanted = _everything(f"bad{number}", 0)
            await log.pool.execute(add)
            try:
                wrong.append(f"{what}: {await log.append(wanted)}")
            except RowsRefused as error:
                if told not in str(error):
                    wrong.append(f"{what}: {error}")
            if await log.head() != number:
                wrong.append(f"{what}: the head has moved")
            await log.pool.execute(remove)
            await log.append(wanted)
            if await log.head() != number + 1:
                wrong.append(f"{what}: it does not go on")
    assert not wrong, "\n".join(wrong)


async def test_who_writes_what_is_refused_hears_so_and_nobody_else(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "counters") as log:
        await log.pool.execute(_FUNCTIONS)
        add, remove = IN_THE_LOG["events refused"][0]
        await log.pool.execute(add)
        async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:

            async def added(name: str) -> int | Exception:
                try:
                    outcome = await writer.execute(lambda tx: tx.do(COUNTER, name, Add(1)), metadata=METADATA)
                except RowsRefused as error:
                    return error
                return outcome.result.value

            one, bad, other = await asyncio.gather(added("one"), added("bad"), added("other"))
            assert (one, other) == (1, 1)
            assert "trigger function shout" in str(bad)
            assert not writer.problem
            await log.pool.execute(remove)
            assert await added("bad") == 1


IN_A_VIEW = {
    "a check": (
        "ALTER TABLE journal ADD CHECK (written <> '1')",
        "ALTER TABLE journal DROP CONSTRAINT journal_written_check",
        "constraint journal_written_check of table journal, which no migration made, refuses rows",
    ),
    "a unique text": (
        "INSERT INTO journal VALUES ('other', '1', now()); ALTER TABLE journal ADD CONSTRAINT once UNIQUE (written)",
        "ALTER TABLE journal DROP CONSTRAINT once; DELETE FROM journal",
        "constraint once of table journal, which no migration made, refuses rows",
    ),
    "a trigger": (
        *_trigger("journal", "shout"),
        "trigger function shout, which no migration made, refuses rows",
    ),
    "a trigger that stumbles": (
        *_trigger("journal", "blunder"),
        "trigger function blunder, which no migration made, refuses rows",
    ),
    "a trigger that stumbles at the commit": (
        "CREATE CONSTRAINT TRIGGER added AFTER INSERT ON journal DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION divide()",
        "DROP TRIGGER added ON journal",
        "trigger function divide, which no migration made, refuses rows",
    ),
    "a column": (
        "ALTER TABLE journal ADD COLUMN added text NOT NULL",
        "ALTER TABLE journal DROP COLUMN added",
        "The tables of journal do not fit this program",
    ),
    "a foreign key of another table": (
        "ALTER TABLE journal ADD CONSTRAINT once UNIQUE (written); INSERT INTO journal VALUES ('a', '', now()); "
        "CREATE TABLE theirs (written text REFERENCES journal (written)); INSERT INTO theirs VALUES ('')",
        "DROP TABLE theirs; ALTER TABLE journal DROP CONSTRAINT once; DELETE FROM journal",
        "constraint theirs_written_fkey of table theirs, which no migration made, refuses rows",
    ),
    "a check of the log's": (
        f"ALTER TABLE checkpoints ADD CHECK (consumer <> '{CONSUMER}')",
        "ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_consumer_check",
        "constraint checkpoints_consumer_check of table checkpoints, which no migration made, refuses rows",
    ),
}


async def test_what_was_added_to_a_view_is_no_fault_of_its_events(postgres_url: str, database: str) -> None:
    wrong: list[str] = []
    async with open_log(postgres_url, database, "views", PACKAGE) as log:
        await log.pool.execute(_FUNCTIONS)
        for what, (add, remove, told) in IN_A_VIEW.items():
            source = Source()
            await log.pool.execute("DELETE FROM journal; DELETE FROM checkpoints")
            views = PostgresViews(log, PACKAGE, {"journal": Row})
            projection = dead_lettering(Projection(CONSUMER, [source.view()], views, schema=Schema()), log)
            await log.pool.execute(add)
            events = source.add("a:1")
            try:
                wrong.append(f"{what}: {await projection.handle(events, 0)}")
            except (RowsRefused, ConfigurationError) as error:
                if told not in str(error):
                    wrong.append(f"{what}: {error}")
            await log.pool.execute(remove)
            await log.pool.expire_connections()  # of a session that knows the table as it was
            if await projection.handle(events, 0) != 1 or positions(await projection.dead_letters()):
                wrong.append(f"{what}: it does not go on")
    assert not wrong, "\n".join(wrong)


RETYPED = {
    "a text that is a number": ("written", "integer", "written::integer", "text"),
    "a text with a limit": ("written", "character varying(1)", "written", "text"),
    "a time that is a text": ("updated_at", "text", "updated_at::text", "timestamp with time zone"),
    "a key that is a number": ("key", "integer", "ascii(key)", "text"),
}


@pytest.mark.parametrize("shared", ["", "a"])
@pytest.mark.parametrize("known", [True, False])
async def test_a_column_of_another_type_is_no_fault_of_an_event(
    postgres_url: str, database: str, shared: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with table and column, nothing is parked, and it goes on once it is changed back."""
    monkeypatch.setattr(dead_lettering_module, "RETRIES", 0)
    wrong: list[str] = []
    async with open_log(postgres_url, database, "views", PACKAGE) as log:
        if known:  # as a start keeps it
            form = {
                "column written": "text",
                "column updated_at": "timestamp with time zone",
                "column key": "text",
            }
            await PostgresDeclarations(log.pool).keep({("view", "journal"): form})
        for what, (column, type, using, was) in RETYPED.items():
            source = Source()
            await log.pool.execute("DELETE FROM journal; DELETE FROM checkpoints")
            views = PostgresViews(log, PACKAGE, {"journal": Row})
            view = replace(source.view(shared), shared=bool(shared))
            projection = dead_lettering(Projection(CONSUMER, [view], views, schema=Schema()), log)
            await projection.handle(source.add("a:1"), 0)
            await log.pool.execute(f"ALTER TABLE journal ALTER {column} TYPE {type} USING {using}")
            events, said = source.add("a:2"), ""
            for _ in range(3):  # a session knows the table as it was
                try:
                    said = f"handled up to {await projection.handle(events, 1)}"
                except (RowsRefused, ConfigurationError) as error:
                    said = str(error)
            told = f"type {type} of column {column} of table journal, which no migration made, "
            told += f"refuses rows (it was {was})"
            if told not in said:
                wrong.append(f"{what}: {said}")
            await log.pool.execute(f"ALTER TABLE journal ALTER {column} TYPE {was} USING {column}::{was}")
            try:
                if await projection.handle(events, 1) != 2 or positions(await projection.dead_letters()):
                    wrong.append(f"{what}: it does not go on")
            except Exception as error:
                wrong.append(f"{what}: it does not go on: {error}")
    assert not wrong, "\n".join(wrong)


async def test_what_the_migrations_of_a_view_refuse_is_the_events_fault(
    postgres_url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_lettering_module, "RETRIES", 0)

    def nothing(_row: Row | None, event: Recorded, _message: object) -> Row:
        missing: str = None  # type: ignore[assignment]
        return Row(event.partition_key, missing, datetime.now(START.tzinfo))

    source = Source()
    view = source.view()
    async with open_log(postgres_url, database, "views", PACKAGE) as log:
        views = PostgresViews(log, PACKAGE, {"journal": Row})
        empty = View(view.name, view.key, nothing, events=view.events)
        projection = dead_lettering(Projection(CONSUMER, [empty], views, schema=Schema()), log)
        assert await projection.handle(source.add("a:1"), 0) == 1
        assert positions(await projection.dead_letters()) == {"a": [1]}


def _of(sqlstate: str, **fields: str) -> asyncpg.PostgresError:
    letters = {"table": "t", "constraint": "n", "column": "c", "context": "W"}
    given = {letters[name]: value for name, value in fields.items()}
    return asyncpg.PostgresError.new({"C": sqlstate, "M": "so it is\nrow (1)", "S": "ERROR", **given})


IN_MIGRATIONS: dict[str, tuple[str, asyncpg.PostgresError]] = {
    "a name in capitals": (
        "CREATE TABLE t (a int, CONSTRAINT Once UNIQUE (a))",
        _of("23505", table="t", constraint="once"),
    ),
    "a name with signs": (
        'CREATE TABLE t (a int, CONSTRAINT "positive!" CHECK (a > 0))',
        _of("23514", table="t", constraint="positive!"),
    ),
    "a long name": (
        f"CREATE TABLE t (a int, CONSTRAINT {'x' * 70} CHECK (a > 0))",
        _of("23514", table="t", constraint="x" * 63),
    ),
    "a table with signs": (
        'CREATE TABLE "a(b" (a int, CONSTRAINT once UNIQUE (a))',
        _of("23505", table="a(b", constraint="once"),
    ),
    "a partition": (
        "CREATE TABLE t (a int PRIMARY KEY) PARTITION BY LIST (a); CREATE TABLE t_1 PARTITION OF t DEFAULT",
        _of("23505", table="t_1", constraint="t_1_pkey"),
    ),
    "an exclusion": (
        "CREATE TABLE t (a int, EXCLUDE USING gist (a WITH =))",
        _of("23P01", table="t", constraint="t_a_excl"),
    ),
    "a name put together": (
        "CREATE TABLE t (a int); DO $$ BEGIN EXECUTE 'ALTER TABLE t ADD CONSTRAINT x' || '_y UNIQUE (a)'; END $$",
        _of("23505", table="t", constraint="x_y"),
    ),
    "an extension": (
        "CREATE EXTENSION x; CREATE TABLE t (a int)",
        _of("23514", table="t", constraint="of_x"),
    ),
    "a number with places": (
        "CREATE TABLE t (a numeric(10, 2) NOT NULL)",
        _of("23502", table="t", column="a"),
    ),
    "a check before": (
        "CREATE TABLE t (a int CHECK (a IN (1, 2, coalesce(3, (4)))) NOT NULL)",
        _of("23502", table="t", column="a"),
    ),
    "a default before": (
        "CREATE TABLE t (a text DEFAULT 'x;,)' NOT NULL)",
        _of("23502", table="t", column="a"),
    ),
    "a comment before": (
        "CREATE TABLE t (a text -- one, it's; two\n NOT NULL)",
        _of("23502", table="t", column="a"),
    ),
    "a key of a partition": (
        "CREATE TABLE t (a int REFERENCES u) PARTITION BY LIST (a)",
        _of("23503", table="made_by_hand", constraint="t_a_fkey"),
    ),
    "a long statement": (
        f"CREATE TABLE t (a int CHECK (a > 0) NOT NULL); SELECT {'a = a + ' * 6_000} 1",
        _of("23502", table="t", column="a"),
    ),
    "a big serial": ("CREATE TABLE t (a bigserial)", _of("23502", table="t", column="a")),
    "a later migration": (
        "CREATE TABLE t (a int); ALTER TABLE t ALTER a SET NOT NULL",
        _of("23502", table="t", column="a"),
    ),
    "another name": (
        "CREATE TABLE t (a int NOT NULL); ALTER TABLE t RENAME a TO b",
        _of("23502", table="t", column="b"),
    ),
    "named not null": (
        "CREATE TABLE t (a int, CONSTRAINT x NOT NULL a)",
        _of("23502", table="t", column="a"),
    ),
    "a function in capitals": (
        "CREATE FUNCTION Refuse_It() RETURNS trigger",
        _of("P0001", context="PL/pgSQL function refuse_it() line 3 at RAISE"),
    ),
    "a function that another calls": (
        "CREATE FUNCTION mine() RETURNS trigger",
        _of(
            "P0001",
            context="PL/pgSQL function x(integer) line 3 at RAISE\nPL/pgSQL function mine() line 1 at PERFORM",
        ),
    ),
    "the log's own function": (
        "CREATE TABLE t ()",
        _of("P0001", context="PL/pgSQL function move_checkpoint(text) line 3 at RAISE"),
    ),
}


def test_what_migrations_make_in_whatever_words_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    wrong = []
    for number, (what, (statement, error)) in enumerate(IN_MIGRATIONS.items()):
        own = package(tmp_path, f"{stream}_{number}", statement)
        if added := refused(error, [own]):
            wrong.append(f"{what}: {added}")
    assert not wrong, "\n".join(wrong)


def test_whose_a_constraint_is_is_told_by_the_migrations() -> None:
    """What is not to be told is taken for theirs: an event that is at fault must not hold up the others."""
    theirs = [
        _of("23502", table="journal", column="written"),
        _of("23502", table="journal", column="key"),
        _of("23505", table="journal", constraint="journal_pkey"),
        _of("23505", table="unheard_of", constraint="once"),
        _of("23514"),
        _of("P0001"),
        _of("22003", table="journal"),
        _of(
            "22P05", context='JSON data, line 1: {"note": "as in f(x)\\u0000...\nunnamed portal parameter $1'
        ),
    ]
    added = [
        _of("23502", table="journal", column="added"),
        _of("23514", table="journal", constraint="journal_written_check"),
        _of("23505", table="journal", constraint="journal_written_key"),
        _of("23503", table="journal", constraint="journal_key_fkey"),
        _of("23503", table="unheard_of", constraint="unheard_of_key_fkey"),
        _of("23001", table="unheard_of", constraint="unheard_of_key_fkey"),
        _of("23502", table="checkpoints", column="position"),
        _of("P0001", context="PL/pgSQL-Funktion shout() Zeile 1 bei RAISE"),
        _of("P0001", context="fonction PL/pgSQL public.shout(), ligne 1, à RAISE"),
    ]
    assert [error for error in theirs if refused(error, [PACKAGE])] == []
    assert [error for error in added if not refused(error, [PACKAGE])] == []
    told = str(refused(added[0], [PACKAGE]))
    assert "row (1)" not in told
    unknown = [_of("P0001", context="shout() line 1"), _of("23503", table="x", constraint="x_key_fkey")]
    assert [error for error in unknown if refused(error, ["tests.dead_letters"])] == []
    assert all(refused(error) for error in unknown), "the log's own statements refuse nothing"


def test_what_another_package_of_the_program_makes_is_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    one = package(tmp_path, f"{stream}_one", "CREATE TABLE t (a int, b text)")
    more = "ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0), ALTER b SET NOT NULL"
    other = package(tmp_path, f"{stream}_other", f"{more}; CREATE FUNCTION no() RETURNS trigger")
    errors = [
        _of("23514", table="t", constraint="positive"),
        _of("23502", table="t", column="b"),
        _of("P0001", context="PL/pgSQL function no() line 3 at RAISE"),
    ]
    assert [bool(refused(error, [one])) for error in errors] == [True] * 3
    assert [bool(refused(error, [one, other])) for error in errors] == [False] * 3


async def test_the_packages_of_a_log_are_known_to_its_views(
    postgres_url: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setattr(dead_lettering_module, "RETRIES", 0)
    monkeypatch.syspath_prepend(tmp_path)
    check = "ALTER TABLE journal ADD CONSTRAINT once CHECK (written <> '1')"
    source, other = Source(), package(tmp_path, f"{stream}_other", check)
    async with open_log(postgres_url, database, "views", PACKAGE, other) as log:
        views = PostgresViews(log, PACKAGE, {"journal": Row})
        projection = dead_lettering(Projection(CONSUMER, [source.view()], views, schema=Schema()), log)
        assert await projection.handle(source.add("a:1"), 0) == 1
        assert positions(await projection.dead_letters()) == {"a": [1]}
