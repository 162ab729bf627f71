"""How `make test` shares its tests out among workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


class FromBothEnds(LoadScopeScheduling):
    """Hands out groups and single tests in the order in which they were collected, to the last worker from their end.

    What computes is collected last: so one worker computes all the time, while the others wait for servers half of it.
    """

    def __init__(self, config: pytest.Config, log: Any, group: Callable[[str], str]) -> None:
        """``group``: of which group a test is, "" for one that runs alone."""
        super().__init__(config, log)
        self._group = group

    def _split_scope(self, nodeid: str) -> str:
        return self._group(nodeid) or nodeid

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.numnodes > 1 and node.gateway.id == f"gw{self.numnodes - 1}":
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
