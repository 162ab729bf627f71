"""The public names of twinlog.testing."""

from .fakes import START as START
from .fakes import CountedIds as CountedIds
from .fakes import ManualClock as ManualClock
from .fakes import SeededIds as SeededIds
from .givens.given import given as given
from .memory import MemoryLog as MemoryLog
from .memory import MemoryTwin as MemoryTwin
from .memory import MemoryViews as MemoryViews
from .simulation.call import Call as Call
from .simulation.faults import Kind as Kind
from .simulation.faults import Kinds as Kinds
from .simulation.faults import with_outsiders as with_outsiders
from .simulation.faults import with_unreadable_streams as with_unreadable_streams
from .simulation.hosted import Hosted as Hosted
from .simulation.invariants import Invariants as Invariants
from .simulation.invariants import Violation as Violation
from .simulation.invariants import check as check
from .simulation.scenario import Plan as Plan
from .simulation.scenario import Scenario as Scenario
from .simulation.scene import Scene as Scene
from .simulation.simulation import Simulation as Simulation
from .simulation.simulation import SimulationFailed as SimulationFailed
from .simulation.simulation import Sweep as Sweep
from .simulation.simulation import simulate as simulate
from .simulation.world import World as World
