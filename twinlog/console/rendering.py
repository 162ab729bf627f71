"""Pages as HTML: Jinja2 with autoescaping, where a name that is missing is an error."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shlex
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import BytecodeCache, ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup, escape

from twinlog.console.dead_letters import advice
from twinlog.console.lanes import anchor, cut_end
from twinlog.console.rates import rate
from twinlog.console.reading import moment_in
from twinlog.console.saga_words import saga_state, step_state
from twinlog.model.messages import as_object

HERE = Path(__file__).parent
_MOST_ONCE = 4_000
_LINE = 240
_UUID = re.compile(r"\b([0-9a-f]{8})-(?:[0-9a-f]{4}-){3}[0-9a-f]{8}([0-9a-f]{4})\b", re.IGNORECASE)
STATIC = HERE / "static"


class _Compiled(BytecodeCache):
    """Templates that this process has compiled: it takes half a second, and any further console has them at once."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fills the bucket, unless the template's source is another one than then."""
        if code := self._code.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


def environment(folders: Sequence[Path] = ()) -> Environment:
    """Templates of the console and of other folders."""
    made = Environment(
        loader=ChoiceLoader([FileSystemLoader(each) for each in (HERE / "templates", *folders)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        bytecode_cache=_COMPILED,
    )
    made.filters |= {
        "advice": advice,
        "ago": partial(_time, kind="ago"),
        "at_hand": at_hand,
        "anchor": anchor,
        "count": count,
        "instant": instant,
        "cut": cut,
        "json": as_json,
        "line": line,
        "moment": partial(_time, kind="at"),
        "rate": rate,
        "saga_state": saga_state,
        "short": short,
        "step_state": step_state,
        "text": text,
        "until": partial(_time, kind="until"),
    }
    made.globals |= {"static": static, "once": once(), "shell": shell, "grpcurl": grpcurl, "at_each": at_each}
    for name in made.list_templates():
        made.get_template(name)  # compiled now: a first reader does not wait for it
    for name in (STYLES, "console.js"):
        compressed(name)
    return made


def once() -> Callable[..., Markup]:
    """For templates: ``{% call once("row", id) %}…{% endcall %}`` renders what depends on nothing but these once."""
    made: OrderedDict[tuple[object, ...], Markup] = OrderedDict()

    def render(*key: object, caller: Callable[[], Markup]) -> Markup:
        if key not in made:
            made[key] = caller()
            if len(made) > _MOST_ONCE:
                made.popitem(last=False)
        return made[key]

    return render


STYLES = "console.css"
"""All styles in one file, so that a first paint waits for one."""


@cache
def _contents() -> Mapping[str, bytes]:
    files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir()) if path.is_file()}
    pages = [held for name, held in files.items() if name.endswith(".css") and name != STYLES]
    return {**files, STYLES: b"\n".join((files[STYLES], *pages))}


def content(name: str) -> bytes | None:
    """A file of the console, or None; its styles come with those of its pages."""
    return _contents().get(name)


@cache
def compressed(name: str) -> bytes:
    """A file's content, as a browser may take it: compressed once, not for each reader."""
    return gzip.compress(content(name) or b"", 9, mtime=0)


@cache
def static(name: str) -> str:
    """The URL of a file, by its content, so browsers may keep it for good."""
    return f"/static/{hashlib.sha256(content(name) or b'').hexdigest()[:12]}/{name}"


def instant(text: str) -> str:
    """A time of a URL in UTC, whole, so that the browser shows it in its own zone; any other text as it is."""
    if "/" in text or not {":", "-"} & set(text):
        return text
    try:
        at = moment_in(text)
    except ValueError:
        return text
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else ""


def _time(at: datetime | Timestamp | None, kind: str) -> Markup:
    """A moment; ``kind``: ``at``, in the reader's time zone where there is JavaScript, else in UTC; or ``ago`` or
    ``until``, how long since then or until then, which the browser counts on."""
    if isinstance(at, Timestamp):
        at = at.ToDatetime(UTC) if at.seconds else None
    if at is None:
        return Markup('<span class="muted">–</span>')
    at = at.astimezone(UTC)
    iso = at.isoformat(timespec="milliseconds")
    return Markup('<time datetime="{}" data-time="{}" title="{}">{}</time>').format(
        iso, kind, iso, _words(at, kind)
    )


def _words(at: datetime, kind: str) -> str:
    """What a browser without JavaScript shows; with it, it writes the same in its own time zone, and counts on."""
    now = datetime.now(UTC)
    if kind == "at":
        return (
            at.strftime("%H:%M:%S" if at.date() == now.date() else "%Y-%m-%d %H:%M:%S")
            + f".{at.microsecond // 1000:03}"
        )
    seconds = (now - at if kind == "ago" else at - now).total_seconds()
    words = _lasting(max(0.0, seconds))
    return f"{words} ago" if kind == "ago" else f"in {words}"


def _lasting(seconds: float) -> str:
    for name, unit in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"


def count(number: float) -> str:
    """A whole number with spaces between thousands that do not break."""
    return f"{int(number):,}".replace(",", "\u202f")


def cut(text: str, most: int) -> str:
    """A text of at most so many characters; what it loses is lost in its middle, since ids differ at their ends."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}…{text[-end:]}"


def short(type: str) -> str:
    return type.rpartition(".")[2]


def shell(*words: object) -> str:
    """A command for a terminal, to be pasted: whatever an id or a name holds stays one word of it."""
    return shlex.join(map(str, words))


def grpcurl(address: str, method: str, /, **request: str) -> str:
    """A command that calls a method, such as twinlog.v1.InspectionService/GetStream, with these fields."""
    data = ("-d", json.dumps(request)) if request else ()
    return shell("grpcurl", "-plaintext", *data, address, method)


def at_each(addresses: Sequence[str]) -> list[str]:
    """The words that name several services to the twinlog command."""
    return [word for address in addresses for word in ("--at", address)]


def at_hand(command: str) -> str:
    """A command as it is copied: with the path of its program where only this environment has it.

    A checkout has no program twinlog: there it is a module, found from the checkout's folder.
    """
    name, space, rest = command.partition(" ")
    if shutil.which(name):
        return command
    here = Path(sys.executable).with_name(name)
    if here.exists():
        return f"{shell(here)}{space}{rest}"
    return f"{shell(sys.executable, '-m', name)}{space}{rest}" if name == "twinlog" else command


def line(value: Message) -> str:
    """A message on one line, as short as can be read, for lists: ids leave room for what differs more."""
    whole = ", ".join(f"{name}: {_brief(each)}" for name, each in as_object(value).items())
    return cut_end(_UUID.sub(r"\1…\2", whole), _LINE)


def text(value: Message) -> str:
    """A message as JSON, to be copied."""
    return json.dumps(as_object(value), ensure_ascii=False, indent=2)


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_json(value: Any) -> Markup:
    """A value or a message as JSON for people, its parts marked for color."""
    if isinstance(value, Message):
        value = as_object(value)
    lines = json.dumps(value, ensure_ascii=False, indent=2).splitlines()
    return Markup("\n").join(_json_line(line) for line in lines)


def _json_line(line: str) -> Markup:
    indent = line[: len(line) - len(line.lstrip())]
    body = line.lstrip()
    name, value = "", body
    if body.startswith('"'):
        _, end = json.JSONDecoder().raw_decode(body)
        if body[end : end + 2] == ": ":
            name, value = body[:end], body[end + 2 :]
    comma = "," if value.endswith(",") else ""
    value = value.removesuffix(",")
    kind = "s" if value.startswith('"') else "p" if value[:1] in "{}[]" else "n"
    shown = Markup('<span class="j-{}">{}</span>').format(kind, value) if kind != "p" else escape(value)
    key = Markup('<span class="j-k">{}</span>: ').format(name) if name else Markup("")
    return escape(indent) + key + shown + comma
