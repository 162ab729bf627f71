"""``twinlog new NAME``: a project that runs and passes its tests, from the files in ``template``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import keyword
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import twinlog
from twinlog.cli.exits import OK, Usage

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST = 40
_SUFFIX = ".tmpl"
_TAKEN = {"tests", "protos", "twinlog", "sample", "google", "grpc"}
"""What the project, its tools or its protos are called already."""
_NEEDED = ("grpc_tools", "pytest", "psutil", "watchfiles")
"""Modules of what `make test` and `make run` run."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the project's name, such as library: letters, digits, hyphens")
    parser.add_argument("--in", dest="folder", type=Path, default=Path(), help="where; default: here")
    parser.add_argument("--json", action="store_true", help="one JSON value, for programs")


def run(options: argparse.Namespace) -> int:
    package = package_of(options.name)
    root = options.folder / options.name
    if root.exists():
        raise Usage(
            f"{root} is there already, and stays as it is; choose another name, or --in another folder"
        )
    if not options.folder.is_dir():
        raise Usage(f"{options.folder} is no folder; make it first")
    try:
        written = write(root, options.name, package)
    except OSError as error:
        raise Usage(
            f"{root}: {error.strerror or error}; name a folder that can be written, by --in"
        ) from error
    wheels = _folder_of_wheel()
    install = f"PIP_FIND_LINKS={wheels} make install" if wheels else "make install"
    commands = [install, "make test", "make run"]
    if options.json:
        print(json.dumps({"folder": str(root), "files": written, "commands": commands}), flush=True)
        return OK
    print(f"Made {root} with {written} files. To run its tests and then the service:\n")
    print("\n".join(f"  {each}" for each in (f"cd {root}", *commands)))
    if all(map(_is_installed, _NEEDED)):
        print(
            "\nThis environment has what make test and make run take: while it is active, leave out make install."
        )
    return OK


def package_of(name: str) -> str:
    """The name of the project's package. Raises Usage, which says what a name may be."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise Usage(
            f"{name!r} is no name for a project: 1 to {_LONGEST} of a-z, 0-9 and single hyphens, the first a letter, "
            "such as library or book-club"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise Usage(f"{name} is a word of Python; choose another name")
    for taken in (package, f"{package}_svc"):
        if taken in _TAKEN or taken in sys.stdlib_module_names or _is_installed(taken):
            raise Usage(f"{name}: a module {taken} exists already, and would be hidden; choose another name")
    return package


def _is_installed(module: str) -> bool:
    """Whether a module of that name can be imported from anywhere but this folder."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return True
    places = (spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    here = Path.cwd().resolve()
    return any(place and Path(place).resolve().parent != here for place in places)


def _folder_of_wheel() -> str:
    """The URL of the folder with the wheel that this program was installed from; empty: from an index, or no wheel.

    Where an index does not have it, pip finds it there for the project, too.
    """
    try:
        told = distribution("twinlog").read_text("direct_url.json")  # PEP 610
    except PackageNotFoundError:
        return ""
    folder, _, file = (json.loads(told)["url"] if told else "").rpartition("/")
    return folder if folder.startswith("file:") and file.endswith(".whl") else ""


def write(root: Path, name: str, package: str) -> int:
    """Writes the project's files; gives how many."""
    count = 0
    for path, file in _templates(files("twinlog.cli") / "template"):
        target = root / filled(path, name, package)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(filled(file.read_text(encoding="utf-8"), name, package), encoding="utf-8")
        count += 1
    return count


def filled(text: str, name: str, package: str) -> str:
    """A template with the project's names in the place of ``sample``."""
    camel = "".join(word.capitalize() for word in package.split("_"))
    text = text.replace('name = "sample"\nversion', f'name = "{name}"\nversion')
    text = text.replace("TWINLOG_VERSION", twinlog.__version__)
    return text.replace("sample", package).replace("Sample", camel).replace("SAMPLE", package.upper())


def _templates(folder: Traversable, at: str = "") -> Iterator[tuple[str, Traversable]]:
    """The files of the project, each with its path there."""
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        name = entry.name.removesuffix(_SUFFIX)
        name = f".{name.removeprefix('dot.')}" if name.startswith("dot.") else name
        if entry.is_dir():
            yield from _templates(entry, f"{at}{name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{at}{name}", entry
