"""A project's file: pyproject.toml, where the table [tool.twinlog] names what the command needs to know.

    [tool.twinlog]
    protos = "protos"

    [tool.twinlog.services]
    orders_svc = "127.0.0.1:50051"

Each service is a package that runs as ``python -m`` and has its ServiceSpec as ``SPEC`` in its module ``app``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from twinlog.cli.exits import Usage

FILE = "pyproject.toml"
_HELP = 'add it: [tool.twinlog.services], then a line for each, such as orders_svc = "127.0.0.1:50051"'


@dataclass(frozen=True)
class Project:
    """What pyproject.toml says to Twinlog."""

    root: Path
    services: Mapping[str, str] = field(default_factory=dict)
    """Where each service listens, as host:port, by its package."""
    protos: Path = Path("protos")
    """The folder of its protos, and what is generated goes beside it."""

    @classmethod
    def here(cls, start: Path | None = None) -> Self | None:
        """The project of a folder, or of one above it; None where there is none. Raises Usage."""
        folder = (start or Path.cwd()).resolve()
        for root in (folder, *folder.parents):
            if (root / FILE).is_file() and (table := _table(root / FILE)) is not None:
                return cls(root, _services(root, table), root / _text(root, table, "protos", "protos"))
        return None

    @classmethod
    def required(cls) -> Self:
        """The project of this folder. Raises Usage."""
        found = cls.here()
        if found is None:
            raise Usage(
                "no project here: pyproject.toml has no table [tool.twinlog]; go to a project's folder, "
                "or make a project: twinlog new NAME"
            )
        return found


def _table(file: Path) -> dict[str, Any] | None:
    try:
        table = tomllib.loads(file.read_text()).get("tool", {}).get("twinlog")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Usage(f"{file}: it is no TOML: {error}") from error
    if table is not None and not isinstance(table, dict):
        raise Usage(f"{file}: [tool.twinlog] must be a table")
    return table


def _services(root: Path, table: Mapping[str, Any]) -> Mapping[str, str]:
    services = table.get("services", {})
    if not isinstance(services, dict) or not all(isinstance(value, str) for value in services.values()):
        raise Usage(f"{root / FILE}: [tool.twinlog.services] is no table of addresses; {_HELP}")
    return services


def _text(root: Path, table: Mapping[str, Any], name: str, default: str) -> str:
    value = table.get(name, default)
    if not isinstance(value, str):
        raise Usage(f"{root / FILE}: {name} in [tool.twinlog] must be a text, such as {name} = {default!r}")
    return value
