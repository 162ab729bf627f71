"""A receiver of traces that counts spans and throws them away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received:
    """What has come so far."""

    def __init__(self) -> None:
        self.url = ""
        self.spans = 0

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Counts what a process has sent."""
        self.spans += sum(
            len(scope.spans) for process in request.resource_spans for scope in process.scope_spans
        )


@contextmanager
def receiver() -> Iterator[Received]:
    """Takes OTLP over HTTP on a free port of the loopback interface, in threads of this process."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            received.take(ExportTraceServiceRequest.FromString(data))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
