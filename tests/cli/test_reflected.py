"""The calls that `twinlog dev` suggests are such as the server can read."""

from google.protobuf.json_format import ParseDict

from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.queries.v1.order_query_service_pb2 import ListOrdersRequest, WatchOrdersRequest
from twinlog.cli.reflected import _sample
from twinlog.v1.inspection_pb2 import ReadLogRequest
from twinlog.v1.saga_service_pb2 import ListSagasRequest


def test_repeated_fields_are_lists() -> None:
    sample = _sample(ReadLogRequest.DESCRIPTOR, 3)
    assert [name for name, value in sample.items() if isinstance(value, list)]
    for message in (ReadLogRequest, ListSagasRequest):
        ParseDict(_sample(message.DESCRIPTOR, 3), message())


def test_tokens_are_left_out_since_nobody_can_make_one_up() -> None:
    for message in (WatchOrdersRequest, ListOrdersRequest, CreateOrderRequest):
        given = _sample(message.DESCRIPTOR, 3)
        assert given
        assert not [name for name in given if name.endswith("token") or name == "request_id"], message
