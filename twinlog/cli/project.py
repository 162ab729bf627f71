"""A project's file: pyproject.toml, where the table [tool.twinlog] names what the command needs to know.

    [tool.twinlog]
    protos = "protos"

    [tool.twinlog.services]
    orders_svc = "127.0.0.1:50051"

Each service is a package that runs as ``python -m`` and has its ServiceSpec as ``SPEC`` in its module ``app``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from twinlog.cli.exits import Usage
from twinlog.postgres.urls import check_url

FILE = "pyproject.toml"
_SERVERS = Path(".twinlog") / "servers.json"
_URLS = ("POSTGRES_URL", "NATS_URL")
_HELP = 'add it: [tool.twinlog.services], then a line for each, such as orders_svc = "127.0.0.1:50051"'


@dataclass(frozen=True)
class Project:
    """What pyproject.toml says to Twinlog."""

    root: Path
    services: Mapping[str, str] = field(default_factory=dict)
    """Where each service listens, as host:port, by its package."""
    protos: Path = Path("protos")
    """The folder of its protos, and what is generated goes beside it."""
    audit: str = ""
    """What it adds to an audit, as package.module:name; empty: nothing."""
    simulate: str = ""
    """Its simulation, as package.module:name; empty: it has none."""

    @classmethod
    def here(cls, start: Path | None = None) -> Self | None:
        """The project of a folder, or of one above it; None where there is none. Raises Usage."""
        folder = (start or Path.cwd()).resolve()
        for root in (folder, *folder.parents):
            if (root / FILE).is_file() and (table := _table(root / FILE)) is not None:
                return cls(
                    root,
                    _services(root, table),
                    root / _text(root, table, "protos", "protos"),
                    _text(root, table, "audit"),
                    _text(root, table, "simulate"),
                )
        return None

    @classmethod
    def required(cls) -> Self:
        """The project of this folder. Raises Usage."""
        found = cls.here()
        if found is None:
            raise Usage(
                "no project here: neither this folder nor one above it has a pyproject.toml with a table "
                "[tool.twinlog]; go to a project's folder, or make a project: twinlog new NAME"
            )
        return found

    def object(self, name: str, setting: str) -> Any:
        """What is called ``package.module:name``, as ``setting`` of [tool.twinlog] says. Raises Usage."""
        module, _, attribute = name.partition(":")
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever the project's own code raises
            raise Usage(
                f"{self.root / FILE}: {setting} in [tool.twinlog] is to be package.module:name, and {name} cannot be "
                f"imported: {self.told(error)}"
            ) from error

    def told(self, error: Exception) -> str:
        """Why code of the project cannot be imported, and what to do where its protos have not been generated."""
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name:
            missing = self.protos.joinpath(*error.name.removesuffix("_grpc").removesuffix("_pb2").split("."))
            if missing.is_dir() or missing.with_suffix(".proto").is_file():
                return f"{said}; generate the code of the protos: twinlog proto"
        return said


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


def _text(root: Path, table: Mapping[str, Any], name: str, default: str = "") -> str:
    value = table.get(name, default)
    if not isinstance(value, str):
        such_as = default or "package.module:name"
        raise Usage(f'{root / FILE}: {name} in [tool.twinlog] must be a text, such as {name} = "{such_as}"')
    return value


@contextmanager
def servers_told(project: Project, postgres_url: str, nats_url: str) -> Iterator[None]:
    """Tells other commands, during the block, on which servers the project runs; only this user can read it."""
    path = project.root / _SERVERS
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(0o600)
    new.write_text(json.dumps({"POSTGRES_URL": postgres_url, "NATS_URL": nats_url}))
    new.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def servers(project: Project) -> Mapping[str, str]:
    """POSTGRES_URL and NATS_URL: those of the environment, else those of a running ``twinlog dev``. Raises Usage."""
    found = {name: os.environ[name] for name in _URLS if os.environ.get(name)} or servers_of_dev(project)
    if missing := [name for name in _URLS if name not in found]:
        raise Usage(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, and no `twinlog dev` runs here; "
            "set both as for the services, or start it in another terminal"
        )
    return found


def servers_of_dev(project: Project | None) -> Mapping[str, str]:
    """POSTGRES_URL and NATS_URL of a ``twinlog dev`` that runs there; none where the environment names either."""
    if not project or any(os.environ.get(name) for name in _URLS):
        return {}
    file = project.root / _SERVERS
    return dict(json.loads(file.read_text())) if file.is_file() else {}


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for a block: settings are read from there."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def fill_in_servers(options: argparse.Namespace) -> None:
    """Has a command that takes servers, and was given none, take those of a running ``twinlog dev``.

    Raises Usage where there are none, or where a URL of Postgres is wrong.
    """
    taken = [name for name in (each.lower() for each in _URLS) if name in options]
    if taken and not any(vars(options).get(name) for name in (*taken, "files")):
        found = servers_of_dev(Project.here())
        for name in taken:
            setattr(options, name, found.get(name.upper()))
    if url := vars(options).get("postgres_url"):
        check_postgres_url(url)


def keys_of_persons(postgres_url: str) -> tuple[str, str]:
    """The server and the database of the keys of persons, by the settings that services have."""
    from twinlog.log.installation import named

    name = os.environ.get("PERSONAL_KEYS_DATABASE") or "twinlog_keys"
    server = os.environ.get("PERSONAL_KEYS_URL") or postgres_url
    return server, named(os.environ.get("TWINLOG_NAMESPACE", ""), name)


def check_postgres_url(url: str, setting: str = "POSTGRES_URL") -> None:
    """Raises Usage where it cannot be one, as a service refuses it; that of NATS is refused where it connects."""
    try:
        check_url(url)
    except ValueError as error:
        raise Usage(f"{setting} is wrong: {error}") from None
