"""The check that keeps `protos/` compatible with what was released."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[2] / "protos"
EVENTS = "shop/orders/v1/events.proto"


def complaints(tmp_path: Path, before: str, after: str) -> str:
    """What the check says of the released protos with one change in the orders' events."""
    text = (PROTOS / EVENTS).read_text()
    assert before in text
    changed = tmp_path / EVENTS
    changed.parent.mkdir(parents=True)
    changed.write_text(text.replace(before, after, 1))
    image = tmp_path / "image.binpb"
    includes = [f"-I{tmp_path}", f"-I{PROTOS}", f"-I{sysconfig.get_path('purelib')}"]
    files = [str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", *includes]
    subprocess.run([*protoc, "--include_imports", f"--descriptor_set_out={image}", *files], check=True)
    against = ["--against", PROTOS / "released.txtpb", "--config", PROTOS / "buf.yaml"]
    buf = [Path(sys.executable).with_name("buf"), "breaking", image, *against]
    said = subprocess.run([str(part) for part in buf], capture_output=True, text=True, check=False)
    return said.stdout


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("  RejectionReason reason = 3;", "", 'field "3" with name "reason" on message "OrderRejected"'),
        ("  string customer_id = 2;", "  bytes customer_id = 2;", 'changed type from "string" to "bytes"'),
        ("message OrderApproved {", "message OrderAccepted {", 'message "OrderApproved" was deleted'),
    ],
)
def test_a_breaking_change_is_refused(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    assert complaint in complaints(tmp_path, before, after)


def test_a_new_field_is_welcome(tmp_path: Path) -> None:
    new = "message SagaModeChanged {\n  // Why.\n  string reason = 9;\n"
    assert complaints(tmp_path, "message SagaModeChanged {\n", new) == ""
