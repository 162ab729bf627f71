"""What has become of a saga's command at the service that owes the answer: asked over gRPC, without its database.

This process knows by itself whether the command has reached the stream. The rest is the owner's knowledge: its
DeadLetterService tells what it has set aside, its InspectionService how far its consumer is. Whatever cannot be found
out is said, with what would change that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from twinlog.log.twin import Twin
from twinlog.model.errors import TwinlogError
from twinlog.model.event import Recorded
from twinlog.v1 import dead_letter_service_pb2 as letters
from twinlog.v1 import inspection_pb2 as inspection
from twinlog.v1 import saga_service_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_MOST_LETTERS = 1000
"""Of one key: a command that waits behind more than these is told as queued."""


class Owners:
    """The services that take part in sagas."""

    def __init__(self, addresses: Mapping[str, str], twin: Twin) -> None:
        """``addresses``: host:port by the name of a service. ``twin``: the stream that they read the commands from."""
        self._addresses = addresses
        self._twin = twin

    async def tell(self, answer: pb.AwaitedAnswer, command: Recorded, seconds: float) -> None:
        """Fills in what has become of the command that an answer is awaited to; asks for so long at most."""
        try:
            if (await self._twin.state()).last < command.position:
                answer.progress = pb.COMMAND_PROGRESS_RECORDED
                return
        except TwinlogError as error:
            answer.unknown_because = str(error)
            return
        if not answer.owner:
            answer.unknown_because = (
                f"the proto of {command.type} does not say which service it is for: give it the option "
                "(twinlog.v1.tagged)"
            )
        elif not (address := self._addresses.get(answer.owner)):
            owner = answer.owner
            answer.unknown_because = (
                f"TWINLOG_SERVICES does not say where {owner} serves: add {owner}=host:port"
            )
        else:
            async with grpc.aio.insecure_channel(address) as channel:
                try:
                    await self._ask(channel, answer, command, seconds)
                except grpc.aio.AioRpcError as error:
                    answer.unknown_because = _why(error, answer, address)

    async def _ask(
        self, channel: grpc.aio.Channel, answer: pb.AwaitedAnswer, command: Recorded, seconds: float
    ) -> None:
        named: dict[str, Any] = {"consumer": answer.consumer}
        parked: Any = DeadLetterServiceStub(channel)
        request = letters.ListDeadLettersRequest(**named, key=command.partition_key, page_size=_MOST_LETTERS)
        found = await parked.ListDeadLetters(request, timeout=seconds)
        grouped = await parked.GroupDeadLetters(letters.GroupDeadLettersRequest(**named), timeout=seconds)
        answer.dead_letters = grouped.count
        for letter in found.dead_letters:
            if letter.address == command.address:
                answer.progress = pb.COMMAND_PROGRESS_DEAD_LETTER
                behind = f"behind {letter.behind}, which was set aside before it"
                answer.problem = f"{letter.error_type}: {letter.error}" if letter.error_type else behind
        asked: Any = InspectionServiceStub(channel)
        told = await asked.ListConsumers(inspection.ListConsumersRequest(**named), timeout=seconds)
        for consumer in told.consumers:
            if consumer.consumer == answer.consumer:
                _take(answer, command, consumer)


def _take(answer: pb.AwaitedAnswer, command: Recorded, consumer: inspection.ConsumerDescription) -> None:
    answer.lag, answer.lag_known = consumer.lag, consumer.lag_known
    answer.problem = answer.problem or consumer.problem
    if answer.progress != pb.COMMAND_PROGRESS_DEAD_LETTER:
        handled = consumer.position >= command.position
        answer.progress = pb.COMMAND_PROGRESS_HANDLED if handled else pb.COMMAND_PROGRESS_QUEUED


def _why(error: grpc.aio.AioRpcError, answer: pb.AwaitedAnswer, address: str) -> str:
    at = f"{answer.owner} at {address}"
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"{at} does not tell how far its consumers are: it serves no twinlog.v1.InspectionService"
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.NOT_FOUND:
            return f"{at} has no consumer {answer.consumer}, which would read this command"
    return f"{at} does not answer ({error.code().name}: {error.details()})"
