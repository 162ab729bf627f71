"""Where sagas and their steps stand: in words, and in the kind of state by which a page colors them."""

from __future__ import annotations

from typing import NamedTuple

from twinlog.v1 import saga_service_pb2 as pb


class State(NamedTuple):
    kind: str
    """Its color and shape: ok, warn, bad, run, undo or idle."""
    word: str

    @property
    def in_url(self) -> str:
        """The word that a URL has for it."""
        return self.word.replace(" ", "-")


UNKNOWN = State("idle", "unknown")

SAGAS: dict[int, State] = {
    pb.SAGA_STATUS_NEEDS_ATTENTION: State("bad", "needs attention"),
    pb.SAGA_STATUS_COMPENSATING: State("undo", "compensating"),
    pb.SAGA_STATUS_RUNNING: State("run", "running"),
    pb.SAGA_STATUS_COMPLETED: State("ok", "completed"),
    pb.SAGA_STATUS_COMPENSATED: State("idle", "compensated"),
}
"""In the order in which they matter to an operator."""

STEPS: dict[int, State] = {
    pb.SAGA_STEP_STATUS_WAITING: State("idle", "not begun"),
    pb.SAGA_STEP_STATUS_RUNNING: State("run", "awaited"),
    pb.SAGA_STEP_STATUS_DONE: State("ok", "done"),
    pb.SAGA_STEP_STATUS_REFUSED: State("bad", "refused"),
    pb.SAGA_STEP_STATUS_TIMED_OUT: State("bad", "timed out"),
    pb.SAGA_STEP_STATUS_COMPENSATING: State("undo", "being undone"),
    pb.SAGA_STEP_STATUS_COMPENSATED: State("undo", "undone"),
    pb.SAGA_STEP_STATUS_SKIPPED: State("warn", "skipped"),
    pb.SAGA_STEP_STATUS_UNDO_SKIPPED: State("warn", "undoing skipped"),
    pb.SAGA_STEP_STATUS_LEFT_OUT: State("idle", "left out"),
}

BY_WORD = {state.in_url: status for status, state in SAGAS.items()}
"""Statuses by the word that a URL has for them."""


def saga_state(status: int) -> State:
    return SAGAS.get(status, UNKNOWN)


def step_state(status: int) -> State:
    return STEPS.get(status, UNKNOWN)
