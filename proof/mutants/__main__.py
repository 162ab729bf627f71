"""``make mutants``: changes the library in small ways, one at a time; the fast tests that reach a change must notice.

A mutant that survives stands in survivors.toml with the reason, or fails the run.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from coverage import CoverageData

from proof.mutants.mutations import Mutant, count, mutant

_ROOT = Path(__file__).parents[2]
_LIST = Path(__file__).with_name("survivors.toml")
_ROOMS = ("twinlog/model", "twinlog/log", "twinlog/consume")
_TEST_TIMEOUT_SECONDS, _MUTANT_TIMEOUT_SECONDS = 30, 300
_NOT_COPIED = shutil.ignore_patterns(
    ".*cache*", ".git", ".venv*", ".data", "__pycache__", ".hypothesis", "dist"
)


def main() -> int:
    asked = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    asked.add_argument("--count", type=int, default=100, help="how many mutants")
    asked.add_argument("--seed", type=int, default=random.randrange(10**6), help="which ones")
    asked.add_argument("--only", default="", help="only of modules whose paths contain this")
    asked.add_argument("--processes", type=int, default=2, help="how many at a time")
    args = asked.parse_args()
    reasons = {each["mutant"]: each["reason"] for each in tomllib.loads(_LIST.read_text())["survivors"]}
    paths = [
        path for room in _ROOMS for path in sorted((_ROOT / room).glob("*.py")) if args.only in str(path)
    ]
    sources = {str(path.relative_to(_ROOT)): path.read_text() for path in paths}
    every = [(path, number) for path, text in sources.items() for number in range(1, count(text) + 1)]
    sample = random.Random(args.seed).sample(every, min(args.count, len(every)))
    chosen = [mutant(path, sources[path], number) for path, number in sample]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [_copy(Path(folder) / str(number)) for number in range(args.processes)]
        survivors = _survivors(chosen, trees, _reached(trees[0], args.processes))
    unlisted = sorted({name for name in survivors if name not in reasons})
    print(
        f"{len(chosen)} of {len(every)} mutants, seed {args.seed}: {len(chosen) - len(survivors)} noticed, "
        f"{len(survivors) - len(unlisted)} excused, {len(unlisted)} neither",
        *unlisted,
        sep="\n",
    )
    return 1 if unlisted else 0


def _copy(tree: Path) -> Path:
    shutil.copytree(_ROOT, tree, ignore=_NOT_COPIED)
    (tree / ".venv").symlink_to((_ROOT / ".venv").resolve())
    return tree


def _pytest(tree: Path, *arguments: str, timeout: float | None = None) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "fast", "-p", "no:cacheprovider", *arguments]
    with (tree / "pytest.log").open("w") as log:
        return subprocess.run(
            command, cwd=tree, stdout=log, stderr=log, timeout=timeout, check=False
        ).returncode


def _reached(tree: Path, processes: int) -> Mapping[tuple[str, int], Sequence[str]]:
    """The tests that run a line of a module, those first that do the least else; as line 0: any line of it."""
    print("Running the fast tests, to see which lines each of them reaches …", flush=True)
    rooms = [f"--cov={room}" for room in _ROOMS]
    if _pytest(tree, "-n", str(processes), *rooms, "--cov-context=test", "--cov-report=") > 1:
        sys.exit((tree / "pytest.log").read_text())
    failing = set(re.findall(r"^FAILED ([^\[\s]+)", (tree / "pytest.log").read_text(), re.MULTILINE))
    for test in failing:
        print("left out, because it fails without any mutant:", test)
    data = CoverageData(str(tree / ".coverage"))
    data.read()
    reached: dict[tuple[str, int], set[str]] = {}
    for file in data.measured_files():
        path = str(Path(file).relative_to(tree))
        for line, contexts in data.contexts_by_lineno(file).items():
            tests = {context.partition("|")[0].partition("[")[0] for context in contexts} - {"", *failing}
            reached[path, line] = tests
            reached.setdefault((path, 0), set()).update(tests)
    lines = Counter(test for tests in reached.values() for test in tests)
    return {at: sorted(tests, key=lambda test: lines[test]) for at, tests in reached.items()}


def _survivors(
    chosen: Sequence[Mutant], trees: Sequence[Path], reached: Mapping[tuple[str, int], Sequence[str]]
) -> Sequence[str]:
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def survives(mutant: Mutant) -> bool:
        tests = reached.get((mutant.path, mutant.line)) or reached.get((mutant.path, 0), ())
        tree = free.get()
        try:
            survived = not tests or _passes(tree, mutant, tests)
        finally:
            free.put(tree)
        print("SURVIVED" if survived else "noticed ", mutant.name, flush=True)
        return survived

    with ThreadPoolExecutor(len(trees)) as pool:
        return [each.name for each, lives in zip(chosen, pool.map(survives, chosen), strict=True) if lives]


def _passes(tree: Path, mutant: Mutant, tests: Sequence[str]) -> bool:
    file = tree / mutant.path
    sound = file.read_text()
    # Within a second, Python takes a compiled file for that of a newer source of the same size.
    compiled = Path(importlib.util.cache_from_source(str(file)))
    try:
        file.write_text(mutant.source)
        compiled.unlink(missing_ok=True)
        quick = ("-x", f"--timeout={_TEST_TIMEOUT_SECONDS}", *tests)
        return _pytest(tree, *quick, timeout=_MUTANT_TIMEOUT_SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        file.write_text(sound)
        compiled.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
