"""The how-to pages are executed: their Python makes modules, and what they promise holds."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from stack.topology import ROOT
from tests.dead_letters.journal import event
from tests.mistakes.test_start import service
from tests.waiting import until
from twinlog import AlreadyExists, Metadata
from twinlog.testing import START, MemoryLog

PAGES = sorted(path.stem for path in (ROOT / "docs" / "how-to").glob("*.md"))


def module(page: str) -> Any:
    """What a page's Python defines."""
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    names: dict[str, Any] = {"__name__": page}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, f"{page}.md", "exec", dont_inherit=True), names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize(
    "page", [page for page in ("appending", "metadata", "mistakes", "views") if page in PAGES]
)
def test_a_page_s_python_runs(page: str) -> None:
    assert module(page)


async def test_several_aggregates_are_appended_together_and_a_name_is_had_once() -> None:
    page, log = module("appending"), MemoryLog("rooms")
    async with service(page.NAME, page.GUEST, log=log) as running:
        await running.writer.execute(lambda tx: page.register(tx, "g1", "Ann"))
        await running.writer.execute(lambda tx: page.register(tx, "g1", "Ann"))
        with pytest.raises(AlreadyExists, match="taken"):
            await running.writer.execute(lambda tx: page.register(tx, "g2", "ANN"))
    assert [str(one.stream) for one in log.events] == ["guest_name/ann", "guest/g1"]


async def test_a_row_of_ones_own_goes_with_the_event() -> None:
    page, log = module("appending"), MemoryLog("rooms")
    async with service(page.NAME, page.GUEST, log=log) as running:
        for _ in range(2):
            await running.writer.execute(lambda tx: page.register_with_row(tx, "g1", "Ann"))
    assert [said.arguments for said in log.statements] == [("g1", "Ann")]


async def test_a_command_later_is_fired_when_its_time_has_come() -> None:
    page, log = module("appending"), MemoryLog("rooms")
    async with service(page.OFFER, log=log) as running:
        await running.writer.execute(
            lambda tx: tx.do(page.OFFER, "o", page.Make(START - timedelta(seconds=1)))
        )
        await until(lambda: len(log.events) == 2)
    assert not log.timers


def test_a_view_of_several_logs_folds_as_its_page_says() -> None:
    page = module("views")
    booking = event(1, "s1+s2:ann")
    said = StringValue(value="s1+s2:ann")
    assert page.STAYS.keys(booking, said) == ["s1", "s2"]
    row = page.STAYS.after("s1", None, booking, said)
    assert page.STAYS.after("s1", row, booking, Int64Value(value=5)) == page.Stay("s1", "ann", 5)
    assert page.STAYS.after("s1", row, booking, StringValue(value="s1:")) is None


def test_a_tenant_is_found_in_what_its_call_set_off() -> None:
    page = module("metadata")
    said = event(1, "a:1")._replace(metadata=Metadata(extra={"tenant": "acme"}))
    assert page.tenant_of(said, None) == "acme"
    assert page.tenant_of(event(1, "a:1"), None) is None
