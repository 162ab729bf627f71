"""``make mutants``: changes the library in small ways, one at a time; the fast tests that reach a change must notice.

Those in aimed.toml come first, then a sample of all that there are. A mutant that survives stands in survivors.toml
with the reason, or fails the run.
"""

from __future__ import annotations

import argparse
import pickle
import random
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from proof.mutants import fresh
from proof.mutants.mutations import Mutant, by_hand, count, mutant
from proof.mutants.warm import ROOT, Reached, Warm

SURVIVORS, AIMED = (Path(__file__).with_name(name) for name in ("survivors.toml", "aimed.toml"))
_ROOMS = ("twinlog/model", "twinlog/log", "twinlog/consume")


def reasons() -> Mapping[str, str]:
    """Why a mutant may live, by its name."""
    return {each["mutant"]: each["reason"] for each in tomllib.loads(SURVIVORS.read_text())["survivors"]}


def aimed() -> Sequence[Mapping[str, str]]:
    """What is written down of each mutant by hand: the arguments of `by_hand`, but for the source."""
    entries: Sequence[Mapping[str, str]] = tomllib.loads(AIMED.read_text())["aimed"]
    return entries


def main() -> int:
    asked = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    asked.add_argument("--count", type=int, default=100, help="how many mutants")
    asked.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="chooses which ones; default: random"
    )
    asked.add_argument(
        "--only", default="", help="only those whose names (path, function, change) contain this"
    )
    asked.add_argument(
        "--seconds", type=float, default=20, help="of processor time: of the tests of one mutant"
    )
    asked.add_argument("--reached", type=Path, help="keeps here what the tests reach, for the next run")
    asked.add_argument("--tests", nargs="*", default=[], help="only the fast ones of these folders")
    args = asked.parse_args()
    every = [
        (str(path.relative_to(ROOT)), number)
        for room in _ROOMS
        for path in sorted((ROOT / room).glob("*.py"))
        for number in range(1, count(path.read_text()) + 1)
    ]
    sample = random.Random(args.seed).sample(every, len(every))
    living: list[str] = []
    made = 0

    def run(warm: Warm) -> None:
        nonlocal made
        reached = _reached(warm, args.reached)
        for test in reached.failing:
            print("left out, because it fails without any mutant:", test)
        for changed in _chosen(sample, args.only, args.count):
            made += 1
            notices = _notices(warm, reached, changed, args.seconds)
            if not notices:
                living.append(changed.name)
            print("noticed " if notices else "SURVIVED", changed.name, flush=True)

    print("Collecting the fast tests, and running them once to see what each of them reaches …", flush=True)
    failed = Warm(_ROOMS, run).collect(*args.tests, measure=not (args.reached and args.reached.exists()))
    excused = reasons()
    unlisted = sorted({name for name in living if name not in excused})
    print(
        f"{made} of {len(every)} mutants, seed {args.seed}: {made - len(living)} noticed, "
        f"{len(living) - len(unlisted)} excused, {len(unlisted)} neither",
        *unlisted,
        sep="\n",
    )
    return 1 if unlisted or failed or not made else 0


def _chosen(sample: Sequence[tuple[str, int]], only: str, count: int) -> Iterator[Mutant]:
    written_down = (by_hand(source=(ROOT / each["path"]).read_text(), **each) for each in aimed())
    yield from (each for each in written_down if only in each.name)
    for path, number in sample:
        if count <= 0:
            return
        changed = mutant(path, (ROOT / path).read_text(), number)
        if only in changed.name:
            count -= 1
            yield changed


def _reached(warm: Warm, kept: Path | None) -> Reached:
    if kept and kept.exists():
        return Reached(*pickle.loads(kept.read_bytes()))
    reached = warm.reached()
    if kept:
        kept.write_bytes(pickle.dumps((reached.tests, reached.seconds, reached.imported, reached.failing)))
    return reached


def _notices(warm: Warm, reached: Reached, changed: Mutant, seconds: float) -> bool:
    tests = reached.of(changed, seconds)
    if not tests:
        return False
    notices = warm.notices(changed, tests, sum(reached.seconds[test] for test in tests))
    if notices or (notices is False and (changed.path, changed.line) not in reached.imported):
        return bool(notices)
    return fresh.notices(changed, tests, reached.seconds)


if __name__ == "__main__":
    sys.exit(main())
