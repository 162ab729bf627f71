"""Mistakes in what services declare: the names and parts of their specs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from twinlog.model.aggregate import Aggregate
from twinlog.model.forms import shown
from twinlog.model.saga_table import Saga
from twinlog.postgres.urls import parted
from twinlog.service.mistakes import LOG_NAME, in_aggregates, in_old_types
from twinlog.service.settings import is_address

if TYPE_CHECKING:
    from twinlog.service.spec import ServiceSpec

_PLAIN = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SCHEMA = re.compile("(?!pg_)[a-z_][a-z0-9_]*")
LONGEST_DATABASE = 63
"""Characters of a name in Postgres."""
_TEMPLATES = ("template0", "template1")


def in_spec(spec: ServiceSpec) -> Iterator[str]:
    """What is wrong with a service's declaration."""
    if not LOG_NAME.fullmatch(spec.log):
        yield f"log {spec.log!r}: the name of a log is of a-z, 0-9 and _ and begins with a letter; rename it"
    for field in ("name", "database", "domain"):
        given = parted(str(spec.database))[0] if field == "database" else getattr(spec, field)
        if not _PLAIN.fullmatch(str(given)):
            yield f"{field} {getattr(spec, field)!r}: use letters, digits, dots, hyphens and underscores"
    if "/" in str(spec.database) and not _SCHEMA.fullmatch(parted(spec.database)[1]):
        yield (
            f"database {spec.database!r}: what follows the slash is its schema, of a-z, 0-9 and _, and begins neither "
            f"with a digit nor with pg_; rename it"
        )
    for field in ("migrations", "aggregates"):
        if not isinstance(given := getattr(spec, field), Sequence) or isinstance(given, str):
            yield f"{field} is one {type(given).__name__} and not several; is a comma missing, as in {field}=(…,)?"
            return
    for package in spec.migrations:
        if not _is_package(package):
            yield f"migrations {package!r}: there is no such package; correct its name or install it"
    if others := [each for each in spec.aggregates if not isinstance(each, Aggregate)]:
        hint = "make it one by saga_aggregate(…)" if isinstance(others[0], Saga) else "leave it out"
        yield f"among its aggregates is {shown(others[0])}; {hint}"
        return
    yield from _in_names(spec)
    yield from in_aggregates(spec.aggregates)
    for aggregate in spec.aggregates:
        yield from in_old_types(f"aggregate {aggregate.name!r}", aggregate.events, spec.schema)


def _in_names(spec: ServiceSpec) -> Iterator[str]:
    for field, name in (("log", spec.log), *(("database", part) for part in parted(spec.database))):
        if len(name) > LONGEST_DATABASE:
            yield f"{field} {name!r} has {len(name)} characters, and Postgres takes {LONGEST_DATABASE}; shorten it"
    if parted(spec.database)[0] in _TEMPLATES:
        yield f"database {spec.database!r} is what Postgres makes others from; name one of its own"
    default = spec.settings.model_fields[spec.address].default
    if isinstance(default, str) and not is_address(default):
        yield f"its address is by default {default!r}, and is to be host:port; name the field that says where it serves"


def in_specs(specs: Mapping[str, ServiceSpec]) -> Iterator[str]:
    """What services of one system have in common and may not, by their packages."""
    for field, why in _OWN.items():
        owners: dict[str, str] = {}
        for package, spec in specs.items():
            value = getattr(spec, field)
            if (owner := owners.setdefault(value, package)) != package:
                yield f"{owner} and {package} have both {field} {value!r}, and would {why}; give each its own"


_OWN = {
    "name": "share their leases and checkpoints",
    "log": "copy two logs into one stream",
    "database": "append to one log under two names",
}
"""What each service has for itself, and what would come of it otherwise."""


def in_database_name(database: str) -> Iterator[str]:
    """What is wrong with the name that a database has on its server, after TWINLOG_NAMESPACE."""
    if len(name := parted(database)[0]) > LONGEST_DATABASE:
        yield (
            f"database {name!r} has {len(name)} characters, and Postgres takes {LONGEST_DATABASE}; shorten "
            f"TWINLOG_NAMESPACE or POSTGRES_DATABASE"
        )


def _is_package(name: str) -> bool:
    try:
        return isinstance(name, str) and find_spec(name) is not None
    except (ImportError, ValueError):
        return False
