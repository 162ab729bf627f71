"""Children that begin with the library imported, as forks of one process that has done so: it takes most of a start.

Tests of starts have real ones: commands in a checkout, in an installed environment, and all that other processes start.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.base_subprocess import BaseSubprocessTransport
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process, SubprocessStreamProtocol
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

from twinlog.dev import process

ROOT = Path(__file__).parents[1]
"""Where services run that may be forks; tests.preloaded_process sets another."""
_LIMIT = 2**16
"""The longest line that is read, as asyncio has it."""
LARGEST_ANSWER = 32
_BEGINNING = Lock()
_started = process.spawn
FORKS = sys.platform == "linux"


class Ran(NamedTuple):
    """What a program ended with, and said."""

    code: int | None
    out: str
    err: str


async def spawn(
    argv: Sequence[str | Path],
    *,
    output: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    **options: Any,
) -> Process:
    """As :func:`twinlog.dev.spawn`, which starts whatever cannot begin like this."""
    match argv:
        case [sys.executable, "-m", str(module), *arguments] if cwd == ROOT and FORKS:
            request = request_of(module, *map(str, arguments), env=env, cwd=cwd)
            return await _forked(request, DEVNULL, PIPE if output is None else output, STDOUT)
    return await _started(argv, output=output, env=env, cwd=cwd, **options)


async def start(
    module: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    stdin: int = DEVNULL,
    stderr: int = PIPE,
) -> Process:
    """Starts ``python -m module``, whose stdout is a pipe."""
    if FORKS:
        return await _forked(request_of(module, *arguments, env=env, cwd=cwd), stdin, PIPE, stderr)
    command = [sys.executable, "-m", module, *arguments]
    return await asyncio.create_subprocess_exec(
        *command, env=env, cwd=cwd, stdin=stdin, stdout=PIPE, stderr=stderr, start_new_session=True
    )


async def run(
    module: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    seconds: float = 240.0,
) -> Ran:
    """Runs ``python -m module`` to its end. Raises TimeoutError, and kills it then."""
    process = await start(module, *arguments, env=env, cwd=cwd)
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Ran(process.returncode, out.decode(), err.decode())


def request_of(module: str, *arguments: str, env: Mapping[str, str] | None, cwd: Path) -> str:
    whole = dict(os.environ if env is None else env)
    return json.dumps({"module": module, "arguments": arguments, "cwd": str(cwd), "env": whole})


async def _forked(request: str, stdin: int, stdout: int, stderr: int) -> Process:
    await asyncio.to_thread(_begun)  # the first time, it imports all
    loop = asyncio.get_running_loop()
    protocol = SubprocessStreamProtocol(_LIMIT, loop)
    piped = loop.create_future()
    transport = _Transport(loop, protocol, request, False, stdin, stdout, stderr, 0, piped)
    await piped
    return Process(transport, protocol, loop)


class _Child(subprocess.Popen[bytes]):
    """As much of one as its transport asks for."""

    _child_created = False  # for Popen: it is another process's child

    def __init__(self, pid: int, *pipes: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: Any = None

    def poll(self) -> int | None:
        """Its exit code, once its transport was told."""
        code: int | None = self.returncode
        return code


class _Transport(BaseSubprocessTransport):
    """Of a child of another process, which tells how it ended."""

    _loop: asyncio.AbstractEventLoop

    def _start(
        self,
        args: Any,
        shell: object,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        *_rest: object,
        **_more: object,
    ) -> None:
        writes_in, into = _ends(stdin, os.O_RDONLY)
        reads_out, out = _ends(stdout)
        reads_err, err = (None, os.dup(out)) if stderr == STDOUT else _ends(stderr)
        told, tells = os.pipe()
        try:
            pid = _fork(args, into, out, err, tells)
        finally:
            for descriptor in (into, out, err, tells):
                os.close(descriptor)
        self._proc = _Child(pid, writes_in, reads_out, reads_err)
        self._loop.add_reader(told, self._ended, told)

    def _ended(self, told: int) -> None:
        code = os.read(told, LARGEST_ANSWER)
        self._loop.remove_reader(told)
        os.close(told)
        # Where the other process dies, it is killed.
        self._process_exited(int(code) if code else -signal.SIGKILL)


def _ends(descriptor: int, child: int = os.O_WRONLY) -> tuple[IO[bytes] | None, int]:
    """What is here of a stream that a child reads or writes, where it is a pipe, and what the child has of it."""
    if descriptor == DEVNULL:
        return None, os.open(os.devnull, child)
    if descriptor != PIPE:
        return None, os.dup(descriptor)
    reads, writes = os.pipe()
    return (
        (os.fdopen(reads, "rb", 0), writes) if child == os.O_WRONLY else (os.fdopen(writes, "wb", 0), reads)
    )


def _fork(request: str, *descriptors: int) -> int:
    """The process id of a new child, which has these descriptors."""
    return forked(told_by(), request, *descriptors)


def forked(forker: socket.socket, request: str, *descriptors: int) -> int:
    """The same of what is told by this socket."""
    socket.send_fds(forker, [request.encode()], descriptors)
    if not (answer := forker.recv(LARGEST_ANSWER)):
        raise RuntimeError(
            "the process that services of tests are forked from has ended; its words are above"
        )
    return int(answer)


def _begun() -> None:
    with _BEGINNING:
        told_by()


@cache
def told_by() -> socket.socket:
    """What a process is told by that forks, from now on until this one ends."""
    return connected(_apart)


def connected(start: Callable[[int], Callable[[], object]]) -> socket.socket:
    """The same of a process that is begun with its end of the socket; what is given back waits for its end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ended = start(theirs.fileno())

    def end() -> None:
        ours.close()
        ended()

    atexit.register(end)
    if not ours.recv(LARGEST_ANSWER):
        ours.close()
        raise EOFError("it ended before it was ready; its words are above", ended())
    return ours


def _apart(theirs: int) -> Callable[[], object]:
    command = [sys.executable, "-m", "tests.preloaded_process"]
    return subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=DEVNULL, start_new_session=True).wait
