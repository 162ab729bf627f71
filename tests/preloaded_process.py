"""The process that :mod:`tests.preloaded` tells what to fork. A fork goes on as ``python -m`` a module would.

With a module as an argument, and arguments for it: that module, in this very process, whose services are such forks.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_PRELOADED = (
    "twinlog.service.process",
    "twinlog.rpc",
    "twinlog.consume",
    "twinlog.audit",
    "twinlog.console.process",
)
"""The library, and no domain: which messages a process knows is its own affair, and decides what it does."""
_PR_SET_PDEATHSIG = 1
_LARGEST_REQUEST = 1 << 20


def main(asked: socket.socket) -> None:
    """Forks as it is told until the socket is closed; in each fork, runs a module."""
    _preload()
    asked.send(b"ready")
    _fork_as_told(asked)


def with_forks(module: str, arguments: Sequence[str]) -> None:
    """Runs a module whose services, if it is a supervisor, are forks of what this process is before it begins."""
    _preload()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    if not os.fork():
        ours.close()
        _end_with(parent)
        os.chdir("/")  # it ends a moment after its parent, in whose folder nothing is to be left running
        _fork_as_told(theirs)
        return
    theirs.close()
    gc.enable()
    from tests import preloaded
    from twinlog.dev import supervisor

    vars(preloaded).update(told_by=lambda: ours, ROOT=Path.cwd())
    vars(supervisor)["spawn"] = preloaded.spawn
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _preload() -> None:
    gc.disable()  # what is imported stays, and is not copied because somebody looks at it
    for module in _PRELOADED:
        importlib.import_module(module)
    assert not any(name.split(".")[0] == "shop" for name in sys.modules)
    gc.freeze()


def _fork_as_told(asked: socket.socket) -> None:
    if told := forking(asked):
        asked.detach()
        _become(*told)


def forking(asked: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Returns in each fork, with what it was asked for and its standard streams; None once nobody can ask any more."""
    parent = os.getpid()
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not asked:
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    _tell_the_end(*key.data)
                    continue
                request, fds, *_ = socket.recv_fds(asked, _LARGEST_REQUEST, 4)
                if not request:
                    return None
                *streams, tells = fds
                if not (pid := os.fork()):
                    return {**json.loads(request), "parent": parent}, streams
                for descriptor in streams:
                    os.close(descriptor)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, tells))
                asked.send(b"%d" % pid)


def _tell_the_end(pid: int, tells: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        os.write(tells, b"%d" % code)
    os.close(tells)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Has this fork be what a child of its own would be, and runs its module."""
    _end_with(request["parent"])
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    os.chdir(request["cwd"])
    more = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [request["cwd"], *more]
    sys.argv = ["", *request["arguments"]]
    gc.enable()
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    """From now on this process is in a session of its own, and is killed where its parent dies."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)


if __name__ == "__main__":
    if sys.argv[1:]:
        with_forks(sys.argv[1], sys.argv[2:])
    else:
        main(socket.socket(fileno=os.dup(0)))
