"""Loads named queries from .sql files; by custom, each has a line on its purpose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

_NAMED = re.compile(r"^-- name: (\w+)\n((?:--[^\n]*\n)*)(.*?);\s*$", re.MULTILINE | re.DOTALL)


@cache
def load_queries(package: str) -> Mapping[str, str]:
    """The named queries of ``queries.sql`` in a package, by name; they are read once."""
    text = (resources.files(package) / "queries.sql").read_text()
    return {name: query.strip() for name, _purpose, query in _NAMED.findall(text)}
