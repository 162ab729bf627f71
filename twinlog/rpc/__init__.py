"""The gRPC edge: hosts servicers, answers errors from one table, reads what a call carries."""

from twinlog.rpc.context import Context, call_metadata, request_identity, time_left
from twinlog.rpc.errors import CODES, status_of
from twinlog.rpc.health import Watched
from twinlog.rpc.host import Limits, Server, Service, serve

__all__ = [
    "CODES",
    "Context",
    "Limits",
    "Server",
    "Service",
    "Watched",
    "call_metadata",
    "request_identity",
    "serve",
    "status_of",
    "time_left",
]
