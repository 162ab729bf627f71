"""The how-to pages: their files, written out and imported, and their tests, run."""

from __future__ import annotations

import asyncio
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from stack.topology import ROOT
from tests.dead_letters.journal import event
from twinlog import Attempt, Recorded

_FILE = re.compile(r"```python\n# (\S+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def recorded() -> Recorded:
    """An event, as the pages' tests take one."""
    return event(1, "a:1")


def written(page: str, folder: Path) -> list[str]:
    """Writes a page's files into a folder; gives their modules."""
    modules = []
    for name, text in _FILE.findall((ROOT / "docs" / "how-to" / page).read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        modules.append(name.removesuffix(".py").replace("/", "."))
    return modules


async def test_the_page_on_effects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    notices, charges, tests = written("effects.md", tmp_path)
    (tmp_path / "tests").rename(tmp_path / "page_tests")
    try:
        import_module(notices)
        test = import_module(tests.replace("tests.", "page_tests."))
        await asyncio.to_thread(
            test.test_a_repeated_call_sends_one_mail, recorded
        )  # it has a loop of its own
        asked = list[str]()

        async def charge(booking: str, key: str) -> bool:
            asked.append(key)
            return booking != "declined"

        table = import_module(charges).charges(charge)
        dispatch = await table.rules[StringValue](
            StringValue(value="b"), Attempt(table.key(recorded, 0), 1, recorded)
        )
        [paid] = dispatch.aggregate.decide(dispatch.aggregate.initial, dispatch.command)
        assert (paid, asked) == (StringValue(value="paid"), [table.key(recorded, 0)])
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {"mailer", "payments", "page_tests"}:
                del sys.modules[name]
