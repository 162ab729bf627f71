"""Personal fields: texts in events that are stored sealed, each with the key of the person whom it is about.

They are marked in the event's proto, and so is the field that names the person; by default that is the stream's id:

    string customer_id = 1 [(twinlog.v1.subject) = true];
    string name = 2 [(twinlog.v1.personal) = true];

A sealed text is a text too, in the same field, so whatever copies events or rows copies it as it is. It begins with
:data:`MARK`. Each text is sealed when it is written, also one that begins like a sealed one, and opened once.
"""

from __future__ import annotations

import re
import sys
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message

from twinlog.model.errors import ConfigurationError, FailedPrecondition
from twinlog.model.messages import is_repeated, message_class
from twinlog.v1 import options_pb2

MARK = "sealed:v1:"
"""What a sealed text begins with."""
MARK_BYTES = MARK.encode()
ERASED = "erased"
"""What a sealed text gives once its key is destroyed."""
KEPT_NOTHING = MARK
"""What stands for a text of a person who is erased: it was sealed with no key, and gives :data:`ERASED`."""
NONCE_BYTES = 12
_MARK_LENGTH = len(MARK)

_PACKED = Packed.DESCRIPTOR.full_name


class WrongMark(ConfigurationError):
    """{field} is marked as {mark}, and only {what} can be; unmark it, or make it one."""

    reason = "WRONG_MARK"


class NoSubject(FailedPrecondition):
    """{type} has personal fields and is part of {inside}, and does not say whose they are; mark the field that names
    the person with (twinlog.v1.subject)."""

    reason = "NO_SUBJECT"


class Cipher(Protocol):
    """Authenticated encryption with one key."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The data, encrypted; the nonce is used once."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The data. Raises ValueError, or an error of the cipher's own, where it is not of this key."""


class PersonalFields(NamedTuple):
    """Where the personal fields of a message type are."""

    type: str
    subject: str
    """The field that names the person; empty: the stream does."""
    texts: tuple[str, ...]
    lists: tuple[str, ...]
    inside: tuple[str, ...]
    """Fields of message types that have some."""
    inside_lists: tuple[str, ...]
    packed: tuple[str, ...]
    """Fields of type google.protobuf.Any, which may hold a message that has some."""
    own: bool
    """Whether the type itself has some, whatever is packed in it."""
    flat: bool
    """Whether all of them are single texts of the message itself."""


def is_personal(field: FieldDescriptor) -> bool:
    """Whether a field is marked as personal."""
    return bool(field.GetOptions().Extensions[options_pb2.personal])


@cache
def personal_fields(of: Descriptor) -> PersonalFields | None:
    """The personal fields of a message type; None where it has none. Raises WrongMark."""
    marked = [field for field in of.fields if is_personal(field)]
    subjects = [field for field in of.fields if field.GetOptions().Extensions[options_pb2.subject]]
    _refuse_wrong_marks(of, marked, subjects)
    packed = [field for field in of.fields if _type_of(field) == _PACKED]
    holding = [field for field in of.fields if field not in packed and _has_marks(field.message_type, set())]
    if not (marked or holding or packed):
        return None
    single, repeated = _names(marked), _names(marked, repeated=True)
    return PersonalFields(
        of.full_name,
        subjects[0].name if subjects else "",
        single,
        repeated,
        _names(holding),
        _names(holding, repeated=True),
        _names(packed),
        own=_has_marks(of, set(), packed=False),
        flat=not (repeated or holding or packed),
    )


def _refuse_wrong_marks(
    of: Descriptor, marked: Sequence[FieldDescriptor], subjects: Sequence[FieldDescriptor]
) -> None:
    for field in (*marked, *subjects):
        if field.type != FieldDescriptor.TYPE_STRING:
            raise WrongMark(field=field.full_name, mark="personal or subject", what="a string")
    if len(subjects) > 1 or any(map(is_repeated, subjects)):
        raise WrongMark(field=of.full_name, mark="subject", what="one single string of a message")
    for field in of.fields:
        inside = field.message_type
        if inside is not None and inside.GetOptions().map_entry and _has_marks(inside, set()):
            raise WrongMark(field=field.full_name, mark="personal", what="a text that is in no map")


def _type_of(field: FieldDescriptor) -> str:
    return field.message_type.full_name if field.message_type is not None else ""


def _names(fields: Sequence[FieldDescriptor], *, repeated: bool = False) -> tuple[str, ...]:
    return tuple(field.name for field in fields if is_repeated(field) is repeated)


def _has_marks(of: Descriptor | None, seen: set[str], *, packed: bool = True) -> bool:
    """Whether a type has marked fields, or any inside its fields; ``packed``: or a field where anything may be."""
    if of is None or of.full_name in seen:
        return False
    seen.add(of.full_name)
    return any(
        is_personal(field)
        or (packed and _type_of(field) == _PACKED)
        or _has_marks(field.message_type, seen, packed=packed)
        for field in of.fields
    )


def imported_files() -> list[FileDescriptor]:
    """The proto files of every generated module that is imported."""
    # By the name that protoc gives them: each service of each simulated run looks, and most modules are no such ones.
    generated = [module for name, module in list(sys.modules.items()) if name.endswith("_pb2")]
    files = {
        id(file): file
        for module in generated
        if isinstance(file := vars(module).get("DESCRIPTOR"), FileDescriptor)
    }
    return list(files.values())


def personal_types() -> list[str]:
    """The message types with personal fields of every generated module that is imported, by full name."""
    options = options_pb2.DESCRIPTOR.name
    marking = [file for file in imported_files() if any(each.name == options for each in file.dependencies)]
    types = {
        each.full_name: fields
        for file in marking
        for each in _all_types(file)
        if (fields := personal_fields(each)) and fields.own
    }
    OWN_TYPES.add(*types)
    return sorted(types)


def _all_types(of: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    types = of.message_types_by_name.values() if isinstance(of, FileDescriptor) else of.nested_types
    for each in types:
        yield each
        yield from _all_types(each)


class _ByName(dict[str, PersonalFields | None]):
    """The personal fields of message types by full name; None also for a type that this process does not know."""

    def __missing__(self, name: str) -> PersonalFields | None:
        try:
            found = self[name] = personal_fields(message_class(name).DESCRIPTOR)
        except KeyError:
            return None  # its module may be imported yet
        if found and found.own:
            OWN_TYPES.add(name)
        return found


class _OwnTypes:
    """The types that are known to have personal fields of their own; ``found_in`` finds the name of one in bytes."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self.found_in: Callable[[bytes], object] = re.compile(b"(?!)").search

    def __bool__(self) -> bool:
        return bool(self._names)

    def add(self, *names: str) -> None:
        if not self._names.issuperset(names):
            self._names.update(names)
            self.found_in = re.compile(b"|".join(re.escape(name.encode()) for name in self._names)).search


OWN_TYPES = _OwnTypes()
"""What is packed in another message is of a type that was handled by itself before, or was there at the start."""
FIELDS_OF: dict[str, PersonalFields | None] = _ByName()


def has_own(type: str) -> bool:
    """Whether a message type has personal fields, whatever is packed in it."""
    fields = FIELDS_OF[type]
    return fields is not None and fields.own


HOLDING: set[str] = set()
"""The types of streams that this process has seen to hold personal fields."""


def holds_personal(type: str, payload: bytes) -> bool:
    """Whether an event may hold personal fields, sealed or opened, of its own or in what is packed in it."""
    fields = FIELDS_OF[type]
    if fields is not None and (fields.own or OWN_TYPES.found_in(payload)):
        return True
    return MARK_BYTES in payload


def change_texts(message: Message, stream: str, change: Callable[[str, str], str]) -> None:
    """Replaces the personal texts of a message: ``change`` gives each, from the person and the text as it is.

    ``stream``: the id of the event's stream. A text that is empty stays so. Raises NoSubject.
    """
    fields = FIELDS_OF[message.DESCRIPTOR.full_name]
    if fields is None:
        return
    subject = (getattr(message, fields.subject) if fields.subject else "") or stream
    for name in fields.texts:
        if text := getattr(message, name):
            setattr(message, name, change(subject, text))
    if not fields.flat:
        _change_inside(message, fields, subject, change)


def _change_inside(
    message: Any, fields: PersonalFields, subject: str, change: Callable[[str, str], str]
) -> None:
    for name in fields.lists:
        texts = getattr(message, name)
        texts[:] = [change(subject, text) if text else text for text in texts]
    for name in fields.inside:
        if message.HasField(name):
            change_texts(getattr(message, name), subject, change)
    for name in fields.inside_lists:
        for part in getattr(message, name):
            change_texts(part, subject, change)
    for name in fields.packed:
        if message.HasField(name):
            _change_packed(getattr(message, name), fields.type, change)


def _change_packed(packed: Packed, inside: str, change: Callable[[str, str], str]) -> None:
    fields = FIELDS_OF[packed.TypeName()]
    if fields is None:
        return
    try:
        part = message_class(packed.TypeName()).FromString(packed.value)
    except (KeyError, DecodeError):
        return
    if fields.own and not (fields.subject and getattr(part, fields.subject)):
        raise NoSubject(type=fields.type, inside=inside)
    change_texts(part, "", change)
    packed.value = part.SerializeToString(deterministic=True)


def persons_in(message: Message, stream: str) -> Collection[str]:
    """The persons whom the personal texts of a message are about. Raises NoSubject."""
    fields = FIELDS_OF[message.DESCRIPTOR.full_name]
    if fields is None:
        return ()
    if fields.flat:
        if not any([getattr(message, name) for name in fields.texts]):
            return ()
        return ((getattr(message, fields.subject) if fields.subject else "") or stream,)
    return {subject for subject, _ in texts_in(message, stream)}


def texts_in(message: Message, stream: str) -> Iterator[tuple[str, str]]:
    """The personal texts of a message as they are, each with the person whom it is about. Raises NoSubject."""
    found: list[tuple[str, str]] = []

    def note(subject: str, text: str) -> str:
        found.append((subject, text))
        return text

    change_texts(message, stream, note)
    return iter(found)


def seal(cipher: Cipher, nonce: bytes, subject: str, text: str) -> str:
    """A text, sealed for a person."""
    data = nonce + cipher.encrypt(nonce, text.encode(), _about(subject))
    return MARK + b2a_base64(data, newline=False).decode()


def unseal(cipher: Cipher, subject: str, sealed: str) -> str | None:
    """The text that was sealed; None for a text that was sealed with another key, or not at all."""
    if not sealed.startswith(MARK):
        return None
    try:
        data = a2b_base64(sealed[_MARK_LENGTH:], strict_mode=True)
        return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _about(subject)).decode()
    except ValueError:  # no base64, or too short to be sealed
        return None
    except Exception as error:  # the cipher's own, such as InvalidTag
        if type(error).__name__ != "InvalidTag":
            raise
        return None


def _about(subject: str) -> bytes:
    return b"twinlog.v1\0" + subject.encode()
