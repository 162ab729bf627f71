"""What the pages name has to be there."""

from __future__ import annotations

import re

import pytest
from pydantic_settings import BaseSettings

from customer_svc.app import CustomerSettings
from order_svc.app import OrderSettings
from projector.app import QuerySettings
from saga_orchestrator.app import SagaSettings
from stack.topology import ROOT
from tests.simulation.bugs import BUGS
from twinlog.service.settings import describe

PAGES = ["README.md", "CONTRIBUTING.md", "docs/guarantees.md", "docs/third-service.md"]


def page(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", PAGES)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    text = page(name)
    links = {link for link in re.findall(r"\]\(([^)#:]+)\)", text)}
    paths = set(re.findall(r"`((?:tests|twinlog|docs|stack|protos)/[\w./]*)", text))
    missing = [link for link in links if not ((ROOT / name).parent / link).exists()]
    assert not missing + [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("name", PAGES)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", page(name))) <= targets


def test_every_planted_bug_stands_under_the_promise_that_it_breaks() -> None:
    text = page("docs/guarantees.md")
    named = {
        word
        for part in re.findall(r"bugs? ((?:`[\w-]+`(?:, )?)+)", text)
        for word in re.findall(r"[\w-]+", part)
    }
    assert named == set(BUGS)


@pytest.mark.parametrize("kind", [OrderSettings, CustomerSettings, SagaSettings, QuerySettings])
def test_every_setting_stands_in_the_readme(kind: type[BaseSettings]) -> None:
    text = page("README.md")
    for name, default, meaning in describe(kind):
        assert f"| `{name}` | {default} | {meaning} |" in text
