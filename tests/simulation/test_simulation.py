"""Seeds keep every promise, a seed is one run wherever it runs, and every deliberate bug is found."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import time

import pytest

from tests.rebuild.simulated import REBUILDS
from tests.simulation.bugs import BUGS
from tests.simulation.shop import SHOP, UNREADABLE, sweep

SEEDS = 40
SECONDS = 15.0
"""Whichever is reached first: CI machines differ. `make simulate` runs as many as there is time for."""
AT_LEAST = 20
SEARCHED = 1_500
"""Within so many seeds each bug has to be found."""


def test_seeds_keep_every_promise() -> None:
    began, done = time.monotonic(), 0
    while done < SEEDS and (done < AT_LEAST or time.monotonic() - began < SECONDS):
        swept = sweep(range(done, done + 10))
        for seed, failure in swept.failures:
            trace = "\n".join(failure.trace)
            pytest.fail(
                f"{failure.promise}: {failure.facts}\n{trace}\nmake simulate SEED={seed}", pytrace=False
            )
        done += swept.seeds


def test_streams_that_become_unreadable_concern_their_own_key_and_all_comes_right() -> None:
    began, done = time.monotonic(), 0
    while done < SEEDS and (done < AT_LEAST or time.monotonic() - began < SECONDS / 5):
        for seed, failure in sweep(range(done, done + 10), UNREADABLE).failures:
            trace = "\n".join(failure.trace)
            pytest.fail(f"seed {seed}: {failure.promise}: {failure.facts}\n{trace}", pytrace=False)
        done += 10


def test_a_view_that_is_built_anew_never_steps_back_and_lacks_nothing() -> None:
    for seed, failure in sweep(range(AT_LEAST), REBUILDS).failures:
        trace = "\n".join(failure.trace)
        pytest.fail(f"seed {seed}: {failure.promise}: {failure.facts}\n{trace}", pytrace=False)


def test_a_seed_is_one_run_whatever_strings_hash_to() -> None:
    seeds = (1, 7, 11)
    here = [*map(digest, seeds)]
    assert [*map(digest, seeds)] == here
    code = f"from tests.simulation.test_simulation import digest; print(*map(digest, {seeds}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == here


def digest(seed: int) -> str:
    """The hash of a run's trace and of how many steps it took."""
    result = SHOP.run(seed)
    text = "\n".join([*result.trace, str(result.steps)])
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", BUGS)
def test_every_bug_is_found(name: str) -> None:
    with BUGS[name].planted():
        seeds = range(BUGS[name].near, BUGS[name].near + SEARCHED)
        assert sweep(seeds, BUGS[name].simulation).failures, f"{name} was not found: {BUGS[name].about}"


def test_a_failure_is_cut_down_to_what_it_needs() -> None:
    with BUGS["checkpoint-outside"].planted():
        ((seed, failure),) = sweep(range(SEARCHED)).failures
        least = SHOP.shrunk(seed, failure.promise, seconds=math.inf)
        again = SHOP.run(seed, least).failure
    assert again is not None
    assert again.promise == failure.promise
    assert len(least.calls) + len(least.faults) <= 2
