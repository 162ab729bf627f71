"""The garbage collector, kept away from what is large and has no cycles.

A full pass looks at every object that may be part of a cycle, and no other thread has a turn meanwhile: 70 ms and more
for a state of 400,000 tuples. There would be several while such a state is made, and later ones as others come.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_SMALL = (2_000, 10, 2**31 - 1)
"""Young objects are looked at soon, a few milliseconds' worth at most; all of them never."""
_ALL_AFTER = 100
"""How often objects are set apart before a full look at all: a cycle among them would otherwise stay for good."""


class _Collector:
    """That of this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._busy = self._times = 0
        self._thresholds = gc.get_threshold()

    @contextmanager
    def spared(self) -> Iterator[None]:
        """No full pass begins inside. What there is at the end is set apart from later ones, until nobody has it."""
        with self._lock:
            if not self._busy:
                self._thresholds = gc.get_threshold()
                gc.set_threshold(*_SMALL)
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._times += 1
                self._set_apart()
                if not self._busy:
                    gc.set_threshold(*self._thresholds)

    def _set_apart(self) -> None:
        if self._times % _ALL_AFTER:
            gc.collect(1)  # what has died young is not kept
        else:
            gc.unfreeze()
            gc.collect()
        gc.freeze()


spared = _Collector().spared
