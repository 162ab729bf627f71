"""docs/how-to/console.md: its page of a domain's own is served."""

from __future__ import annotations

import asyncio
import re
import sys
import urllib.request
from pathlib import Path

import pytest

from stack.topology import ROOT
from twinlog.console.process import pages_of, serving

_PAGE = (ROOT / "docs" / "how-to" / "console.md").read_text()


async def test_a_page_of_a_domain_is_served_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [module] = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)
    [template] = re.findall(r"```html\n(.*?)```", _PAGE, re.DOTALL)
    (tmp_path / "templates").mkdir()
    (tmp_path / "greeting_pages.py").write_text(module)
    (tmp_path / "templates" / "greet.html").write_text(template)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with serving({"nobody": "127.0.0.1:1"}, added=pages_of("greeting_pages")) as url:

        def ask() -> str:
            with urllib.request.urlopen(f"{url}/greet?name=Ada", timeout=90) as response:
                return str(response.read().decode())

        shown = await asyncio.to_thread(ask)
    del sys.modules["greeting_pages"]
    assert "<h1>Hello, Ada</h1>" in shown
    assert re.search(r'href="/greet"[^>]*aria-current="page"', shown)
