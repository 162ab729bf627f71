"""``make mutants``: changes the library in small ways, one at a time; the fast tests that reach a change must notice.

Those in aimed.toml come first, then a sample of all that there are. A mutant that survives stands in survivors.toml
with the reason, or fails the run. A run that is ended early, or by its bound in time, is gone on with by the same
SEED, as long as neither code nor tests have changed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from proof.mutants import fresh
from proof.mutants.kept import Kept
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
    args = _arguments()
    every = [
        (str(path.relative_to(ROOT)), number)
        for room in args.rooms
        for path in sorted((ROOT / room).glob("*.py"))
        for number in range(1, count(path.read_text()) + 1)
    ]
    by_hands = [by_hand(source=(ROOT / each["path"]).read_text(), **each) for each in aimed()]
    sample = random.Random(args.seed).sample(every, len(every))
    kept = Kept(args.keep, args.rooms, args.tests, args.seconds)
    found: dict[str, bool] = {}
    wanted = "some" if args.only else len(by_hands) + min(args.count, len(every))

    def run(warm: Warm) -> None:
        reached = _reached(warm, kept)
        for test in reached.failing:
            print("left out, because it fails without any mutant:", test)
        began = time.monotonic()
        for number, changed in enumerate(_chosen(by_hands, sample, args.only, args.count), 1):
            minutes = (time.monotonic() - began) / 60
            if changed.name not in kept.noticed:
                if minutes > args.minutes:
                    print(f"Its {args.minutes:g} minutes are over: SEED={args.seed} goes on here.")
                    return
                kept.keep_found(changed.name, _notices(warm, reached, changed, args.seconds))
            found[changed.name] = kept.noticed[changed.name]
            said = "noticed " if found[changed.name] else "SURVIVED"
            print(f"{number} of {wanted}, {minutes:.0f} min: {said} {changed.name}", flush=True)

    print("Collecting the fast tests, and running them once to see what each of them reaches …", flush=True)
    failed = Warm(args.rooms, run).collect(*args.tests, measure=not kept.reached())
    unlisted = _summarize(found, f"{len(found)} of {len(every)} mutants, seed {args.seed}")
    return 1 if unlisted or failed or not found else 0


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    asked.add_argument("--count", type=int, default=100, help="how many mutants, beside those by hand")
    asked.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="chooses which ones; default: random"
    )
    asked.add_argument(
        "--only", default="", help="only those whose names (path, function, change) contain this"
    )
    asked.add_argument(
        "--minutes", type=float, default=60, help="begins with no other mutant after so many; default: 60"
    )
    asked.add_argument(
        "--seconds", type=float, default=20, help="of processor time: of the tests of one mutant"
    )
    asked.add_argument("--rooms", nargs="*", default=_ROOMS, help=f"of these folders; default: {_ROOMS}")
    asked.add_argument("--tests", nargs="*", default=[], help="only the fast ones of these folders")
    asked.add_argument(
        "--keep", type=Path, default=ROOT / ".data/mutants", help="where the next run finds what this one did"
    )
    return asked.parse_args()


def _summarize(found: Mapping[str, bool], of: str) -> Sequence[str]:
    """Prints what became of the mutants. Gives those that live without a reason."""
    excused = reasons()
    living = {name for name, is_noticed in found.items() if not is_noticed}
    unlisted = sorted(living - {*excused})
    print(
        f"{of}: {len(found) - len(living)} noticed, {len(living) - len(unlisted)} excused, {len(unlisted)} neither",
        *unlisted,
        sep="\n",
    )
    for name in sorted({*excused} & {name for name, is_noticed in found.items() if is_noticed}):
        print("excused, though it is noticed:", name)
    return unlisted


def _chosen(
    by_hands: Sequence[Mutant], sample: Sequence[tuple[str, int]], only: str, count: int
) -> Iterator[Mutant]:
    yield from (each for each in by_hands if only in each.name)
    for path, number in sample:
        if count <= 0:
            return
        changed = mutant(path, (ROOT / path).read_text(), number)
        if only in changed.name:
            count -= 1
            yield changed


def _reached(warm: Warm, kept: Kept) -> Reached:
    if reached := kept.reached():
        return reached
    reached = warm.reached()
    kept.keep_reached(reached)
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
