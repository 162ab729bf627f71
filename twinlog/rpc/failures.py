"""What a method raises, as its caller and the process's log are told of it."""

from __future__ import annotations

from uuid import uuid4

import structlog
from google.protobuf import descriptor_pool
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from twinlog.model.errors import TwinlogError
from twinlog.model.personal import has_own
from twinlog.model.withheld import withheld
from twinlog.rpc.errors import make_status, status_of

_log = structlog.get_logger(component="rpc")


def failure_of(error: BaseException, method: str, domain: str) -> Status:
    """The status of whatever a method raised, for an edge of any kind.

    ``method``: ``package.Service/Method``; ``domain``: the ErrorInfo domain of the service. A TwinlogError is told as
    :func:`status_of` has it. Anything else is a defect: INTERNAL with an ``error_id``, under which the traceback is
    logged, and without a text where the method's request or response has personal fields.
    """
    if isinstance(error, TwinlogError):
        status = status_of(error, domain)
        if status.code == StatusCode.INTERNAL.value[0]:
            _log.error("rpc.failed", method=method, exc_info=withheld(error, _handles_personal(method)))
        return status
    error_id = str(uuid4())
    shown = withheld(error, _handles_personal(method))
    _log.error("rpc.failed", method=method, error_id=error_id, exc_info=shown)
    return _unexpected(error_id, domain)


def _handles_personal(method: str) -> bool:
    """Whether the requests or the responses of a method have personal fields."""
    service, _, name = method.strip("/").partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return False
    return has_own(found.input_type.full_name) or has_own(found.output_type.full_name)


def _unexpected(error_id: str, domain: str) -> Status:
    info = ErrorInfo(reason="INTERNAL", domain=domain, metadata={"error_id": error_id})
    return make_status(StatusCode.INTERNAL, f"Internal error {error_id}.", info)
