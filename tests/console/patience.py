"""How long tests wait for what a console asks and shows, on a machine that does much besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from twinlog.console import looks, services
from twinlog.console.looks import Looking
from twinlog.console.services import DEADLINE_SECONDS, Services

SHOWN_SECONDS = 90.0
"""Within which a page shows what is expected of it."""
_ANSWER_SECONDS = 30.0
"""By how much longer a service may take than a console waits, of which no test says that it hangs."""


@contextmanager
def patient(hangs: Callable[[str], bool]) -> Iterator[None]:
    """For the block, consoles of this process take a service for silent only where it is gone, or hangs by a test.

    A console waits for little more than a second. A process that gets no processor for so long is no defect of it, yet
    its pages say 503 then, and browsers tell that as an error. ``hangs``: whether a test holds up the service of that
    name; such a one is given up as soon as ever.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ask", "collect"):
            patch.setattr(Services, name, _longer(getattr(Services, name), hangs))
        patience = Looking.patience

        def longer(self: Looking, name: str) -> float:
            return patience(self, name) + (0.0 if hangs(name) else _ANSWER_SECONDS)

        patch.setattr(Looking, "patience", longer)
        # A first reader is shown what all have said: the looks that it waits for end by themselves.
        patch.setattr(looks, "_FIRST_SECONDS", 2 * _ANSWER_SECONDS)
        patch.setattr(services, "AT_ONCE_SECONDS", 2 * _ANSWER_SECONDS)
        yield


def _longer(method: Callable[..., Any], hangs: Callable[[str], bool]) -> Callable[..., Any]:
    async def asked(
        self: Services, service: str, call: Any, request: Any, *, seconds: float = DEADLINE_SECONDS
    ) -> Any:
        more = 0.0 if hangs(service) else _ANSWER_SECONDS
        return await method(self, service, call, request, seconds=seconds + more)

    return asked
