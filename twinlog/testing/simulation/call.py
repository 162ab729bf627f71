"""A command that a client of a simulation sends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinlog.model.forms import FLAG, SECONDS, TEXT, Form, Forms, refuse_value
from twinlog.rpc.context import ACTOR_KEY, CORRELATION_KEY

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{23}([0-9a-f]{4})")


_FORMS: Forms = {
    "at": SECONDS,
    "service": TEXT,
    "method": TEXT,
    "correlation_id": Form(
        lambda given: isinstance(given, str) and given != "", "a text, another one for each call"
    ),
    "patience_seconds": SECONDS,
    "actor": TEXT,
    "repeats": FLAG,
}


@dataclass(frozen=True)
class Call:
    """One command of a client, and how patient it is."""

    at: float
    """Seconds after the start."""
    service: str
    """Who takes it."""
    method: str
    """Of one of the service's servicers."""
    request: Any
    """Where it has a request_id, it is repeated under it until its outcome is known; without one it is sent once."""
    correlation_id: str
    """Another one for each call."""
    patience_seconds: float = 5.0
    """Seconds that it waits for one answer."""
    actor: str = "client"
    repeats: bool = False
    """Whether it is repeated without a request id too: having it twice is the same as once."""

    def __post_init__(self) -> None:
        refuse_value("Call", self, _FORMS)

    @property
    def is_repeated(self) -> bool:
        """Whether the client repeats it until its outcome is known."""
        return self.repeats or bool(getattr(self.request, "request_id", ""))

    def __str__(self) -> str:
        return shortened(f"{self.method} {' '.join(str(self.request).split())}")


@dataclass(frozen=True)
class CallContext:
    """As much of a call's context as an edge reads."""

    metadata: Sequence[tuple[str, str]] = ()
    seconds: float | None = None
    """Until its deadline."""

    @classmethod
    def of(cls, call: Call) -> CallContext:
        return cls(((CORRELATION_KEY, call.correlation_id), (ACTOR_KEY, call.actor)), call.patience_seconds)

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self.metadata

    def time_remaining(self) -> float | None:
        return self.seconds


def method_of(servicers: Sequence[object], service: str, name: str) -> Any:
    """A method of one of a service's servicers. Raises LookupError."""
    for each in servicers:
        if callable(method := getattr(each, name, None)):
            return method
    raise LookupError(f"{service} serves no method {name}: what `wire` gives has none of that name")


def shortened(text: str) -> str:
    """The text with the last four digits of each UUID in it, by which people tell those of one trace apart."""
    return _UUID.sub(r"\1", text)
