"""Starts services, restarts them with backoff, stops them, and prefixes their output."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from twinlog.dev.process import Refused, StartFailed, end_leftover, send, spawn, stop, tail

METRICS = "METRICS_ADDRESS"
"""The setting of where a process tells its metrics."""
_FIRST_RESTART_SECONDS, _LAST_RESTART_SECONDS = 0.2, 5.0
_LAST_UNCHANGED_SECONDS = 60.0
"""Where a change of a file starts it again, too."""
_HELD_SECONDS = 5.0
"""The output of a service that has crashed before is held back for so long: the same crash is told once."""
_STABLE_SECONDS = 10.0
"""A service that ran for longer than this is restarted as at first."""
_MISCONFIGURED = 2
_READY_SECONDS = 180.0
"""A start takes three seconds, and many times as long beside other work, or while everything is compiled first."""
_STOP_SECONDS = 8.0
_PAUSE_SECONDS = 10.0
_LONGEST_LINE = 300
_ASKED_SOON_AGAIN = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
"""Options of a channel to a service that starts: by default gRPC tries again after one second, then after two."""


@dataclass(frozen=True)
class Program:
    """A program to run."""

    module: str
    """Run as ``python -m module``."""
    setting: str
    """The environment variable for its address."""
    address: str
    color: int = 0
    """ANSI color of its prefix; 0 for none."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its own."""
    http: bool = False
    """Whether it serves HTTP, and not gRPC: then it serves once it answers /healthz."""


class Supervisor:
    """Runs services, one process each. Use as an async context manager."""

    def __init__(
        self,
        services: Sequence[Program],
        env: Mapping[str, str],
        say: Callable[[str], None],
        *,
        root: Path,
        folder: Path,
        quiet: bool = False,
        restarts: bool = False,
    ) -> None:
        """``env`` goes to every service, and each line of their output to ``say``, prefixed. They run in ``root``.

        ``folder`` holds their process ids and, if they are ``quiet``, their output as log/<service>.log. ``restarts``:
        one that refuses to run waits for :meth:`restart` instead of failing, one that crashes in the same way again
        says so once, and those that ended hold up no others.
        """
        self._services = {service.module: service for service in services}
        addresses = {service.setting: service.address for service in services}
        # One address cannot be that of several processes: each has its own in Program.env, or none.
        self._env = {**os.environ, METRICS: "", **env, **addresses}
        self._say = say
        self._width = max(len(service.module) for service in services)
        self._root = root
        self._folder = folder
        self._logs = folder / "log" if quiet else None
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._restarts = restarts
        self._again = {module: asyncio.Event() for module in self._services}
        """Set: the service is to be started again at once."""
        self._ended = {module: asyncio.Event() for module in self._services}
        """Set: it has ended by itself, and is not started again yet."""
        self._one_ended = asyncio.Event()
        """Set: one of them has ended by itself before."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with Refused where a service refuses its configuration or its data, and with what ``say`` raises."""

    async def __aenter__(self) -> Self:
        for service in self._services.values():
            watcher = asyncio.create_task(self._watch(service))
            watcher.add_done_callback(self._unwatched)
            self._watchers.append(watcher)
        try:
            await self.ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await asyncio.gather(*(stop(process, seconds=_STOP_SECONDS) for process in self._processes.values()))
        for module in self._processes:
            _pid_file(self._folder, module).unlink(missing_ok=True)
        self.failed.cancel()

    async def ready(self, *modules: str) -> None:
        """Returns when these services, or all, are SERVING. Raises StartFailed.

        With ``restarts``, a service that has ended is no longer waited for, and those that need it only have to listen.
        """
        wanted = [self._services[module] for module in modules] or list(self._services.values())
        serving = asyncio.ensure_future(_all(map(self._until_settled, wanted)))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await asyncio.wait([serving, self.failed], return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                self.failed.result()
            await serving
        except TimeoutError as error:
            late = f"the services were not ready in {_READY_SECONDS:g} s"
            raise StartFailed("\n".join([late, *self.last_words()])) from error
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    async def _until_settled(self, program: Program) -> None:
        until = until_answering if program.http else until_serving
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(until(program.address))]
        if self._restarts:
            waits.append(asyncio.ensure_future(self._ended[program.module].wait()))
            waits.append(asyncio.ensure_future(self._until_listening_alone(program)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in waits:
                if each.done():
                    each.result()
        finally:
            for each in waits:
                each.cancel()

    async def _until_listening_alone(self, program: Program) -> None:
        """Returns when one of the services has ended, and this one listens: what it waits for may be that one."""
        await self._one_ended.wait()
        await until_listening(program.address)

    @property
    def ended(self) -> Sequence[str]:
        """The services that have ended by themselves, and do not run."""
        return [module for module, ended in self._ended.items() if ended.is_set()]

    def last_words(self) -> list[str]:
        """The last three lines of each quiet service, cut to 300 characters."""
        return [
            self._line(service, line[:_LONGEST_LINE])
            for service in self._services.values()
            if self._logs
            for line in tail(self._log(service), 3).splitlines()
        ]

    async def pause(self, module: str) -> None:
        """Stops a service, and returns when it has stopped; :meth:`resume` continues it."""
        process = psutil.Process(self.pid(module))
        self.signal(module, signal.SIGSTOP)
        async with asyncio.timeout(_PAUSE_SECONDS):
            while process.status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.001)

    def resume(self, module: str) -> None:
        """Continues a paused service."""
        self.signal(module, signal.SIGCONT)

    def restart(self, *modules: str) -> None:
        """Ends services, or all, in order, and starts them again at once: their code has changed."""
        for module in modules or self._services:
            self._again[module].set()
            self.signal(module, signal.SIGTERM)

    def signal(self, module: str, signum: signal.Signals) -> None:
        """Sends a signal to a service. If that ends it, it is restarted."""
        send(self._processes[module], signum)

    def pid(self, module: str) -> int:
        """The process id of a service."""
        return self._processes[module].pid

    async def _watch(self, service: Program) -> None:
        delay = _FIRST_RESTART_SECONDS
        longest = _LAST_UNCHANGED_SECONDS if self._restarts else _LAST_RESTART_SECONDS
        loop = asyncio.get_running_loop()
        known: str | None = None
        while True:
            started = loop.time()
            process = await self._start(service)
            self._ended[service.module].clear()
            last = await self._echo(service, process, known)
            code = await process.wait()
            again = self._again[service.module]
            if again.is_set():
                again.clear()
                delay, known = _FIRST_RESTART_SECONDS, None
                continue
            self._ended[service.module].set()
            self._one_ended.set()
            if code == _MISCONFIGURED and self._restarts:
                self._say(self._line(service, "does not run like this; it starts again when a file changes"))
                await again.wait()
                again.clear()
                delay, known = _FIRST_RESTART_SECONDS, None
                continue
            if code == _MISCONFIGURED and not self.failed.done():
                self.failed.set_exception(Refused(last))
                return
            stable = loop.time() - started > _STABLE_SECONDS
            delay = _FIRST_RESTART_SECONDS if stable else min(delay * 2, longest)
            if not self._restarts:
                self._say(self._line(service, f"ended with {code}; starts again in {delay:.1f} s"))
            elif stable or last != known:
                when = "when a file changes, and now and then by itself"
                self._say(self._line(service, f"ended with {code}; it starts again {when}"))
            known = last if self._restarts else None
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await again.wait()
                delay, known = _FIRST_RESTART_SECONDS, None
            again.clear()

    def _unwatched(self, watcher: asyncio.Task[None]) -> None:
        """A service whose output nobody takes stands still as soon as the pipe is full."""
        if not watcher.cancelled() and (error := watcher.exception()) and not self.failed.done():
            self.failed.set_exception(error)

    async def _start(self, service: Program) -> asyncio.subprocess.Process:
        """Starts a process that is killed when this one is: services survive that, and a paused one gets no other."""
        (self._logs or self._folder).mkdir(parents=True, exist_ok=True)
        with self._log(service).open("ab") if self._logs else nullcontext() as log:
            process = await spawn(
                _command(service.module),
                output=log.fileno() if log else None,
                env={**self._env, **service.env},
                cwd=self._root,
                on_parents_death=signal.SIGKILL,
            )
        self._processes[service.module] = process
        _pid_file(self._folder, service.module).write_text(f"{process.pid}\n")
        return process

    async def _echo(self, service: Program, process: asyncio.subprocess.Process, known: str | None) -> str:
        """Passes on each line of the service, prefixed; returns the last.

        ``known``: what it ended with before; where it soon does again, nothing is passed on.
        """
        if process.stdout is None:
            await process.wait()
            return tail(self._log(service), 1)
        last, held = "", _Held(lambda line: self._say(self._line(service, line)), known is not None)
        try:
            while True:
                try:
                    line = await process.stdout.readline()
                except ValueError:  # a line beyond the buffer: its beginning is lost, the rest follows
                    continue
                if not line:
                    if last != known:
                        held.let_go()
                    return last
                last = line.decode(errors="replace").rstrip()
                held.say(last)
        finally:
            held.timer.cancel()

    def _log(self, service: Program) -> Path:
        assert self._logs is not None
        return self._logs / f"{service.module}.log"

    def _line(self, service: Program, text: str) -> str:
        prefix = f"{service.module:>{self._width}} │"
        if service.color and sys.stdout.isatty():
            prefix = f"\x1b[{service.color}m{prefix}\x1b[0m"
        return f"{prefix} {text}"


class _Held:
    """Lines that are passed on once it is known that they are news."""

    def __init__(self, say: Callable[[str], None], held: bool) -> None:
        self._say = say
        self._lines: list[str] | None = [] if held else None
        self.timer = asyncio.get_running_loop().call_later(_HELD_SECONDS, self.let_go)

    def say(self, line: str) -> None:
        if self._lines is None:
            self._say(line)
        else:
            self._lines.append(line)

    def let_go(self) -> None:
        lines, self._lines = self._lines or [], None
        for line in lines:
            self._say(line)


def end_leftover_service(folder: Path, module: str) -> None:
    """Ends the service that a killed run left behind, if it still runs; its process id is in ``folder``."""
    pid_file = _pid_file(folder, module)
    end_leftover(pid_file, " ".join(_command(module)), signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def _pid_file(folder: Path, module: str) -> Path:
    return folder / f"{module}.pid"


def _command(module: str) -> list[str]:
    return [sys.executable, "-m", module]


async def _all(waits: Iterable[Awaitable[None]]) -> None:
    """As a coroutine: asyncio complains of a gathering that is cancelled and not asked for its result."""
    await asyncio.gather(*waits)


async def until_answering(address: str) -> None:
    """Returns when the HTTP server there answers /healthz with 200; bound it with a timeout."""
    host, _, port = address.rpartition(":")
    request = f"GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
    while True:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                try:
                    writer.write(request)
                    if b" 200 " in await reader.readline():
                        return
                finally:
                    writer.close()
        await asyncio.sleep(0.05)


async def until_listening(address: str) -> None:
    """Returns when something listens there; bound it with a timeout."""
    host, _, port = address.rpartition(":")
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
            return
        await asyncio.sleep(0.05)


async def until_serving(address: str) -> None:
    """Returns when the gRPC server there is SERVING; bound it with a timeout."""
    async with grpc.aio.insecure_channel(address, _ASKED_SOON_AGAIN) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while True:
            with suppress(grpc.aio.AioRpcError):
                # Until it listens gRPC itself tries again, which costs less than calls that fail.
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)
