"""The command line itself: light, complete, and the same exit codes everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stack.topology import ROOT
from twinlog.cli import main
from twinlog.cli.command import COMMANDS, parser_for
from twinlog.service.repair import Options

_HEAVY = {"grpc", "asyncpg", "nats", "google.protobuf", "pydantic", "rich", "shtab", "asyncio"}

LOCAL = "127.0.0.1:1"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], []])
def test_it_says_what_it_is_without_loading_anything(arguments: list[str]) -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "twinlog", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert not _HEAVY & loaded
    assert "twinlog" in said.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: twinlog {command}")
    assert "3 out of reach" in said


def test_every_command_stands_in_the_reference() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert not [command for command in COMMANDS if f"## twinlog {command}" not in page]


def test_every_option_stands_in_the_reference() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    everywhere = {"--help", "--at", "--timeout", "--json"}
    for command in COMMANDS:
        if command != "completion":
            section = text.partition(f"## twinlog {command}\n")[2].partition("\n## ")[0]
            assert not {o for o in options_of(command) - everywhere if o not in section}, command


def options_of(command: str) -> set[str]:
    """The long options of a command and of its actions."""
    found: set[str] = set()
    parsers = [parser_for([command])]
    while parsers:
        for action in parsers.pop()._actions:
            found |= {option for option in action.option_strings if option.startswith("--")}
            if isinstance(action.choices, dict):
                named = [action.choices[command]] if command in action.choices else [*action.choices.values()]
                parsers += named
    return found - {"--version"}


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["frobnicate"])
    assert ended.value.code == 2
    assert "status" in capsys.readouterr().err


def test_nothing_at_all_gets_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_it(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("dead-letters", "replay", "--correlation", "needs-attention"))
    if shell == "bash":
        (tmp_path / "script").write_text(script)
        subprocess.run(["bash", "-n", tmp_path / "script"], check=True)


def test_repair_without_servers_says_which_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTGRES_URL", raising=False)
    assert main(["repair", "orders"]) == 2
    assert "set POSTGRES_URL and NATS_URL" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["127.0.0.1:99999", "127.0.0.1:abc", "127.0.0.1:", "[::1"])
@pytest.mark.parametrize(
    ("setting", "command"),
    [
        ("POSTGRES_URL", "repair orders --dry-run"),
        ("POSTGRES_URL", "export orders file"),
        ("POSTGRES_URL", "import orders file"),
        ("POSTGRES_URL", "archive orders folder"),
        ("POSTGRES_URL", "erasure report"),
        ("PERSONAL_KEYS_URL", "erasure keys"),
        ("PERSONAL_KEYS_URL", "erasure rewrap"),
        ("NATS_URL", "repair orders --dry-run"),
    ],
)
def test_a_wrong_url_is_refused_in_one_line(
    setting: str,
    command: str,
    at: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    urls = {each: f"postgresql://me:hunter2@{LOCAL}" for each in ("POSTGRES_URL", "PERSONAL_KEYS_URL")}
    urls["NATS_URL"] = f"nats://me:hunter2@{LOCAL}"
    for name, url in urls.items():
        monkeypatch.setenv(name, url.replace(LOCAL, at) if name == setting else url)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{setting} is wrong: must ")
    assert said.count("\n") == 1
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("keys_url", "told"),
    [(None, "staging_twinlog_keys"), ("", "staging_twinlog_keys"), ("postgresql://b", "")],
)
def test_a_repair_knows_the_keys_that_are_beside_the_log(
    keys_url: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Options] = []

    async def repair(options: Options, say: Callable[[str], None]) -> int:
        found.append(options)
        return 0

    monkeypatch.setattr("twinlog.cli.repair.repair", repair)
    monkeypatch.setenv("TWINLOG_NAMESPACE", "staging")
    monkeypatch.delenv("PERSONAL_KEYS_DATABASE", raising=False)
    monkeypatch.delenv("PERSONAL_KEYS_URL", raising=False)
    if keys_url is not None:
        monkeypatch.setenv("PERSONAL_KEYS_URL", keys_url)
    servers = ["--postgres-url", "postgresql://a", "--nats-url", "nats://a"]
    assert main(["repair", "orders", *servers]) == 0
    assert [options.keys for options in found] == [told]


@pytest.mark.parametrize("code", [0, 1])
def test_a_repair_tells_programs_what_it_says(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def repaired(asked: Options, say: Callable[[str], None]) -> int:
        say(f"Log {asked.log} is what it is.")
        return code

    monkeypatch.setattr("twinlog.cli.repair.repair", repaired)
    urls = ("--postgres-url", "postgresql://127.0.0.1:1", "--nats-url", "nats://127.0.0.1:1")
    assert main(["repair", "orders", "--json", "--dry-run", *urls]) == code
    assert json.loads(capsys.readouterr().out) == {
        "log": "orders",
        "dry_run": True,
        "left": bool(code),
        "says": ["Log orders is what it is."],
    }
