"""`twinlog audit`: where its servers are. What it finds is tested in tests/audit."""

from __future__ import annotations

import argparse
import json
import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Served, Terminal
from twinlog.cli import main
from twinlog.cli.exits import Usage
from twinlog.cli.project import Project, servers, servers_told

URLS = {"POSTGRES_URL": "postgresql://here", "NATS_URL": "nats://here"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of one service, with no server set."""
    (tmp_path / ".twinlog").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.twinlog.services]\norder_svc = "127.0.0.1:1"\n')
    monkeypatch.chdir(tmp_path)
    for name in URLS:
        monkeypatch.delenv(name, raising=False)
    return Project.required()


def test_the_servers_are_those_of_a_running_dev(project: Project) -> None:
    file = project.root / ".twinlog" / "servers.json"
    with servers_told(project, *URLS.values()):
        assert servers(project) == URLS
        assert json.loads(file.read_text()) == URLS
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.exists()


def test_those_of_the_environment_go_before(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers_told(project, *URLS.values()):
        for name in URLS:
            monkeypatch.setenv(name, "mine")
        assert servers(project) == dict.fromkeys(URLS, "mine")
        monkeypatch.delenv("NATS_URL")
        with pytest.raises(Usage, match="NATS_URL is not set"):
            servers(project)


@pytest.mark.parametrize("command", ["repair orders", "export orders f", "import orders f", "erasure keys"])
def test_other_commands_that_need_servers_take_those_too(
    project: Project, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    taken: list[dict[str, str | None]] = []

    def taking(options: argparse.Namespace) -> int:
        taken.append({name: vars(options)[name.lower()] for name in URLS if name.lower() in options})
        return 7

    module = {"import": "import_"}.get(name := command.partition(" ")[0], name)
    monkeypatch.setattr(f"twinlog.cli.{module}.run", taking)
    other = "postgresql://other"
    with servers_told(project, *URLS.values()):
        assert main(command.split()) == main([*command.split(), "--postgres-url", other]) == 7
    assert main(command.split()) == 7
    running, given, nowhere = taken
    assert running == {name: URLS[name] for name in running}
    assert given == {**dict.fromkeys(running), "POSTGRES_URL": other}  # never one of each
    assert nowhere == dict.fromkeys(running)


def test_doctor_looks_at_the_servers_of_a_running_dev(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str | None] = {}

    async def examine(*_arguments: object) -> list[object]:
        seen.update({name: os.environ.get(name) for name in URLS})
        return []

    monkeypatch.setattr("twinlog.cli.doctor.examine", examine)
    with servers_told(project, *URLS.values()):
        assert main(["doctor"]) == 0
    assert seen == URLS


def test_without_servers_it_says_what_to_do(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit"]) == 2
    said = capsys.readouterr().err
    assert "POSTGRES_URL and NATS_URL are not set, and no `twinlog dev` runs here" in said


def test_without_a_service_it_says_where_they_are_named(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "pyproject.toml").write_text("[tool.twinlog]\n")
    assert main(["audit"]) == 2
    assert "names no service" in capsys.readouterr().err
    (project.root / "pyproject.toml").write_text("")
    assert main(["audit"]) == 2
    assert "no project here" in capsys.readouterr().err


async def test_chains_by_address_are_refused_with_the_way_out(
    twinlog: Terminal, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in URLS:
        monkeypatch.delenv(name, raising=False)
    orders = served.at("order_svc")
    served.shop.order_svc.inspected.settings = {"POSTGRES_URL": "db:5432", "NATS_URL": "nats://n:4222"}
    cases = {
        "--at goes with --chain": orders,
        "give --at HOST:PORT": ["--chain"],
        "Set both as for the services, with the login: POSTGRES_URL at db:5432, NATS_URL at nats://n:4222": [
            "--chain",
            *orders,
        ],
    }
    wrong = [why for why, words in cases.items() if why not in (await twinlog("audit", *words)).err]
    for name, url in URLS.items():
        monkeypatch.setenv(name, url)
    earlier = await twinlog("audit", "--chain", *orders)
    wrong += [earlier.err] * ("order_svc does not say in which database its log is" not in earlier.err)
    assert (wrong, earlier.code) == ([], 2)
