"""Seeds keep every promise, a seed is one run wherever it runs, and every deliberate bug is found."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import pytest

from tests.rebuild.simulated import FILLS, REBUILDS
from tests.simulation.bugs import BUGS
from tests.simulation.leases import LEASES
from tests.simulation.outside import OUTSIDE
from tests.simulation.shop import SHOP, UNREADABLE, sweep
from twinlog.testing import Simulation

SEARCHED = 1_500
"""Within so many seeds each bug has to be found."""


# `make simulate` runs as many as there is time for. Some forty more are run below, without the bugs that they find.
@pytest.mark.parametrize(
    ("simulation", "seeds"),
    [
        pytest.param(SHOP, 8, id="everything goes wrong"),
        pytest.param(
            UNREADABLE, 10, id="streams that become unreadable concern their own key, and all comes right"
        ),
        pytest.param(
            OUTSIDE,
            8,
            id="what outsiders do to snapshots, streams and messages is noticed, and never believed",
        ),
        pytest.param(REBUILDS, 6, id="a view that is built anew never steps back and lacks nothing"),
        pytest.param(FILLS, 8, id="a build is filled with nothing of a log that was set back"),
        pytest.param(
            LEASES, 8, id="under leases that expire no work stands still, whatever clock wrote them"
        ),
    ],
)
def test_seeds_keep_every_promise(simulation: Simulation, seeds: int) -> None:
    for seed, failure in sweep(range(seeds), simulation).failures:
        trace = "\n".join(failure.trace)
        replay = f"\nmake simulate SEED={seed}" if simulation is SHOP else ""
        pytest.fail(f"seed {seed}: {failure.promise}: {failure.facts}\n{trace}{replay}", pytrace=False)


def test_a_seed_is_one_run_whatever_strings_hash_to() -> None:
    seeds = (1, 7)
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
    near, simulation = BUGS[name].near, BUGS[name].simulation
    with BUGS[name].planted():
        found = sweep(range(near, near + SEARCHED), simulation).failures
    assert found, f"{name} was not found: {BUGS[name].about}"
    seed, failure = found[0]
    assert failure.promise != "no crash", f"{name} fails by itself: {failure.facts}"
    assert simulation.run(seed).failure is None, f"seed {seed} fails without {name}, too, so it shows nothing"


def test_a_failure_is_cut_down_to_what_it_needs() -> None:
    with BUGS["checkpoint-outside"].planted():
        ((seed, failure),) = sweep(range(SEARCHED)).failures
        least = SHOP.shrunk(seed, failure.promise, seconds=math.inf)
        again = SHOP.run(seed, least).failure
    assert again is not None
    assert again.promise == failure.promise
    assert len(least.calls) + len(least.faults) <= 2
