"""The hotel over leases that are rows which expire: work under a lease never stands still for longer than that."""

from __future__ import annotations

from dataclasses import replace

from tests.hotel.simulation import SCENARIO, HotelInvariants
from twinlog.testing import Simulation

LEASES = Simulation(replace(SCENARIO, leases_expire=True), HotelInvariants)
