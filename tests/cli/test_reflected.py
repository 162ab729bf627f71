"""The calls that `twinlog dev` suggests are such as the server can read."""

from google.protobuf.json_format import ParseDict

from twinlog.cli.reflected import _sample
from twinlog.v1.inspection_pb2 import ReadLogRequest
from twinlog.v1.saga_service_pb2 import ListSagasRequest


def test_repeated_fields_are_lists() -> None:
    sample = _sample(ReadLogRequest.DESCRIPTOR, 3)
    assert [name for name, value in sample.items() if isinstance(value, list)]
    for message in (ReadLogRequest, ListSagasRequest):
        ParseDict(_sample(message.DESCRIPTOR, 3), message())
