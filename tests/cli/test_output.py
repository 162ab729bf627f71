"""What commands print of messages."""

from google.protobuf.struct_pb2 import Struct

from twinlog.cli.output import as_dict
from twinlog.v1.inspection_pb2 import LoggedEvent


def test_a_payload_is_shown_with_whole_numbers_and_its_fields_by_name() -> None:
    payload = Struct()
    payload.update({"step": 1, "begun": [{"step": 2}], "part": 0.5, "cents": "20000"})
    shown = as_dict(LoggedEvent(position=3, payload=payload))
    assert str(shown["payload"]) == "{'begun': [{'step': 2}], 'cents': '20000', 'part': 0.5, 'step': 1}"
    assert shown["position"] == 3
    assert "payload" not in as_dict(LoggedEvent())
