"""What an error of the store means: the table, the page that shows it, and each operation against each error."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import asyncpg
import pytest
from structlog.testing import capture_logs

from stack.topology import ROOT
from tests.dead_letters.journal import Row, Source
from tests.kernel.batches import batch, counter
from tests.virtual_time import in_virtual_time
from tests.waiting import until
from twinlog import ConfigurationError, PostgresViews, Unavailable
from twinlog.jetstream import meaning as jetstream
from twinlog.log.ports import ReadRequest, Snapshot
from twinlog.model.errors import WrongSetting
from twinlog.postgres import connection
from twinlog.postgres.connection import stop_waiting, until_available
from twinlog.postgres.database import ensure_database
from twinlog.postgres.lease import PostgresLease
from twinlog.postgres.meaning import RULES, LostRace, Meaning, Rule, rule_of, translated
from twinlog.postgres.migrations import migrate
from twinlog.service import own_log, runtime
from twinlog.testing import START
from twinlog.testing.internals import CheckpointAdvance, Pool, PostgresLog

PAGE = ROOT / "docs" / "reference" / "errors.md"
A = counter("a")


# --- the page ---


def _row(rule: Rule) -> str:
    of = f"`{rule.of}`" if isinstance(rule.of, str) else f"`{rule.of.__name__}`"
    where = f", where it says `{rule.text}`".replace("|", "\\|") if rule.text else ""
    remedy = f": {rule.remedy}" if rule.remedy else ""
    return f"| {of}{where} | {rule.meaning.value} | {rule.what}{remedy} |"


def test_the_page_shows_the_table() -> None:
    rows = [_row(rule) for rule in RULES]
    rows += [
        f"| `{rule.text}` | {rule.setting} | {rule.what}: {rule.remedy} |".replace(
            rule.text, rule.text.replace("|", "\\|")
        )
        for rule in jetstream.RULES
    ]
    text = PAGE.read_text()
    missing = [row for row in rows if row not in text]
    assert not missing, "\n".join(missing)
    assert sum(line.startswith("| `") for line in text.splitlines()) == len(rows)


# --- the table ---


def of(sqlstate: str, message: str = "so it is") -> asyncpg.PostgresError:
    """An error as the server sends it."""
    return asyncpg.PostgresError.new({"C": sqlstate, "M": message, "S": "ERROR"})


OUTAGES = (
    *("08000", "08001", "08003", "08004", "08006", "08007"),
    *("25006", "25P03", "25P04", "40003"),
    *("53000", "53100", "53200", "53300", "53400", "55000", "55006", "55P03"),
    *("57000", "57014", "57P01", "57P02", "57P03", "57P04", "57P05"),
    *("58000", "58030", "58P01", "58P02", "72000", "F0000", "F0001", "XX000", "XX001", "XX002"),
)
RACES = ("40000", "40001", "40P01")
WRONG = (
    *("28000", "28P01", "3D000", "3F000", "26000", "42P05"),
    *("42501", "42702", "42703", "42704", "42725", "42804", "42809", "42846", "42883", "42P01", "42P10"),
)
DEFECTS = (
    *("0A000", "21000", "22000", "22003", "22021", "22P05", "23502", "23505", "23514", "25001", "25P02"),
    *("2BP01", "40002", "42601", "54000", "54001", "55P02", "P0001", "P0004", "ZZ999"),
)
POOLER = {
    "no such database: shop": Meaning.MISCONFIGURATION,
    'database "shop" does not exist': Meaning.MISCONFIGURATION,
    '"trust" authentication failed': Meaning.MISCONFIGURATION,
    "no such user: shop": Meaning.MISCONFIGURATION,
    "unsupported startup parameter: search_path": Meaning.MISCONFIGURATION,
    "server login has been failing, try again later (server_login_retry)": Meaning.OUTAGE,
    "query_wait_timeout": Meaning.OUTAGE,
    "no more connections allowed (max_client_conn)": Meaning.OUTAGE,
    "pgbouncer cannot connect to server": Meaning.OUTAGE,
    "transaction blocks not allowed in statement pooling mode": Meaning.MISCONFIGURATION,
}


def closed_under(statement: Callable[[asyncpg.Connection[Any]], Coroutine[Any, Any, object]]) -> Exception:
    """What asyncpg raises where a connection is closed between two steps of a statement."""
    protocol, prepared = MagicMock(), MagicMock()
    protocol.get_settings().server_version = "16.0"
    protocol.get_record_class.return_value = asyncpg.Record
    protocol._get_timeout.return_value = None
    prepared._init_types.return_value = set()
    opened: Any = asyncpg.Connection
    connection = opened(protocol, None, MagicMock(), None, MagicMock(statement_cache_size=0), None)

    async def prepare(*_arguments: Any, **_named: Any) -> Any:
        connection.terminate()
        return prepared

    protocol.prepare = prepare
    return raised_by(lambda: statement(connection).send(None))


def raised_by(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it should have raised")


def named_by_the_url(query: str) -> Exception:
    """What asyncpg raises where it cannot use a file."""

    async def connect() -> None:
        await asyncpg.connect(f"postgresql://me@127.0.0.1:1/shop?{query}")

    return raised_by(lambda: asyncio.run(connect()))


OF_THE_CLIENT: list[tuple[Exception, Meaning]] = [
    (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 5432)"), Meaning.OUTAGE),
    (ConnectionResetError(104, "Connection reset by peer"), Meaning.OUTAGE),
    (OSError(-2, "Name or service not known"), Meaning.OUTAGE),
    (ConnectionError('PostgreSQL server at "h:1" rejected SSL upgrade'), Meaning.MISCONFIGURATION),
    (ssl.SSLCertVerificationError(1, "certificate verify failed"), Meaning.MISCONFIGURATION),
    (named_by_the_url("sslmode=verify-full&sslrootcert=/nowhere/ca.pem"), Meaning.MISCONFIGURATION),
    (named_by_the_url(f"sslmode=require&sslcert={PAGE}"), Meaning.MISCONFIGURATION),
    (TimeoutError(), Meaning.OUTAGE),
    (asyncpg.InterfaceError("connection is closed"), Meaning.OUTAGE),
    (asyncpg.InterfaceError("pool is closing"), Meaning.OUTAGE),
    (
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        Meaning.OUTAGE,
    ),
    (asyncpg.InterfaceError("query argument $1: no codec for a connection"), Meaning.DEFECT),
    (asyncpg.InterfaceError("the server expects 1 argument for this query, 2 were passed"), Meaning.DEFECT),
    (asyncpg.DataError("invalid input for query argument $1: 'x' (an integer is required)"), Meaning.DEFECT),
    (closed_under(lambda connection: connection.fetch("SELECT 1")), Meaning.OUTAGE),
    (closed_under(lambda connection: connection.execute("SELECT $1", 1)), Meaning.OUTAGE),
    (closed_under(lambda connection: connection.executemany("SELECT $1", [(1,)])), Meaning.OUTAGE),
    (raised_by(lambda: cast(Any, None).bind_execute), Meaning.DEFECT),
    (AttributeError("'NoneType' object has no attribute 'bind_execute'"), Meaning.DEFECT),
    (asyncpg.InternalClientError("got result for unknown protocol state 3"), Meaning.OUTAGE),
    (asyncpg.TargetServerAttributeNotMatched("None of the hosts match"), Meaning.OUTAGE),
    (
        asyncpg.exceptions.ClientConfigurationError("`sslmode` parameter must be one of"),
        Meaning.MISCONFIGURATION,
    ),
    (asyncpg.InvalidCachedStatementError("cached statement plan is invalid"), Meaning.RACE),
    (KeyError("x"), Meaning.DEFECT),
]


def meaning_of(error: BaseException) -> Meaning:
    rule = rule_of(error)
    return rule.meaning if rule else Meaning.DEFECT


def test_every_code_has_its_meaning() -> None:
    told = {Meaning.OUTAGE: OUTAGES, Meaning.RACE: RACES, Meaning.MISCONFIGURATION: WRONG}
    for meaning, states in {**told, Meaning.DEFECT: DEFECTS}.items():
        assert {state: meaning_of(of(state)) for state in states} == dict.fromkeys(states, meaning)


def test_what_a_policy_hides_is_known_in_any_language() -> None:
    said = {"C": "42501", "M": "Anfrage wäre von Policy betroffen", "S": "FEHLER", "R": "check_enable_rls"}
    assert "BYPASSRLS" in str(translated(asyncpg.PostgresError.new(said)))


def test_what_a_pooler_says_has_one_code_and_many_meanings() -> None:
    assert {text: meaning_of(of("08P01", text)) for text in POOLER} == POOLER


@pytest.mark.parametrize(("error", "meaning"), OF_THE_CLIENT, ids=repr)
def test_what_the_client_says_itself(error: Exception, meaning: Meaning) -> None:
    assert meaning_of(error) is meaning


@pytest.mark.parametrize(
    ("error", "where", "says"),
    [
        (OF_THE_CLIENT[0][0], "h:5432", "the database is out of reach (Connection refused: h:5432)"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] Connect call"
            ),
            "h:1",
            "the database is out of reach (Connection refused: h:1)",
        ),
        (OF_THE_CLIENT[2][0], "h:1", "the database is out of reach (Name or service not known: h:1)"),
        (TimeoutError(), "", "the database is out of reach (no answer in time)"),
        (ConnectionResetError(), "", "the database is out of reach (Connection reset by peer)"),
        (
            named_by_the_url("sslmode=verify-full&sslrootcert=/nowhere/ca.pem"),
            "h:1",
            "POSTGRES_URL: a file that the URL names for TLS cannot be used (No such file or directory: h:1); "
            "correct sslrootcert, sslcert, sslkey or sslcrl",
        ),
        (
            asyncpg.InternalClientError("cannot switch to state 12"),
            "",
            "the database is out of reach (the connection broke in the middle of something: cannot switch to state 12)",
        ),
        (
            # asyncpg does not keep what the server said, such as that a transaction idled too long.
            asyncpg.InterfaceError(
                "cannot call Transaction.__aexit__(): the underlying connection is closed"
            ),
            "",
            "the database is out of reach (the server, or somebody at it, closed the connection within a transaction; "
            "its log says why: cannot call Transaction.__aexit__(): the underlying connection is closed)",
        ),
        (
            closed_under(lambda connection: connection.fetch("SELECT 1")),
            "",
            "the database is out of reach (the connection was closed under a statement)",
        ),
        (
            ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate"),
            "h:1",
            "POSTGRES_URL: the server's certificate is not trusted (certificate verify failed: self-signed "
            "certificate: h:1); set sslrootcert in the URL to the authority that signed it",
        ),
        (of("53300", "too many clients"), "h:1", "the database is out of service (too many clients: h:1)"),
        (
            of("28P01", 'password authentication failed for user "shop"'),
            "h:1",
            'POSTGRES_URL: Postgres refuses the login (password authentication failed for user "shop": h:1); '
            "correct user and password, percent-encoded, or pg_hba.conf",
        ),
    ],
)
def test_a_reason_is_never_hidden(error: Exception, where: str, says: str) -> None:
    assert str(translated(error, where)) == says


# --- each operation against each error ---


class Failing:
    """A pool of connections on which everything fails, or a connection that fails to open where ``opens`` is False."""

    def __init__(self, error: Exception, opens: bool = True) -> None:
        self.error = error
        self.opens = opens
        self.tried = self.taken = self.expired = 0

    def get_idle_size(self) -> int:
        return 0

    async def acquire(self, *, timeout: float) -> Failing:
        if not self.opens:
            self.tried += 1
            raise self.error
        self.taken += 1
        return self

    async def release(self, _connection: Failing) -> None:
        self.taken -= 1

    async def expire_connections(self) -> None:
        self.expired += 1

    @asynccontextmanager
    async def transaction(self) -> Any:
        yield

    async def fetch(self, *_arguments: object) -> list[Any]:
        self.tried += 1
        raise self.error

    execute = fetchrow = fetchval = fetch

    async def close(self) -> None:
        pass


Operation = Callable[[PostgresLog, PostgresViews], Awaitable[object]]


async def _alone(log: PostgresLog, _views: PostgresViews) -> None:
    async with log.exclusive() as session:
        await session.append(batch((A, 0, 1)))


def _lease(log: PostgresLog) -> PostgresLease:
    return PostgresLease(log.pool, "work", "me")


_SNAPSHOT = Snapshot(A, 1, 1, "schema", b"{}")
_ADVANCE = CheckpointAdvance("c", 0, 1)

OPERATIONS: dict[str, Operation] = {
    "append": lambda log, _: log.append(batch((A, 0, 1))),
    "append alone": _alone,
    "load": lambda log, _: log.load([ReadRequest(A, schema="s")]),
    "read": lambda log, _: log.read(0, 1),
    "head": lambda log, _: log.head(),
    "reply": lambda log, _: log.reply("r"),
    "checkpoint": lambda log, _: log.checkpoint("c"),
    "timers": lambda log, _: log.due(START, 1),
    "snapshots": lambda log, _: log.save([_SNAPSHOT]),
    "page tokens": lambda log, _: log.page_token_secret(),
    "lease": lambda log, _: _lease(log).take_row("work", "me", 5.0),
    "lease given up": lambda log, _: _lease(log).give_up_row("work", "me"),
    "checkpoint of views": lambda _, views: views.checkpoint("c"),
    "checkpoints of views": lambda _, views: views.checkpoints(),
    "rows": lambda _, views: views.rows(Source().view(), ["a"]),
    "query": lambda _, views: views.query("journal_rows", ["a"]),
    "commit": lambda _, views: views.commit({}, _ADVANCE),
    "commit with dead letters": lambda _, views: views.commit({}, _ADVANCE, batch((A, 0, 1))),
}
ERRORS: list[tuple[Exception, Meaning]] = [
    *((of(state), Meaning.OUTAGE) for state in OUTAGES),
    *((of(state), Meaning.RACE) for state in RACES),
    *((of(state), Meaning.MISCONFIGURATION) for state in WRONG),
    *((of(state), Meaning.DEFECT) for state in DEFECTS),
    *((of("08P01", text), meaning) for text, meaning in POOLER.items()),
    *OF_THE_CLIENT,
]


@pytest.mark.parametrize("opens", [True, False], ids=["statement", "connection"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_takes_every_error_for_what_it_means(name: str, opens: bool) -> None:
    for error, meaning in ERRORS:
        pool = Failing(error, opens)
        log = PostgresLog(cast(Pool, pool), "counters")
        views = PostgresViews(log, "tests.dead_letters.sql", {"journal": Row})
        with pytest.raises(Exception) as raised:  # which one is what is tested
            await OPERATIONS[name](log, views)
        commits = name.startswith("commit") and opens and isinstance(error, asyncpg.PostgresError)
        if commits and (error.sqlstate or "")[:2] == "42" and error.sqlstate not in ("42501", "42P05"):  # type: ignore[attr-defined]
            assert isinstance(raised.value, ConfigurationError), "the tables are another program's"
        else:
            assert kind(raised.value) is meaning, repr(error)
        assert pool.taken == 0
        again = meaning is Meaning.RACE and name != "append alone"
        assert pool.tried == (connection._RACES + 1 if again else 1)


def kind(error: Exception) -> Meaning:
    """What a caller is told: a defect is the error itself."""
    if isinstance(error, LostRace):
        return Meaning.RACE
    if isinstance(error, WrongSetting):
        return Meaning.MISCONFIGURATION
    return Meaning.OUTAGE if isinstance(error, Unavailable) else Meaning.DEFECT


async def test_a_race_that_is_won_in_time_is_nobodys_business() -> None:
    pool = Failing(of("40P01"))

    async def fetch(*_arguments: object) -> list[Any]:
        pool.tried += 1
        if pool.tried <= connection._RACES:
            raise pool.error
        return [[7]]

    pool.fetch = fetch  # type: ignore[method-assign]
    assert await PostgresLog(cast(Pool, pool), "counters").head() == 7


async def test_only_a_new_session_may_find_a_server_that_writes() -> None:
    pool = Failing(of("25006"))
    with pytest.raises(Unavailable):
        await PostgresLog(cast(Pool, pool), "counters").append(batch((A, 0, 1)))
    assert pool.expired == 1


# --- at start ---


async def test_a_start_that_gets_no_answer_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(connection, "_RETRY_FIRST_SECONDS", 0.0001)
    locked, fails = asyncio.Event(), [Unavailable("away")]

    async def attempt() -> str:
        await locked.wait()
        if fails:
            raise fails.pop()
        return "up"

    with capture_logs() as said:
        starting = asyncio.create_task(until_available("migrations", attempt))
        await until(lambda: bool(said))
        locked.set()
        assert await starting == "up"
    assert [line["event"] for line in said] == ["postgres.waiting", "postgres.available"]
    assert "somebody holds a lock" in said[0]["why"]


@pytest.mark.parametrize("step", ["connecting", "creating", "checking", "migrating"])
async def test_a_start_waits_for_what_passes_and_refuses_the_rest(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(connection, "_RETRY_FIRST_SECONDS", 0.0001)
    for error, meaning in ERRORS:
        if isinstance(error, asyncpg.UniqueViolationError) and step == "creating":
            continue  # another process was faster
        if step == "connecting" and meaning is Meaning.DEFECT and isinstance(error, asyncpg.PostgresError):
            meaning = Meaning.OUTAGE  # no statement of ours is at fault
        fails = [error, error]

        async def attempt(step: str = step, fails: list[Exception] = fails) -> str:
            if not fails:
                return "up"
            return await start(monkeypatch, step, fails.pop())

        with capture_logs() as said:
            if meaning in (Meaning.OUTAGE, Meaning.RACE):
                assert await until_available("database", attempt) == "up"
                assert [line["event"] for line in said] == ["postgres.waiting", "postgres.available"]
            else:
                refusal = ConfigurationError if meaning is Meaning.MISCONFIGURATION else type(error)
                with pytest.raises(refusal) as refused:
                    await until_available("database", attempt)
                assert meaning is Meaning.DEFECT or str(refused.value).startswith("POSTGRES_URL: ")
                assert len(fails) == 1, "refused at once"


async def start(monkeypatch: pytest.MonkeyPatch, step: str, error: Exception) -> str:
    """The steps of a start up to the one that fails."""
    failing = Failing(error)
    missing = of("3D000", 'database "shop" does not exist')
    results: dict[str, list[object]] = {
        "connecting": [error],
        "creating": [missing, failing],
        "checking": [failing],
        "migrating": [failing],
    }

    async def connected(*_arguments: object, **_options: object) -> object:
        result = results[step].pop(0) if results[step] else error
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(asyncpg, "connect", connected)
    if step == "migrating":
        await migrate(cast(asyncpg.Connection, failing), "twinlog.postgres.sql")
        return ""
    return await ensure_database("postgresql://h:1", "shop")


# --- at a stop ---


@in_virtual_time
async def test_a_stop_cuts_no_connection_while_it_may_commit_and_copy() -> None:
    """A busy machine takes longer than half a second for that, with a server in good health."""
    cut: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    stop_waiting(cast(Pool, SimpleNamespace(terminate=lambda: cut.append(loop.time() - began))))
    await asyncio.sleep(runtime.STOP_SECONDS)
    assert 2 * own_log._DRAIN_SECONDS <= cut[0] < runtime.STOP_SECONDS / 3
