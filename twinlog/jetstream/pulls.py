"""How many messages a consumer has been asked for, and how many of them have come."""

from __future__ import annotations

import json

_SECOND = 1_000_000_000
_AHEAD = 2_000
"""Messages on their way and waiting to be taken, at most."""
_EXPIRES_SECONDS = 30.0


class Pulls:
    """Long-lived pulls: a new one is due when half of what was asked for has come."""

    def __init__(self) -> None:
        self.delivered = 0
        """The consumer's sequence of the last message that came."""
        self._outstanding = 0

    def due(self, waiting: int) -> int:
        """How many messages to ask for now, while so many wait to be taken."""
        return max(0, _AHEAD - self._outstanding - waiting) if self._outstanding < _AHEAD // 2 else 0

    def request(self, count: int, heartbeat_seconds: float) -> bytes:
        """The request for so many messages, which counts from now on."""
        self._outstanding += count
        request = {
            "batch": count,
            "expires": int(_EXPIRES_SECONDS * _SECOND),
            "idle_heartbeat": int(heartbeat_seconds * _SECOND),
        }
        return json.dumps(request).encode()

    def came(self, number: int) -> bool:
        """Counts a message by the consumer's sequence; False where one before it is missing."""
        if number != self.delivered + 1:
            return False
        self.delivered = number
        self._outstanding -= 1
        return True

    def expired(self, missing: int) -> None:
        """A pull has ended, with so many of its messages missing."""
        self._outstanding -= missing
