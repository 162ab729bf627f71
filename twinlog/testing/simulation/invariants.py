"""What must hold in a domain: a second, simpler account of it, written by somebody who knows the domain."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from types import CoroutineType
from typing import Any

from google.protobuf.message import Message

from twinlog.model.errors import TwinlogError
from twinlog.model.event import Recorded
from twinlog.testing.simulation.call import Call
from twinlog.testing.simulation.scene import Scene


class Invariants:
    """Derive a class and override what matters; ``assert``, or :func:`~twinlog.testing.check` to name the promise.

    Made anew for every seed. What every system on Twinlog promises is checked besides: positions, versions, one clock,
    each effect once and with its checkpoint, each request once, streams that mirror logs, views that are folds.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        """The world."""

    def event(self, event: Recorded, message: Any) -> None:
        """An event is committed: called in the order of the commits, at their moment."""

    def acknowledged(self, call: Call, response: Message) -> None:
        """A client was told that its command is done."""

    def refused(self, call: Call, error: TwinlogError) -> None:
        """A client was told that its command was refused."""

    def unfinished(self) -> Iterable[str]:
        """What has to happen before the world may be at rest, in words. If it does not happen, liveness is broken."""
        return ()

    def at_rest(self) -> None:
        """Nothing moves any more: checks what holds then."""


_CALLED = ("event", "acknowledged", "refused", "unfinished", "at_rest")


def heard(invariants: Invariants) -> Invariants:
    """The same invariants; they fail where a method gives False or a coroutine, which nobody would look at.

    Raises TypeError for a class that has none of the methods which are called, as where one is misspelt.
    """
    kind = type(invariants)
    if kind is not Invariants and all(getattr(kind, name) is getattr(Invariants, name) for name in _CALLED):
        raise TypeError(f"{kind.__name__} overrides none of {', '.join(_CALLED)}; name its checks so")
    for name in ("event", "acknowledged", "refused", "at_rest"):
        setattr(invariants, name, _heard(name, getattr(invariants, name)))
    return invariants


def _heard(name: str, method: Callable[..., object]) -> Callable[..., None]:
    def called(*arguments: Any) -> None:
        result = method(*arguments)
        if isinstance(result, CoroutineType):
            result.close()
            raise TypeError(f"{name} is async, so that nothing of it would run; make it a plain method")
        if result is False:
            raise TypeError(f"{name} gives False, and nobody looks at it; assert what has to hold")

    return called


class Violation(Exception):
    """A promise that was broken: what, and the facts."""


def check(holds: bool, promise: str, facts: str) -> None:
    """Raises Violation where something does not hold; ``promise`` names it in a word or two."""
    if not holds:
        raise Violation(promise, facts)


def broken(error: Exception) -> tuple[str, str]:
    """The promise that an error breaks, and the facts: an assertion of the invariants, or that nothing crashes."""
    if isinstance(error, Violation):
        promise, facts = error.args
        return promise, facts
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, AssertionError):
        return "invariants", f"{error}{where}"
    return "no crash", f"{type(error).__name__}: {error}{where}"
