"""What adapters of the ports have to do, as base classes of tests; they need the extra ``testing``.

class TestMyLog(LogConformance):
    @pytest.fixture
    async def log(self) -> AsyncIterator[Log]:
        ...
"""

from twinlog.testing.conformance.damage import Damage, MemoryDamage
from twinlog.testing.conformance.keys import KeysConformance
from twinlog.testing.conformance.lease import LeaseConformance, LeaseOf
from twinlog.testing.conformance.log import LogConformance
from twinlog.testing.conformance.twin import TwinConformance
from twinlog.testing.conformance.views import RowOf, ViewsConformance

__all__ = [
    "Damage",
    "KeysConformance",
    "LeaseConformance",
    "LeaseOf",
    "LogConformance",
    "MemoryDamage",
    "RowOf",
    "TwinConformance",
    "ViewsConformance",
]
