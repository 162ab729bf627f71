"""The chains of logs: whether the head of each still moves with its log."""

from __future__ import annotations

from twinlog.v1 import inspection_pb2 as pb

STUCK_SECONDS = 180.0
"""A service seals once a minute what came without a link."""


class Chains:
    """Where the heads of all chains were seen to move last."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[int, float]] = {}
        """By log: the head's position, and since when it has been there while the log was ahead."""

    def problem_of(self, log: pb.LogDescription | None, at: float) -> str:
        """What is wrong with the chain of a log at a moment, in seconds of some clock; empty: nothing."""
        if log is None or not log.HasField("chain"):
            return ""
        position, since = self._moved.get(log.log, (-1, at))
        if log.chain.position >= log.head or log.chain.position != position:
            since = at
        self._moved[log.log] = (log.chain.position, since)
        if at - since < STUCK_SECONDS:
            return ""
        return (
            f"the head of its chain stands at event {log.chain.position} while the log goes on: what came later is not "
            "proved; see chain.not_noted in the service's log"
        )
