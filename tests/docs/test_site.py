"""The documentation site: it builds strictly, shows every public name, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack.topology import ROOT

MODULES = [
    *("twinlog", "twinlog.rpc", "twinlog.testing", "twinlog.testing.internals", "twinlog.dev"),
    *("twinlog.audit", "twinlog.consume", "twinlog.console"),
]
_TIMEOUT_SECONDS = 290


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Builds the project in a folder, as `make docs` does."""
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    (folder / "twinlog").symlink_to(ROOT / "twinlog")
    built = build(folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / ".data" / "site"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_can_be_imported_and_has_its_entry(site: Path, module: str) -> None:
    imported = importlib.import_module(module)
    page = (site / "reference" / f"{module.rpartition('.')[2]}.html").read_text()
    names = imported.__all__
    assert names
    assert not [name for name in names if not hasattr(imported, name)]
    entries = set(re.findall(r'id="?(twinlog[\w.]*)', page))
    # Where a module has the name of its function, the entry is the function's: twinlog.testing.given.given.
    missing = {name for name in names if not entries & {f"{module}.{name}", f"{module}.{name}.{name}"}}
    assert not missing


def test_the_stub_says_what_the_library_exports() -> None:
    stub = (ROOT / "twinlog" / "__init__.pyi").read_text()
    assert sorted(re.findall(r" as (\w+)$", stub, re.MULTILINE)) == sorted(
        importlib.import_module("twinlog").__all__
    )


def test_every_page_stands_in_the_navigation() -> None:
    config = (ROOT / "zensical.toml").read_text()
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r'"([\w./-]+\.md)"', config)) == pages


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert pages
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    remote = re.compile(r"(?:@import\s*|url\()[\"']?(?:https?:)?//")
    assert not [found for page in pages for found in loads.findall(page.read_text())]
    assert not [sheet for sheet in site.rglob("*.css") if remote.search(sheet.read_text())]
    # The theme fetches a renderer for such blocks when a page has one.
    assert not [page for page in pages if re.search(r"class=\"?(?:mermaid|glightbox)", page.read_text())]


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Page\n\nThis [link](nowhere.md) is broken.\n")
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "Broken"\n')
    built = build(tmp_path)
    assert built.returncode != 0
    assert "page does not exist" in built.stdout + built.stderr
