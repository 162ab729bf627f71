"""docs/pipeline.md: its middleware of gRPC methods does what it is for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stack.topology import ROOT
from tests.memory_shop import NoContext
from twinlog import FailedPrecondition
from twinlog.rpc import Method

_BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pipeline.md").read_text(), re.DOTALL)


async def answer(request: str, _context: Any) -> str:
    return request


async def test_a_replica_that_only_answers_queries() -> None:
    (block,) = [block for block in _BLOCKS if "READ_ONLY" in block]
    page: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, "pipeline.md", "exec", dont_inherit=True), page)
    query = page["read_only"](Method("shop.queries.v1.OrderQueryService/GetOrder", False), answer)
    assert await query("order", NoContext()) == "order"
    command = page["read_only"](Method("shop.orders.v1.OrderService/CreateOrder", False), answer)
    with pytest.raises(FailedPrecondition, match="only answers queries"):
        await command("order", NoContext())
