"""The edge and the wiring of rooms_svc."""

from twinlog import Address, Service, ServiceSpec, Settings
from twinlog.rpc import Checks, Commands, Context

from hotel.v1.rooms_pb2 import AddRoomRequest, AddRoomResponse
from hotel.v1.rooms_pb2_grpc import RoomServiceServicer
from rooms_svc.domain import ROOM, AddRoom
from rooms_svc.policies import POLICIES


class RoomSettings(Settings):
    rooms_address: Address = "127.0.0.1:50061"
    """Where rooms_svc serves."""


SPEC = ServiceSpec(
    name="rooms_svc",
    log="rooms",
    database="hotel_rooms",
    domain="hotel",
    settings=RoomSettings,
    address="rooms_address",
    aggregates=(ROOM,),
)


class RoomService(RoomServiceServicer):
    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def AddRoom(self, request: AddRoomRequest, context: Context) -> AddRoomResponse:
        checks = Checks()
        room_id = checks.name("room_id", request.room_id)
        if request.cents_a_night <= 0:
            checks.violate("cents_a_night", "has to be more than 0")
        command = AddRoom(room_id, request.cents_a_night)
        return await self._commands.do(request, context, checks, ROOM, room_id, command, AddRoomResponse())


def wire(service: Service, _views: object = None) -> RoomService:
    service.subscribe(POLICIES)
    return RoomService(Commands(service.log, service.writer))
