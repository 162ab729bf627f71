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

    def remove_node(self, node: WorkerController) -> str | None:
        """Hands on what is left of a worker's; gives the test that it died in, which nobody begins again.

        xdist's would hand on what has passed, too: a worker that gets nothing else waits for ever.
        """
        if self.collection is None:
            self.registered_collections.pop(node, None)
        left = [
            (group, test)
            for group, tests in self.assigned_work.pop(node).items()
            for test, ran in tests.items()
            if not ran
        ]
        for group, test in left[1:]:
            self.workqueue.setdefault(group, {})[test] = False
        for each in self.assigned_work:
            if each in self.registered_collections:
                self._reschedule(each)
        return left[0][1] if left else None

    def _reschedule(self, node: WorkerController) -> None:
        """As xdist's, until a worker has two tests: it begins none before it knows which one is next, or none."""
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)
