"""What commands print of messages."""

import argparse
import sys
from io import BytesIO, TextIOWrapper

import pytest
from google.protobuf.struct_pb2 import Struct

from twinlog.cli import main
from twinlog.cli.output import as_dict, console, print_json
from twinlog.v1.inspection_pb2 import LoggedEvent


def test_a_payload_is_shown_with_whole_numbers_and_its_fields_by_name() -> None:
    payload = Struct()
    payload.update({"step": 1, "begun": [{"step": 2}], "part": 0.5, "cents": "20000"})
    shown = as_dict(LoggedEvent(position=3, payload=payload))
    assert str(shown["payload"]) == "{'begun': [{'step': 2}], 'cents': '20000', 'part': 0.5, 'step': 1}"
    assert shown["position"] == 3
    assert "payload" not in as_dict(LoggedEvent())


def test_a_terminal_that_lacks_characters_is_shown_the_others_and_programs_read_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(options: argparse.Namespace) -> int:
        if options.json:
            print_json({"name": "ü ✓"})
        else:
            console().print("✓ ü, and so on …")
        return 0

    monkeypatch.setattr("twinlog.cli.doctor.run", said)
    for encoding, arguments, shown in (
        ("ascii", ["doctor"], b"? ?, and so on ?\n"),
        ("latin-1", ["doctor"], b"? \xfc, and so on ?\n"),
        ("latin-1", ["doctor", "--json"], b'{\n  "name": "\\u00fc \\u2713"\n}\n'),
        ("utf-8", ["doctor", "--json"], '{\n  "name": "ü ✓"\n}\n'.encode()),
    ):
        written = BytesIO()
        monkeypatch.setattr("sys.stdout", TextIOWrapper(written, encoding=encoding))
        assert main(arguments) == 0
        sys.stdout.flush()
        assert written.getvalue() == shown, (encoding, arguments)
