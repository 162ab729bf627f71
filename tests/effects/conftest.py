"""What all tests of effects share."""

from tests.dead_letters.conftest import lines as lines
from tests.dead_letters.conftest import no_pauses as no_pauses
