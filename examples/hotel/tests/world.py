"""The hotel in one process, for tests."""

from twinlog.testing import Hosted

import payments_svc.app
import rooms_svc.app
import trips_svc.app
from payments_svc.provider import FakeProvider


def hotel(provider: FakeProvider) -> list[Hosted]:
    return [
        Hosted(rooms_svc.app.SPEC, rooms_svc.app.wire),
        Hosted(payments_svc.app.SPEC, lambda service, views: payments_svc.app.wire(service, views, provider)),
        Hosted(trips_svc.app.SPEC, trips_svc.app.wire),
    ]
