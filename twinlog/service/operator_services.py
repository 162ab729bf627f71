"""The kernel's own gRPC services of a process: what operators, the console and the command line call."""

from __future__ import annotations

from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.log.ports import Log
from twinlog.model.schema import Schema
from twinlog.rpc import PageTokens, Registration
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.rpc.history_service import HistoryService
from twinlog.rpc.inspection import Inspected
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.peers import Peers
from twinlog.rpc.saga_service import SagaService
from twinlog.rpc.snapshot_service import SnapshotService
from twinlog.rpc.view_operations import ViewOperations
from twinlog.rpc.view_service import ViewService
from twinlog.v1.dead_letter_service_pb2_grpc import add_DeadLetterServiceServicer_to_server
from twinlog.v1.history_service_pb2_grpc import add_HistoryServiceServicer_to_server
from twinlog.v1.inspection_pb2_grpc import add_InspectionServiceServicer_to_server
from twinlog.v1.saga_service_pb2_grpc import add_SagaServiceServicer_to_server
from twinlog.v1.snapshot_service_pb2_grpc import add_SnapshotServiceServicer_to_server
from twinlog.v1.view_service_pb2_grpc import add_ViewServiceServicer_to_server


def dead_letters(operations: DeadLetterOperations, pages: PageTokens, schema: Schema) -> Registration:
    """twinlog.v1.DeadLetterService."""
    service = DeadLetterService(operations, pages, schema)
    return service, add_DeadLetterServiceServicer_to_server, DeadLetterService.NAME


def inspection(inspected: Inspected) -> Registration:
    """twinlog.v1.InspectionService."""
    return InspectionService(inspected), add_InspectionServiceServicer_to_server, InspectionService.NAME


def history(log: Log, peers: Peers) -> Registration:
    """twinlog.v1.HistoryService."""
    return HistoryService(log, peers), add_HistoryServiceServicer_to_server, HistoryService.NAME


def snapshots(inspected: Inspected, pages: PageTokens) -> Registration:
    """twinlog.v1.SnapshotService."""
    return SnapshotService(inspected, pages), add_SnapshotServiceServicer_to_server, SnapshotService.NAME


def sagas(service: SagaService) -> Registration:
    """twinlog.v1.SagaService."""
    return service, add_SagaServiceServicer_to_server, SagaService.NAME


def views(operations: ViewOperations) -> Registration:
    """twinlog.v1.ViewService."""
    return ViewService(operations), add_ViewServiceServicer_to_server, ViewService.NAME
