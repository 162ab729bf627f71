"""The check that keeps `protos/` compatible with what was released."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

PROTOS = Path(__file__).parents[2] / "protos"
EVENTS = "shop/orders/v1/events.proto"


def complaints(tmp_path: Path, *changes: tuple[str, str]) -> str:
    """What the check says of the released protos with these changes in the orders' events."""
    text = (PROTOS / EVENTS).read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    changed = tmp_path / EVENTS
    changed.parent.mkdir(parents=True)
    changed.write_text(text)
    image = tmp_path / "image.binpb"
    includes = [f"-I{tmp_path}", f"-I{PROTOS}", f"-I{sysconfig.get_path('purelib')}"]
    files = [str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", *includes]
    subprocess.run([*protoc, "--include_imports", f"--descriptor_set_out={image}", *files], check=True)
    against = ["--against", PROTOS / "released.txtpb", "--config", PROTOS / "buf.yaml"]
    buf = [Path(sys.executable).with_name("buf"), "breaking", image, *against]
    said = subprocess.run([str(part) for part in buf], capture_output=True, text=True, check=False)
    return said.stdout


def test_each_breaking_change_is_refused(tmp_path: Path) -> None:
    changes = {
        ("  RejectionReason reason = 3;", ""): 'field "3" with name "reason" on message "OrderRejected"',
        ("  string customer_id = 2;", "  bytes customer_id = 2;"): 'changed type from "string" to "bytes"',
        ("message OrderApproved {", "message OrderAccepted {"): 'message "OrderApproved" was deleted',
    }
    said = complaints(tmp_path, *changes)
    assert not [complaint for complaint in changes.values() if complaint not in said], said


def test_a_new_field_is_welcome(tmp_path: Path) -> None:
    new = "message SagaModeChanged {\n  // Why.\n  string reason = 9;\n"
    assert complaints(tmp_path, ("message SagaModeChanged {\n", new)) == ""
