"""The process that :mod:`tests.workers` tells what to fork: a worker of xdist's that has collected the tests.

It does what :mod:`xdist.remote` does until it would run them. A fork goes on from there, with all that a worker has of
its own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.config import _prepareconfig
from execnet.gateway_base import Popen2IO, WorkerGateway, get_execmodel

from stack.topology import ROOT
from tests import preloaded, preloaded_process

_EXECMODEL = get_execmodel("main_thread_only")


class _Later:
    """What a worker says before anybody listens to it."""

    gateway = SimpleNamespace(execmodel=_EXECMODEL)

    def __init__(self) -> None:
        self.said: list[Any] = []

    def send(self, said: Any) -> None:
        self.said.append(said)


class _Gateway(WorkerGateway):
    """A worker's, whose main thread is in the middle of a session of pytest's."""

    def __init__(self, io: Any) -> None:
        super().__init__(io=io, id="forked-worker", _startcount=2)
        self.begun: SimpleQueue[Any] = SimpleQueue()
        """The channel of the worker; None where there is nobody any more who wants one."""
        self._ended = Event()
        self.finished = False
        """Whether its session is over, so that it ends by itself."""
        self._thread = Thread(target=self._serve, name="execnet")
        self._thread.start()

    def _serve(self) -> None:
        self.serve()
        self.begun.put(None)

    def executetask(self, item: Any) -> None:
        """Runs a function; where it is asked for a worker, that is the main thread, until it has ended."""
        channel, (_source, _file, function, _arguments) = item
        if function:
            super().executetask(item)
            return
        self.begun.put(channel)
        self._ended.wait()
        channel.close()
        assert self._executetask_complete
        self._executetask_complete.set()

    def _terminate_execution(self) -> None:
        """Interrupts a session that goes on for seconds after it is to end, as execnet does; not one that is over.

        Looking for garbage at the end takes longer than that on a busy machine, and was interrupted in the middle.
        xdist kills whom it has waited for long enough.
        """
        if self.finished:
            self._ended.wait()
        super()._terminate_execution()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


class _Forks:
    """Has the session go on in each fork."""

    def __init__(self, config: pytest.Config, asked: socket.socket) -> None:
        self._config = config
        self._asked = asked
        self._later = _Later()
        from xdist import remote  # pytest imports its plugins itself

        self._worker = remote.WorkerInteractor(config, self._later)
        vars(remote)["interactor"] = self._worker  # which it looks for there
        self.gateway: _Gateway | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Returns in forks only."""
        assert len(os.listdir("/proc/self/task")) == 1, "a fork has none of its parent's threads"
        interrupts = signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers end at it, and then this does
        self._asked.send(b"ready")
        if not (told := preloaded_process.forking(self._asked)):
            os._exit(0)
        self._asked.close()
        signal.signal(signal.SIGINT, interrupts)
        self._become_worker(told[1])

    def pytest_sessionfinish(self) -> None:
        if self.gateway:
            self.gateway.finished = True

    def _become_worker(self, streams: list[int]) -> None:
        reads, writes = (os.fdopen(*each) for each in zip(streams, ("rb", "wb"), strict=True))
        reads.readline()  # the program that a new interpreter is given
        writes.write(b"1")
        writes.flush()
        self.gateway = _Gateway(Popen2IO(writes, reads, _EXECMODEL))
        if not (channel := self.gateway.begun.get()):
            os._exit(1)
        given, _arguments, options, _path = channel.receive()
        os.environ["PYTEST_XDIST_TESTRUNUID"] = given["testrunuid"]
        os.environ["PYTEST_XDIST_WORKER"] = given["workerid"]
        os.environ["PYTEST_XDIST_WORKER_COUNT"] = str(given["workercount"])
        vars(self._config)["workerinput"] = given
        self._worker.workerid, self._worker.testrunuid = given["workerid"], given["testrunuid"]
        vars(vars(self._config)["_tmp_path_factory"])["_given_basetemp"] = Path(options["basetemp"])
        # Forks would write into the same files.
        capture: Any = self._config.pluginmanager.getplugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()
        # Which services are forked from.
        vars(preloaded)["_apart"] = partial(_forker, preloaded.told_by())
        preloaded.told_by.cache_clear()
        self._worker.channel = channel
        for said in self._later.said:
            channel.send(said)


def _forker(library: socket.socket, theirs: int) -> Any:
    """Begins a process that forks services, as a fork of one that has imported no tests; waits for its end."""
    told, tells = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    request = preloaded.request_of("tests.preloaded_process", env=None, cwd=ROOT)
    # Workers share the socket: the answer may be another's, and nobody looks at it.
    preloaded.forked(library, request, theirs, null, 2, tells)
    os.close(null)
    os.close(tells)
    return partial(os.read, told, preloaded.LARGEST_ANSWER)


def main(asked: socket.socket) -> None:
    """Collects what pytest's arguments name; in each fork, runs what it is told to."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    preloaded.told_by()  # before there is a test
    config = _prepareconfig(sys.argv[1:])
    from xdist import remote

    remote.setup_config(config, None)
    vars(config)["workerinput"] = {"workerid": "", "workercount": 0, "testrunuid": "", "mainargv": sys.argv}
    vars(config)["workeroutput"] = {}
    forks = _Forks(config, asked)
    config.pluginmanager.register(forks, "forks of workers")
    try:
        config.hook.pytest_cmdline_main(config=config)
    except pytest.UsageError as error:
        print(*(f"ERROR: {each}" for each in error.args), sep="\n", file=sys.stderr)
        sys.exit(pytest.ExitCode.USAGE_ERROR)
    finally:
        if forks.gateway:
            forks.gateway.end()


if __name__ == "__main__":
    main(socket.socket(fileno=os.dup(0)))
