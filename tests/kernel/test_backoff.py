from itertools import islice
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from twinlog._aio.retrying import backoff


class Always:
    def __init__(self, value: float) -> None:
        self._value = value

    def random(self) -> float:
        return self._value


@given(st.floats(0.001, 10), st.floats(0.001, 100), st.integers())
def test_waits_stay_within_half_of_the_cap_and_the_cap(first: float, cap: float, seed: int) -> None:
    waits = list(islice(backoff(first, cap, Random(seed)), 50))

    assert all(0 < wait <= cap for wait in waits)
    assert all(wait >= cap / 2 for wait in waits[20:])


def test_waits_double_up_to_the_cap() -> None:
    assert list(islice(backoff(1.0, 5.0, Always(0.0)), 5)) == [0.5, 1.0, 2.0, 2.5, 2.5]


def test_one_seed_gives_one_sequence() -> None:
    one, same, other = (list(islice(backoff(randomness=Random(seed)), 9)) for seed in (1, 1, 2))

    assert one == same != other
