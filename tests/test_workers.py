"""How a worker ends that is a fork."""

from __future__ import annotations

import os
from threading import Event
from typing import Any

import pytest

from tests.workers_process import _Gateway


class Ends(Event):
    """A session that ends while it is waited for."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


@pytest.mark.parametrize(("finished", "signals"), [(False, [2]), (True, [])])
def test_a_session_that_is_over_is_not_interrupted_while_it_puts_things_away(
    monkeypatch: pytest.MonkeyPatch, finished: bool, signals: list[int]
) -> None:
    sent: list[int] = []
    ended = Ends()

    class Pool:
        """What execnet waits for, in vain until the session has ended, or was interrupted."""

        def trigger_shutdown(self) -> None: ...

        def waitall(self, _seconds: float) -> bool:
            return ended.is_set() or bool(sent)

    gateway: Any = _Gateway.__new__(_Gateway)  # without its thread
    vars(gateway).update(_ended=ended, finished=finished, _execpool=Pool(), _trace=lambda *_: None)
    monkeypatch.setattr(os, "kill", lambda _pid, signum: sent.append(signum))
    gateway._terminate_execution()
    assert sent == signals
