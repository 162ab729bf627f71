"""Loads named queries from .sql files; by custom, each has a line on its purpose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from twinlog.model.errors import ConfigurationError

_NAMED = re.compile(r"^-- name: (\w+)\n((?:--[^\n]*\n)*)(.*?);\s*$", re.MULTILINE | re.DOTALL)


@cache
def load_queries(package: str) -> Mapping[str, str]:
    """The named queries of ``queries.sql`` in a package, by name; they are read once. Raises ConfigurationError."""
    text = part_of(package, "queries.sql", "the queries of its views").read_text()
    return {name: query.strip() for name, _purpose, query in _NAMED.findall(text)}


def named(queries: Mapping[str, str], name: str) -> str:
    """One of the queries of a view. Raises ConfigurationError where there is none of that name."""
    if name not in queries:
        raise ConfigurationError(
            f"There is no query {name!r}; add it to the queries.sql of the views' package"
        )
    return queries[name]


def part_of(package: str, name: str, holds: str) -> Traversable:
    """A file or folder of a package. Raises ConfigurationError where it has none."""
    part = resources.files(package) / name
    if not (part.is_file() or part.is_dir()):
        raise ConfigurationError(
            f"Package {package} has no {name}, which holds {holds}; make it, empty if there are none."
        )
    return part


QUERIES = load_queries("twinlog.postgres.sql")
"""Those of the log and what lies beside it in its database."""
