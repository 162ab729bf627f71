"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinlog.model.messages import as_object

_PIPE_COLUMNS = 200
"""Columns of a table that no terminal limits."""


def console() -> Console:
    """The terminal, or a wide page where there is none."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def plain(value: object) -> Text:
    """A text as it is: markup and control characters that others wrote are only shown."""
    text = str(value)
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> Table:
    """A table; columns in ``right`` have numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in right
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    return made


def line(text: object, style: str = "") -> Text:
    """A line of others' text, in a style of ours."""
    shown = plain(text)
    shown.stylize(style)
    return shown


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Prints a value as JSON, at once; where characters may be lacking, it is written in ASCII."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=not unicode, indent=None if one_line else 2)
    print(text, flush=True)


def as_dict(message: Message) -> dict[str, Any]:
    """A message as JSON has it, with every field, and 64-bit integers as numbers."""
    made: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.name in made and field.type == field.TYPE_INT64:
            made[field.name] = value
        elif field.name in made and field.message_type and (shown := _shown_by(field.message_type)):
            many = isinstance(made[field.name], list)
            made[field.name] = [shown(each) for each in value] if many else shown(value)
    return made


def _shown_by(type: Any) -> Callable[[Any], Any] | None:
    """What shows messages of a type in its own way; None: protobuf's JSON does."""
    if type.full_name == Struct.DESCRIPTOR.full_name:
        return as_object
    ours = type.full_name.startswith("twinlog.") and not type.GetOptions().map_entry
    return as_dict if ours else None
