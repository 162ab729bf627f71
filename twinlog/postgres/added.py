"""What somebody added to a table, by an error that came of it: a constraint, a column or a trigger.

It is a change of the store, not a fault of what was to be stored: nobody is told that an event or a command is wrong.
What a package's migrations made themselves is left to the caller; where that is not to be told, they did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import asyncpg

from twinlog.model.errors import ConfigurationError, RowsRefused
from twinlog.postgres.meaning import Meaning, rule_of
from twinlog.postgres.migrations import functions, migrations

KERNEL = "twinlog.postgres.sql"
"""Has the log's own migrations."""
_VANISHED = "TW002"
"""SQLSTATE that append_linked raises where a table did not take every row."""
_NOT_NULL = "23502"
_FOREIGN_KEYS = ("23001", "23503")
"""SQLSTATEs of those; whichever of the two tables was written, the error names the one that has the key."""
_CONSTRAINT = "23"
"""SQLSTATE class of constraints."""
_NO_RIGHT, _DATA = "42501", "22"
"""A function may raise any other: one that divides by zero refuses a row as one that says so does. One that raises a
data exception by itself says that the row is at fault."""
_RAISE = "exec_stmt_raise"
"""The routine of the server that does so."""
_NAMED_BY_POSTGRES = {
    "pkey": r"PRIMARY\s+KEY",
    "key": "UNIQUE",
    "idx": "UNIQUE",
    "check": "CHECK",
    "fkey": "REFERENCES",
    "excl": "EXCLUDE",
}
"""How names end that Postgres gives, and what they come of."""
_MADE_ELSEWHERE = re.compile(
    r"\b(LIKE|INHERITS?|DOMAIN|EXTENSION|RENAME|USING\s+INDEX|format\s*\(|EXECUTE(?!\s+(FUNCTION|PROCEDURE)\b))",
    re.IGNORECASE,
)
"""By which a table has what no statement on it names: of another table, of a type, by another name or put together."""
_FUNCTION = re.compile(r'^(?:[^:(\n]*PL/[^:(\n]*?)?(\w+)"?\(', re.MULTILINE)
"""Lines of where the server was that name a function. Others show data behind a colon, which may look like one."""
_STATEMENT = re.compile(r'["«»„][^"«»“]*["«»“](?!\()')
"""What a function was at, in the quotes of any language. Behind those of a function's name are its parameters."""
_SAID = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
"""Comments and texts, in which commas and brackets separate nothing."""
_BRACKETS = r"\([^()]*\)"
for _ in range(5):
    _BRACKETS = rf"\((?:[^()]|{_BRACKETS})*\)"
_LONGEST_NAME = 63
"""Bytes of a name that Postgres keeps."""


class _Added(NamedTuple):
    what: str
    remedy: str


def refused(error: BaseException, packages: Sequence[str] = ()) -> RowsRefused | None:
    """What somebody added that refuses rows; None: the error comes of something else, or of the packages' migrations.

    ``packages``: whose tables the statement may be about, besides the log's own; those take whatever Twinlog stores.
    Only the first line of the error is told: the rest may show rows.
    """
    if not isinstance(error, asyncpg.PostgresError):
        return None
    state, found = error.sqlstate or "", None
    made = "\n".join(filter(None, map(_text, packages)))
    told = bool(made) or not packages
    if state == _VANISHED:
        table = error.table_name
        found = _Added(f"a trigger or rule of table {table}", rf"drop it; \d {table} in psql shows it")
    elif state.startswith(_CONSTRAINT) and error.table_name:
        found = _constraint(error, error.table_name, made, told and state in _FOREIGN_KEYS)
    elif told and not _has_a_better_word(error):
        found = _function(error, made)
    why = " ".join(str(error).partition("\n")[0].split())
    return RowsRefused(what=found.what, why=why, remedy=found.remedy) if found else None


def retyped(table: str, column: str, was: str, now: str) -> RowsRefused:
    """That somebody gave a column another type."""
    return RowsRefused(
        what=f"type {now} of column {column} of table {table}",
        why=f"it was {was}",
        remedy=f"ALTER TABLE {table} ALTER {column} TYPE {was} USING {column}::{was}, or declare the view in another "
        "version",
    )


def _has_a_better_word(error: asyncpg.PostgresError) -> bool:
    """Whether it passes, has a remedy whoever was at work, or blames the row in so many words."""
    if (error.sqlstate or "").startswith(_DATA):
        return bool(error.server_source_function == _RAISE)
    rule = rule_of(error)
    return rule is not None and (rule.meaning in (Meaning.OUTAGE, Meaning.RACE) or rule.of == _NO_RIGHT)


def _constraint(error: asyncpg.PostgresError, table: str, made: str, refers: bool) -> _Added | None:
    """``refers``: it is a foreign key, which may be of somebody else's table that refers to one of theirs."""
    if not _named(table, made):
        if _named(table, _text(KERNEL), after="CREATE TABLE "):
            made = ""
        elif not refers:
            return None  # who made the table is not known
    name, column = error.constraint_name, error.column_name
    if error.sqlstate == _NOT_NULL:
        if not column or _makes_not_null(column, made):
            return None
        what, remedy = f"NOT NULL of column {column}", f"ALTER TABLE {table} ALTER {column} DROP NOT NULL"
    else:
        if not name or _makes(name, made):
            return None
        what, remedy = f"constraint {name}", f"ALTER TABLE {table} DROP CONSTRAINT {name}"
    return _Added(f"{what} of table {table}", f"{remedy}, or make it in a migration")


def _named(name: str, made: str, after: str = "") -> bool:
    """Whether statements have a name, in whatever letters: those that are not quoted become small ones."""
    end = "" if len(name.encode()) >= _LONGEST_NAME else r"(?!\w)"
    return bool(re.search(rf"(?<!\w){after}{re.escape(name)}{end}", made, re.IGNORECASE))


def _makes_not_null(column: str, made: str) -> bool:
    if _MADE_ELSEWHERE.search(made):
        return True
    name = rf"(?<!\w){re.escape(column)}(?!\w)"
    kept = r"(NOT\s+NULL|PRIMARY\s+KEY|\w*SERIAL\w*|IDENTITY)\b"
    # Up to the name's next place only, from where it is searched again: else it would take the square of a statement.
    between = rf"(?:(?!{name})[^,;()]|{_BRACKETS})*"
    said = rf'{name}"?{between}\b{kept}|PRIMARY\s+KEY\s*\([^()]*{name}|NOT\s+NULL\s+"?{name}'
    return any(re.search(said, text, re.IGNORECASE) for text in (made, _SAID.sub(" ", made)))


def _makes(constraint: str, made: str) -> bool:
    if _named(constraint, made) or _MADE_ELSEWHERE.search(made):
        return True
    kind = re.fullmatch(rf".*_({'|'.join(_NAMED_BY_POSTGRES)})\d*", constraint)
    return bool(kind and re.search(rf"\b{_NAMED_BY_POSTGRES[kind[1]]}\b", made, re.IGNORECASE))


def _function(error: asyncpg.PostgresError, made: str) -> _Added | None:
    """The function of a trigger: the first one that the server was in.

    One of the package's own may have called it: then the package's trigger has refused.
    """
    where = _STATEMENT.sub("", getattr(error, "context", None) or "")
    name = _FUNCTION.search(where)
    if not name or _named(name[1], _text(KERNEL), after="FUNCTION ") or _MADE_ELSEWHERE.search(made):
        return None
    if any(_named(each, made) for each in _FUNCTION.findall(where)):
        return None
    return _Added(f"trigger function {name[1]}", "drop the trigger, or make it in a migration")


@cache
def _text(package: str) -> str:
    """The statements of a package's migrations; empty where it has none."""
    try:
        texts = [each.sql for each in migrations(package)] + [each.sql for each in functions(package)]
    except ConfigurationError:
        return ""
    return "\n".join(texts)
