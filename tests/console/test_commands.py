"""Commands that the console shows are pasted into shells: what others have named must stay a word of them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct

from stack.topology import CONSOLE_PAGES, ROOT
from twinlog.console.process import pages_of
from twinlog.console.rendering import HERE, at_hand, environment, grpcurl, line, shell

_HOSTILE = ("it's", "$(touch x)", "`id`", "a b", 'a"b', "a\nb", "; ls", "&", "*", "~", "\\", "ü", "", "!!")
_COMMAND = re.compile(r"command\((?!shell\(|grpcurl\(|to\)|text\)|\"[^\"~]*\"\))")
"""One that is not put together by what quotes."""


def test_whatever_is_pasted_stays_one_word() -> None:
    for text in _HOSTILE:
        words = ["twinlog", "sagas", "show", text, "--at", "127.0.0.1:1"]
        assert shlex.split(shell(*words)) == words, text
        made = shlex.split(grpcurl("127.0.0.1:1", "a.b.C/D", address=text))
        assert json.loads(made[3]) == {"address": text}, text
        assert [*made[:3], *made[4:]] == ["grpcurl", "-plaintext", "-d", "127.0.0.1:1", "a.b.C/D"], text
    said = subprocess.run(["sh", "-c", shell("printf", "%s|", *_HOSTILE)], capture_output=True, check=True)
    assert said.stdout.decode().split("|")[:-1] == [*_HOSTILE]


def test_commands_without_hostile_names_are_as_people_write_them() -> None:
    assert shell("twinlog", "log", "orders", "--after", 0) == "twinlog log orders --after 0"
    assert (
        grpcurl("h:1", "a.B/C", view="orders") == """grpcurl -plaintext -d '{"view": "orders"}' h:1 a.B/C"""
    )
    assert grpcurl("h:1", "a.B/C") == "grpcurl -plaintext h:1 a.B/C"


def test_a_command_is_copied_with_the_path_of_its_program_where_nobody_else_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grpcurl").write_text("#!/bin/sh\n")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert at_hand("grpcurl -plaintext x") == f"{tmp_path}/grpcurl -plaintext x"
    assert at_hand("nats stream ls") == "nats stream ls"  # it is nowhere here
    assert at_hand("twinlog log a") == f"{tmp_path}/python -m twinlog log a"  # as in a checkout
    (tmp_path / "grpcurl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert at_hand("grpcurl -plaintext x") == "grpcurl -plaintext x"


def test_every_command_of_a_template_is_made_by_what_quotes() -> None:
    folders = [HERE / "templates", ROOT / "stack" / "try_it" / "templates"]
    wrong = [
        f"{path.name}: {found[0]}…"
        for folder in folders
        for path in sorted(folder.glob("*.html"))
        for found in _COMMAND.finditer(path.read_text())
    ]
    assert not wrong


def test_templates_know_both() -> None:
    made = environment([page.templates for page in pages_of(",".join(CONSOLE_PAGES)) if page.templates])
    template = made.from_string('{% from "macros.html" import command %}{{ command(shell("echo", id)) }}')
    assert "echo &#39;&lt;b&gt;; ls&#39;" in template.render(id="<b>; ls")


@pytest.mark.parametrize("name", ["id", "Id"])
def test_a_line_of_a_payload_has_room_for_more_than_ids(name: str) -> None:
    payload = Struct()
    payload.update(
        {name: "5705e8c2-ad04-403d-b87c-57c8faba62b7", "of": ["1C53C63E-4D10-4F4D-96D1-D6B960464ED3"]}
    )
    assert line(payload) == f'{name}: 5705e8c2…62b7, of: ["1C53C63E…4ED3"]'
