"""Child processes that do not outlive this one."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

import psutil

_PORTS = range(20_000, 32_000)
"""Below the range for outgoing connections, which could take a port that was promised to a server."""
_MOST_PROMISED = 64
_promised: deque[int] = deque()
"""The file descriptors of the sockets that hold them."""
_LAUNCHER = Path(__file__).with_name("launcher.py")

_END_SECONDS = 10.0
_children: set[asyncio.subprocess.Process] = set()


class StartFailed(RuntimeError):
    """A server or a service did not start, or went down; the message ends with its last output."""


class Misconfigured(StartFailed):
    """Nothing can run with this setup; the message is one line that says what is needed."""


class Refused(Misconfigured):
    """A service refuses its configuration or the data that it finds; the message is the service's."""


async def spawn(
    argv: Sequence[str | Path],
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    output: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: int | None = None,
    on_parents_death: signal.Signals = signal.SIGTERM,
) -> asyncio.subprocess.Process:
    """Starts a child in a new session, which Ctrl-C in the terminal does not reach.

    On Linux the child gets ``on_parents_death`` when this process is killed. ``stdin`` and ``output``, for its stdout
    and stderr, are file descriptors; None for ``output`` is a pipe. ``user`` is the uid to run as.
    """
    _children.difference_update([child for child in _children if child.returncode is not None])
    launcher = [
        sys.executable,
        "-I",
        "-S",
        _LAUNCHER,
        os.getpid(),
        int(on_parents_death),
        -1 if user is None else user,
    ]
    child = await asyncio.create_subprocess_exec(
        *map(str, (*launcher, *argv)),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE if output is None else output,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        start_new_session=True,
    )
    _children.add(child)
    return child


def kill_all() -> None:
    """Sends SIGKILL to every child that still runs, which ends every wait for one."""
    for child in _children:
        send(child, signal.SIGKILL)


async def stop(
    process: asyncio.subprocess.Process, signum: signal.Signals = signal.SIGTERM, seconds: float = 10.0
) -> None:
    """Sends ``signum``, then SIGKILL if the child has not ended within ``seconds``; returns when it has ended."""
    send(process, signal.SIGCONT)
    send(process, signum)
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        send(process, signal.SIGKILL)
        await process.wait()


def send(process: asyncio.subprocess.Process, signum: signal.Signals) -> None:
    """Sends a signal to a child, unless it has ended.

    Not by the child's own method, which looks for its exit code before: asyncio's look then finds none, and says 255.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)


def end_leftover(pid_file: Path, sign: str, signum: signal.Signals) -> None:
    """Ends a process of a killed run, if it still runs, within about 20 s.

    The first line of ``pid_file`` is its id, and its command line has to contain ``sign``.
    """
    try:
        # A Postgres of one user, as at a first start, writes its id with a minus.
        pid = abs(int(pid_file.read_text().split("\n", 1)[0]))
    except (OSError, ValueError):
        return
    for each in (signum, signal.SIGKILL):
        deadline = time.monotonic() + _END_SECONDS
        while _runs(pid, sign):
            with suppress(ProcessLookupError):
                os.kill(pid, each)
                os.kill(pid, signal.SIGCONT)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def _runs(pid: int, sign: str) -> bool:
    """Whether a process runs that has ``sign``, words separated by spaces, in its command line."""
    try:
        return sign in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there; True also where that cannot be found out."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


def free_port() -> int:
    """A port of the loopback interface that is free now, outside the range of outgoing connections.

    It stays promised until this process has asked for 64 others: nobody else who asks is given it, in any process,
    before its server is up.
    """
    for port in SystemRandom().sample(_PORTS, 200):
        if _promise(port):
            return port
    raise StartFailed(f"hardly a port from {_PORTS[0]} to {_PORTS[-1]} is free")


def _promise(port: int) -> bool:
    """Binds the port without listening, unless somebody has it; servers, which share addresses, still may listen."""
    with socket.socket() as promise:
        try:
            promise.bind(("127.0.0.1", port))
        except OSError:
            return False
        if sys.platform == "linux":  # elsewhere no server could listen beside it
            promise.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if len(_promised) == _MOST_PROMISED:
                os.close(_promised.popleft())
            _promised.append(promise.detach())
    return True


def write_private(path: Path, text: str, user: int | None = None) -> None:
    """Writes a file that only this user may read, or only ``user``; it is there whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(0o600)
    new.write_text(text)
    if user is not None:
        os.chown(new, user, -1)
    new.replace(path)


def password_in(folder: Path) -> str:
    """The password that is kept in a server's folder, readable by this user only; empty if there is none yet."""
    kept = folder / "password"
    return kept.read_text().strip() if kept.exists() else ""


def tail(path: Path, lines: int = 15, *, since: int = 0) -> str:
    """The end of a log file; nothing of its first ``since`` bytes."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(since)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
