"""What an error of Postgres means: one table, through which everything goes that talks to the database.

The table is also a page for people, docs/reference/errors.md; a test holds the two together.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

import asyncpg

from twinlog._aio.reasons import reason
from twinlog.model.errors import PartlyUnavailable, Unavailable, WrongSetting

_SETTING = "POSTGRES_URL"


class Meaning(Enum):
    """What an error means for its caller."""

    OUTAGE = "outage"
    """It passes: wait with backoff, and tell."""
    RACE = "race"
    """Somebody else was faster, and nothing was done: try again at once, a few times; then it is an outage."""
    MISCONFIGURATION = "misconfiguration"
    """Somebody has to mend it: refused at start; later an outage that names the setting and the way out."""
    DEFECT = "defect"
    """The statement or its data is at fault: the caller gets the error."""


class Rule(NamedTuple):
    """One line of the table."""

    of: str | type[BaseException]
    """A SQLSTATE, the two characters of its class, or an exception of the client."""
    meaning: Meaning
    what: str
    """For people: what has happened; where it is a misconfiguration, how a refusal begins."""
    remedy: str = ""
    """The way out of a misconfiguration."""
    text: str = ""
    """Only where this is found in the message or its origin, as a regular expression. A server says the former in the
    language of its operators, so of what the server itself says only the latter counts: the function it comes from.
    That of an AttributeError or OSError is the function it was raised in."""
    reconnect: bool = False
    """Whether only a new session may do better."""


_POOLER = (
    "the pooler in between gives each transaction another session",
    "use its session mode (pgbouncer: pool_mode = session) or the server's own address",
)
_RIGHTS = ("this user lacks a right", "grant it, or use the owner of the database")
_MISFIT = (
    "the database does not have what this program's statements name, or has it otherwise",
    "run the program that it was made for, or correct the user's search_path or its right to use the schema; where the "
    "database is a new one, start this program again, which makes what it needs",
)

_CLOSED_WITHIN = "underlying connection is closed"

RULES: Sequence[Rule] = (
    # Of the client and the network.
    Rule(ssl.SSLCertVerificationError, Meaning.MISCONFIGURATION, "the server's certificate is not trusted",
         "set sslrootcert in the URL to the authority that signed it"),
    Rule(ConnectionError, Meaning.MISCONFIGURATION, "the server has no TLS, or is no Postgres",
         "leave out sslmode, switch TLS on, or correct the address", text="rejected SSL upgrade"),
    Rule(OSError, Meaning.MISCONFIGURATION, "a file that the URL names for TLS cannot be used",
         "correct sslrootcert, sslcert, sslkey or sslcrl", text=r"asyncpg\.connect_utils\._parse_connect"),
    Rule(TimeoutError, Meaning.OUTAGE, "the server does not answer, or no connection was free in time",
         reconnect=True),
    Rule(OSError, Meaning.OUTAGE, "the server cannot be reached"),
    Rule(asyncpg.exceptions.ClientConfigurationError, Meaning.MISCONFIGURATION, "the URL cannot be used",
         "correct it"),
    Rule(asyncpg.UnsupportedClientFeatureError, Meaning.MISCONFIGURATION, "the server wants what this client cannot",
         "switch it off"),
    Rule(asyncpg.InterfaceError, Meaning.MISCONFIGURATION, "the server wants a login that this client cannot do",
         "allow scram-sha-256 in pg_hba.conf", text="unsupported authentication"),
    Rule(asyncpg.InterfaceError, Meaning.DEFECT, "a value that does not fit its parameter", text="^query argument"),
    Rule(asyncpg.InterfaceError, Meaning.OUTAGE,
         "the server, or somebody at it, closed the connection within a transaction; its log says why",
         text=_CLOSED_WITHIN),
    Rule(asyncpg.InterfaceError, Meaning.OUTAGE, "the connection, or the pool, was closed",
         text=r"\b(connection|pool|operation)\b"),
    Rule(asyncpg.InterfaceError, Meaning.DEFECT, "a statement and its arguments that do not fit each other"),
    Rule(asyncpg.TargetServerAttributeNotMatched, Meaning.OUTAGE,
         "no server is what target_session_attrs of the URL asks for"),
    Rule(asyncpg.InternalClientError, Meaning.OUTAGE, "the connection broke in the middle of something",
         reconnect=True),
    # A connection that is closed between two steps of a statement has no protocol for the second one. That frame is
    # asyncpg's Python; what has no attribute in its protocol, or elsewhere, is a defect.
    Rule(AttributeError, Meaning.OUTAGE, "the connection was closed under a statement",
         text=r"^'NoneType' .*\nasyncpg\.(?!protocol)"),
    Rule(asyncpg.InvalidCachedStatementError, Meaning.RACE, "a migration has changed what a statement gives"),
    # Of a pooler, which has one code for everything.
    Rule("08P01", Meaning.MISCONFIGURATION, "there is no such database", "create it, and name it to the pooler",
         text=r"no such database|^database .* does not exist"),
    Rule("08P01", Meaning.MISCONFIGURATION, "the pooler refuses the login",
         "correct user and password, there or in the URL", text="authentication failed|no such user"),
    Rule("08P01", Meaning.MISCONFIGURATION, "the pooler refuses a parameter of the URL",
         "leave it out, or let the pooler ignore it (ignore_startup_parameters)", text="unsupported startup parameter"),
    Rule("26000", Meaning.MISCONFIGURATION, *_POOLER, reconnect=True),
    Rule("42P05", Meaning.MISCONFIGURATION, *_POOLER, reconnect=True),
    Rule("08", Meaning.MISCONFIGURATION, *_POOLER, text="statement pooling"),
    # Of the server.
    Rule("08", Meaning.OUTAGE, "the connection broke, or a pooler has no server to offer"),
    Rule("0A000", Meaning.OUTAGE, "the server is a standby, and serializable transactions are its default",
         text="GetSerializableTransactionSnapshot", reconnect=True),
    Rule("25006", Meaning.OUTAGE, "the server is read-only", reconnect=True),
    Rule("25P03", Meaning.OUTAGE, "a transaction idled too long"),
    Rule("25P04", Meaning.OUTAGE, "a transaction took too long"),
    Rule("28", Meaning.MISCONFIGURATION, "Postgres refuses the login",
         "correct user and password, percent-encoded, or pg_hba.conf"),
    Rule("3D000", Meaning.MISCONFIGURATION, "there is no such database", "create it, or correct its name"),
    Rule("3F000", Meaning.MISCONFIGURATION, "this user has no schema to work in",
         "create one, let the user use it, or correct its search_path"),
    Rule("40002", Meaning.DEFECT, "a constraint is violated at commit"),
    Rule("40003", Meaning.OUTAGE, "whether the statement was carried out is not known"),
    Rule("40", Meaning.RACE, "two transactions stood in each other's way"),
    Rule("42501", Meaning.MISCONFIGURATION, "a policy hides rows from this user",
         "give it BYPASSRLS, or disable row-level security of the table", text="check_enable_rls"),
    Rule("42501", Meaning.MISCONFIGURATION, *_RIGHTS, reconnect=True),
    Rule("42702", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42703", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42704", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42725", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42804", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42809", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42846", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42883", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("42P10", Meaning.MISCONFIGURATION, "an index that a statement needs is gone or not whole",
         "`twinlog audit` says which one, and how to make it again"),
    Rule("42P01", Meaning.MISCONFIGURATION, *_MISFIT, reconnect=True),
    Rule("53", Meaning.OUTAGE, "memory, disk or connections have run out"),
    Rule("55000", Meaning.OUTAGE, "the database accepts no connections, or is not ready"),
    Rule("55006", Meaning.OUTAGE, "something is in use"),
    Rule("55P03", Meaning.OUTAGE, "a lock was not to be had in time"),
    Rule("57", Meaning.OUTAGE, "the server is starting or stopping, or an operator stepped in"),
    Rule("58", Meaning.OUTAGE, "the server's machine is in trouble"),
    Rule("72", Meaning.OUTAGE, "what a transaction was to see is kept no longer (old_snapshot_threshold)"),
    Rule("F0", Meaning.OUTAGE, "the server's configuration file is broken"),
    Rule("XX001", Meaning.OUTAGE, "what is stored there is damaged; of streams, these alone are concerned"),
    Rule("XX", Meaning.OUTAGE, "the server is in trouble itself", reconnect=True),
)  # fmt: skip
"""The first rule that fits counts; a SQLSTATE in full goes before its class. Where none fits, it is a defect: of the
statement (class 42 and others), or of its data (22, 23, 54, P0)."""


_KNOWN = (OSError, AttributeError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError)


class LostRace(Unavailable):
    """The database is busy: other transactions were faster, again and again ({why})."""


def rule_of(error: BaseException) -> Rule | None:
    """The rule for an error; None where nothing is known of it, so that it is a defect."""
    state = error.sqlstate or "" if isinstance(error, asyncpg.PostgresError) else ""
    fitting = (rule for rule in RULES if _fits(rule, error, state))
    return min(fitting, key=lambda rule: rule.of == state[:2], default=None)


def _fits(rule: Rule, error: BaseException, state: str) -> bool:
    of = (
        isinstance(error, rule.of)
        if isinstance(rule.of, type)
        else state in (rule.of,) or state[:2] == rule.of
    )
    return of and (not rule.text or re.search(rule.text, f"{error}\n{_origin(error)}") is not None)


def _origin(error: BaseException) -> str:
    if isinstance(error, AttributeError | OSError):
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return f"{frames[-1].f_globals.get('__name__')}.{frames[-1].f_code.co_name}" if frames else ""
    return getattr(error, "server_source_function", None) or ""


def translated(error: BaseException, where: str = "") -> Unavailable | None:
    """The error as what it means; None: a defect. ``where``: the server's address, if it is being connected to."""
    rule = rule_of(error)
    if rule is None or rule.meaning is Meaning.DEFECT:
        return None
    # Python's own words for it are of no use to anybody.
    said = rule.what if isinstance(error, AttributeError) else reason(error)
    if (
        isinstance(error, asyncpg.InternalClientError) or rule.text == _CLOSED_WITHIN
    ):  # of the client's own states
        said = f"{rule.what}: {said}"
    why = said + (f": {where}" if where else "")
    if rule.meaning is Meaning.RACE:
        return LostRace(why=why)
    if rule.meaning is Meaning.MISCONFIGURATION:
        return WrongSetting(f"{_SETTING}: {rule.what} ({why}); {rule.remedy}")
    if rule.of == "XX001":
        return PartlyUnavailable(why=why)
    return Unavailable(f"the database is out of {'service' if _is_answer(error) else 'reach'} ({why})")


def _is_answer(error: BaseException) -> bool:
    """Whether the server itself has said so."""
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] != "08"


@contextmanager
def outages(where: str = "") -> Iterator[None]:
    """Raises what goes wrong inside as what it means: Unavailable, of the kinds LostRace and WrongSetting, or itself.

    ``where``: the server's address, if it is being connected to.
    """
    try:
        yield
    except _KNOWN as error:
        meant = translated(error, where)
        if meant is None:
            raise
        # asyncpg may have failed while cleaning up after a cancellation, which must not be lost.
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError from error
        raise meant from error
