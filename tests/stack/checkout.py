"""`python -m stack` as a user runs it: in a checkout, and on ports, of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from stack.topology import NAMES, ROOT, SERVICES
from tests import preloaded, servers
from tests.waiting import until
from twinlog.dev import free_port

PACKAGES = ("twinlog", "shop", "stack", *NAMES)
_PATIENCE_SECONDS = 280.0
"""A start takes three seconds, and many times as long beside other work; a test has 300 seconds."""
ADDRESSES = [service.address_setting for service in SERVICES]


class Checkout:
    """A copy of the code, and the commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / ".data"
        self.started: list[subprocess.Popen[bytes]] = []
        self.addresses = {setting: f"127.0.0.1:{free_port()}" for setting in ADDRESSES}
        self.console = f"127.0.0.1:{free_port()}"
        for package in PACKAGES:
            # With its bytecode, or each of the processes that start at once would compile all of it.
            shutil.copytree(ROOT / package, folder / package)

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """`python -m stack` with its output in ``output``; ``settings`` are environment variables."""
        return self._start("stack", *arguments, **settings)

    def start_cheaply(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """The same, but services are forks of that process: each imports the library no more."""
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return self._start("tests.preloaded_process", "stack", *arguments, **settings, PYTHONPATH=paths)

    async def refused(self, *arguments: str, **settings: str) -> str:
        """What a fork of `python -m stack` says that ends at once, with the code of bad usage."""
        ran = await preloaded.run("stack", *arguments, env=self._env(settings), cwd=self.folder)
        assert ran.code == 2, ran
        return ran.out + ran.err

    def _env(self, settings: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
        own = {"CONSOLE_ADDRESS": self.console, "METRICS_ADDRESS": "127.0.0.1:0", **self.addresses}
        return {**inherited, **own, **settings}

    def _start(self, module: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env=self._env(settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    @property
    def output(self) -> Path:
        """What the command started last printed."""
        return self.folder / "output"

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")  # its last character may be half there

    async def says(self, *words: str, times: int = 1) -> None:
        """Returns when the command started last has printed each of these; fails when it ends without."""
        await self._until(lambda: all(self.said.count(each) >= times for each in words))

    async def up(self) -> dict[str, Any]:
        """stack.json, as soon as it is that of the command started last; fails when that ends before."""
        await self._until(lambda: self._stack().get("pid") == self.started[-1].pid)
        return self._stack()

    async def ended(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code."""
        await self._until(lambda: process.poll() is not None)
        return process.returncode

    async def _until(self, true: Callable[[], bool]) -> None:
        process = self.started[-1]
        try:
            await until(lambda: true() or process.poll() is not None, seconds=_PATIENCE_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {process.args!r} said\n{self.said}") from error
        assert true(), f"{process.args!r} ended with {process.returncode}, and said\n{self.said}"

    def processes(self) -> Sequence[int]:
        """The ids of the processes that run in the checkout."""
        folder = str(self.folder)
        return [
            each.pid for each in psutil.process_iter(["cwd"]) if (each.info["cwd"] or "").startswith(folder)
        ]

    def _stack(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.data / "stack.json").read_text()))
        except FileNotFoundError:
            return {}


@contextmanager
def checkout() -> Iterator[Checkout]:
    """A checkout for the block; nothing runs in it afterwards."""
    with servers.folder() as folder:
        there = Checkout(folder)
        try:
            yield there
        finally:
            for process in there.started:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
            for pid in there.processes():
                os.kill(pid, signal.SIGKILL)
