"""The payment provider: a fake of one, and the calls that events set off."""

from twinlog import Attempt, Dispatch, Effects, on

from hotel.v1.payments_pb2 import PaymentRefunded, PaymentRequested
from payments_svc.domain import PAYMENT, NoteAnswer

LIMIT_CENTS = 100_000


class FakeProvider:
    """Every guest has 1,000 euros for a trip. The same key has one effect and one answer."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.answers: dict[str, bool] = {}

    async def charge(self, trip_id: str, cents: int, *, key: str) -> bool:
        if key not in self.answers:
            self.answers[key] = cents <= LIMIT_CENTS
            if self.answers[key]:
                self.charged[trip_id] = cents
        return self.answers[key]

    async def refund(self, trip_id: str) -> None:
        self.charged.pop(trip_id, None)


def payments(provider: FakeProvider) -> Effects:
    async def charge(event: PaymentRequested, attempt: Attempt) -> Dispatch:
        accepted = await provider.charge(event.trip_id, event.cents, key=attempt.key)
        return on(PAYMENT, event.trip_id).do(NoteAnswer(accepted))

    async def refund(event: PaymentRefunded, _attempt: Attempt) -> None:
        await provider.refund(event.trip_id)

    return Effects(
        "payments", "payments_svc", "provider", {PaymentRequested: charge, PaymentRefunded: refund}
    )
