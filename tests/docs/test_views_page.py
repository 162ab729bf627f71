"""The page on views: its tables and queries are made into a package, and its views are fed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from stack.topology import ROOT
from tests.dead_letters.journal import dead_lettering, event
from tests.docs.test_domain_pages import module
from twinlog import PostgresViews, Projection, Schema
from twinlog.rpc import PageTokens
from twinlog.testing.internals import open_log

PACKAGE = "views_page"
_SQL = re.compile(r"```sql\n-- (\S+\.sql)\n(.*?)```", re.DOTALL)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's SQL, as a package."""
    for name, text in _SQL.findall((ROOT / "docs" / "how-to" / "views.md").read_text()):
        file = tmp_path / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + text)
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield PACKAGE


def of_log(store: Any, page: ModuleType, log: str) -> Any:
    views = {"rooms": [page.STAYS], "guests": [page.GUESTS]}[log]
    projection = Projection(f"hotel.{log}", views, store, schema=Schema())
    assert not projection.store_mistakes()
    return dead_lettering(projection, store.log)


@pytest.mark.parametrize("order", [*permutations(["rooms", "guests"])])
async def test_a_join_shows_the_same_whichever_log_is_first(
    order: tuple[str, str], package: str, postgres_url: str, database: str
) -> None:
    page = module("views")
    said = {
        "rooms": [event(1, "s1+s2:g1"), event(2, "s3:g2")],
        "guests": [event(1, "g1:x")._replace(payload=page.StringValue(value="Ann").SerializeToString())],
    }
    rows = {"stays": page.Stay, "guests": page.Guest}
    async with open_log(postgres_url, database, "views", package) as log:
        store = PostgresViews(log, package, rows)
        for source in order:
            await of_log(store, page, source).handle(said[source], 0)
        shown = [tuple(row) for row in await store.query("stays_with_names")]
        of_guest = [tuple(row) for row in await store.query("stays_of_guest", "g1")]
        paged: list[Any] = []
        pages, token = PageTokens(), ""
        for _ in of_guest:
            asked = SimpleNamespace(guest="g1", page_size=1, page_token=token)
            rows_of_page, token = await page.list_stays(store, pages, asked, None)
            paged += map(tuple, rows_of_page)
    assert shown == [("s1", "Ann", 0), ("s2", "Ann", 0), ("s3", "", 0)]
    assert (paged, token) == (of_guest, "")
    assert of_guest == [("s1", "g1", 0), ("s2", "g1", 0)]
