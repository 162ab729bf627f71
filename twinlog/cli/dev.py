"""``twinlog dev``: the services of a project on embedded servers, started again whenever a file changes."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from twinlog.cli import again, proto
from twinlog.cli.console import ADDRESS as CONSOLE_ADDRESS
from twinlog.cli.console import missing as missing_of_console
from twinlog.cli.exits import OK, Failed, Usage
from twinlog.cli.project import Project, servers_told
from twinlog.model.errors import ConfigurationError
from twinlog.service.spec import ServiceSpec
from twinlog.service.spec_mistakes import in_specs

_WATCHED = (".py", ".sql", ".proto")
_CHANGED = -1
"""No exit code: a file has changed."""
_NO_CONSOLE = "install twinlog[console] for the console"
_EXTRA = f"{sys.executable} -m pip install 'twinlog[embedded]'"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs recorded")
    parser.add_argument("--no-restart", action="store_true", help="do not start again when a file changes")
    parser.add_argument(
        "--json",
        action="store_true",
        help="once all is up, one JSON value, for programs; the rest goes to stderr",
    )


def run(options: argparse.Namespace) -> int:
    project = Project.required()
    if not project.services:
        raise Usage("[tool.twinlog.services] in pyproject.toml names no service")
    if missing := [
        each for each in ("asyncpg", "psutil", "watchfiles") if not importlib.util.find_spec(each)
    ]:
        raise Usage(f"not installed: {', '.join(missing)}; {_EXTRA}")
    told = sys.stdout
    with redirect_stdout(sys.stderr) if options.json else nullcontext():
        options.up = lambda system: print(json.dumps(_as_dict(system)), file=told, flush=True)
        _generate(project)
        try:
            services = specs(project)
        except Usage as error:
            if options.no_restart or options.json:
                raise
            _say(f"{error}\nNothing runs like this; it starts when a file changes.")
            return _once_changed(project)
        return asyncio.run(_until_told(_run(options, project, services)))


def _once_changed(project: Project) -> int:
    """Begins anew once a file changes, in a process that has imported nothing yet; else an exit code."""
    signals = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    code = asyncio.run(_until_told(_changed(project)))
    if code == _CHANGED:
        for each, handler in signals.items():
            signal.signal(each, handler)  # one that is ignored is so in the next program, too
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return code


async def _until_told(command: Coroutine[Any, Any, int]) -> int:
    from twinlog.dev import Misconfigured, StartFailed, Told, until_told

    try:
        return await until_told(command)
    except Told as told:
        return OK if told.signum == 2 else 128 + told.signum
    except Misconfigured as error:
        raise Usage(str(error)) from error
    except StartFailed as error:
        raise Failed(str(error)) from error


async def _run(options: argparse.Namespace, project: Project, services: Mapping[str, ServiceSpec]) -> int:
    from twinlog import dev

    data = project.root / ".twinlog"
    with dev.locked(project.root, data / "dev.pid"):
        data.mkdir(exist_ok=True)
        (data / "dev.pid").write_text(f"pid {os.getpid()} (twinlog dev)\n")
        _say("Starting Postgres, NATS and the services …")
        async with dev.running(
            services,
            _say,
            root=project.root,
            data=data / "run",
            addresses=project.services,
            fresh=options.fresh,
            restarts=not options.no_restart,
            console=_console(dev),
            metrics=dev.FIRST_METRICS,
        ) as system:
            with servers_told(project, system.postgres_url, system.nats_url):
                await system.while_up(_stay_up(options, project, system))
    return OK


def _as_dict(system: Any) -> Mapping[str, Any]:
    """Where everything is, as host:port; a server of your own is null."""
    servers = {"postgres": system.postgres, "nats": system.nats}
    return {
        "services": dict(system.addresses),
        "metrics": dict(system.metrics),
        "console": system.console or None,
        **{name: server and f"127.0.0.1:{server.port}" for name, server in servers.items()},
    }


def _console(dev: Any) -> Any:
    """The console where it is installed: at its own address unless that is taken, and none has been set."""
    if missing_of_console():
        return None
    host, _, port = CONSOLE_ADDRESS.rpartition(":")
    return dev.Console(CONSOLE_ADDRESS if dev.port_is_free(host, int(port)) else None)


async def _stay_up(options: argparse.Namespace, project: Project, system: Any) -> None:
    from twinlog.cli.reflected import commands

    ended = system.supervisor.ended
    _say(f"\n{'Up, but for what has ended' if ended else 'Up'}. Ctrl-C stops everything.\n")
    _say(f"  {'In the browser':<24} {system.console or _NO_CONSOLE}\n")
    for service, address in system.addresses.items():
        _say(f"  {service:<24} {address}{'  (ended: its last words are above)' if service in ended else ''}")
    for service, address in system.metrics.items():
        _say(f"  {'metrics of ' + service.removeprefix('twinlog.'):<24} http://{address}/metrics")
    for name, server in (("Postgres", system.postgres), ("NATS", system.nats)):
        _say(f"  {name:<24} {_shown(project, server) if server else 'yours'}")
    _say("\nIn another terminal, with texts and ids of your own:\n")
    for service, address in system.addresses.items():
        for command in await asyncio.to_thread(commands, address) if service not in ended else ():
            _say(f"  {command}")
    if options.json:
        options.up(system)
    at = "".join(f" --at {each}" for each in system.addresses.values())
    at = "" if [*system.addresses.values()] == [*project.services.values()] else at
    _say(f"  {again.command()} status --watch{at}")
    _say(f"  {again.command()} dead-letters list{at}\n")
    if options.no_restart:
        await asyncio.get_running_loop().create_future()
    await _restart_on_change(project, system)


async def _changed(project: Project) -> int:
    async for _ in _changes(project):
        break
    return _CHANGED


async def _changes(project: Project) -> AsyncIterator[Sequence[Path]]:
    """The sources that have changed, each time that some have."""
    from watchfiles import Change, DefaultFilter, awatch

    class Sources(DefaultFilter):
        ignore_dirs = (*DefaultFilter.ignore_dirs, ".twinlog", "dist", "build")

        def __call__(self, change: Change, path: str) -> bool:
            return path.endswith(_WATCHED) and super().__call__(change, path)

    async for changes in awatch(project.root, watch_filter=Sources()):
        yield sorted({Path(path) for _, path in changes})


async def _restart_on_change(project: Project, system: Any) -> None:
    async for paths in _changes(project):
        if any(path.suffix == ".proto" for path in paths):
            try:
                await asyncio.to_thread(_generate, project)
            except Failed as error:
                _say(f"{error}\nThe services go on as they are.")
                continue
        elif all(_is_generated(path) for path in paths):
            continue
        names = ", ".join(str(path.relative_to(project.root)) for path in paths[:3])
        _say(f"{names} changed: the services start again")
        system.supervisor.restart()


def specs(project: Project) -> Mapping[str, ServiceSpec]:
    """What each service of a project is, by its package. Raises Usage."""
    sys.path.insert(0, str(project.root))
    found = {package: _spec(project, package) for package in project.services}
    if wrong := list(in_specs(found)):
        raise Usage("; ".join(wrong))
    return found


def mains(project: Project, services: Mapping[str, ServiceSpec]) -> Mapping[str, Any]:
    """The ``main`` of each service's program, by its package. Raises Usage."""
    from twinlog.service.process import main_of

    found: dict[str, Any] = {}
    for package, spec in services.items():
        module = importlib.import_module(f"{package}.app")
        if not hasattr(module, "main") and not hasattr(module, "wire"):
            what = "has neither wire(service, views) nor main(shutdown), which say how the service is wired"
            raise Usage(f"{package}: app.py {what}")
        found[package] = module.main if hasattr(module, "main") else main_of(spec, module.wire)
    return found


def _spec(project: Project, package: str) -> ServiceSpec:
    try:
        spec = importlib.import_module(f"{package}.app").SPEC
    except ConfigurationError as error:
        raise Usage(f"{package}: {error}") from error
    except Exception as error:  # whatever the project's own code raises
        raise Usage(
            f"{package}: its ServiceSpec is to be SPEC in {package}/app.py, which cannot be imported: "
            f"{project.told(error)}"
        ) from error
    if not isinstance(spec, ServiceSpec):
        raise Usage(f"{package}: SPEC in {package}/app.py is no ServiceSpec")
    return spec


def _generate(project: Project) -> None:
    """Generates the code of the protos, where there are any and the generator is installed."""
    if proto.can_generate() and any(project.protos.rglob("*.proto")):
        proto.generate(project, project.root)


def _is_generated(path: Path) -> bool:
    return path.name.endswith(("_pb2.py", "_pb2_grpc.py"))


def _shown(project: Project, server: Any) -> str:
    """Where a server is, and where its password is kept."""
    folder = server.folder / "password"
    kept = folder.relative_to(project.root) if folder.is_relative_to(project.root) else folder
    return f"127.0.0.1:{server.port}, its password is in {kept}"


def _say(line: str) -> None:
    print(line, flush=True)
