"""Texts with a NUL character are refused by name, wherever in a request they are."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from twinlog import InvalidArgument
from twinlog.rpc.validation import refuse_nul
from twinlog.v1.history_service_pb2 import ReadStreamRequest
from twinlog.v1.inspection_pb2 import ReadCorrelatedRequest
from twinlog.v1.saga_service_pb2 import RetrySagasRequest, SagaFilter, SagaSelection


def refused(request: Message) -> set[str]:
    try:
        refuse_nul(request, request.SerializeToString())
    except InvalidArgument as error:
        return {*error.violations}
    return set()


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (RetrySagasRequest(step="a\0"), {"step"}),
        (
            RetrySagasRequest(
                reason="\0", selection=SagaSelection(filter=SagaFilter(subject="b\0b", saga="credit"))
            ),
            {"reason", "selection.filter.subject"},
        ),
        (ReadCorrelatedRequest(correlation_ids=["a", "b\0"], around=[Timestamp()]), {"correlation_ids"}),
        # Zero bytes that are none of a text's.
        (ReadStreamRequest(stream="order-1", after_event_id=b"\0\0"), set()),
        (RetrySagasRequest(selection=SagaSelection(filter=SagaFilter())), set()),
    ],
)
def test_each_such_text_is_named(request_: Message, fields: set[str]) -> None:
    assert refused(request_) == fields
