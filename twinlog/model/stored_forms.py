"""The form in which messages of a type are stored: what a later program has to read them by.

Fields only come. A field keeps its number, name, type, label and the mark that it is personal; a type keeps its routing
key and who its subject is; a value of an enum keeps its number. Each form is a flat mapping of texts, so that what
programs of several versions know of a type is the union of theirs: an older one lacks what a newer one has added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

from twinlog.model.personal import is_personal, personal_fields
from twinlog.model.routing import rule_of
from twinlog.model.upcasts import kind_of

Form = Mapping[str, str]
"""Of a message: by the number of a field, its name and type. Of an enum: by the name of a value, its number."""

Named = tuple[str, str]
"""A kind, such as :data:`MESSAGE`, and a full name."""

MESSAGE, ENUM = "message", "enum"
_PERSONAL, _SUBJECT, _ROUTING_KEY = "personal", "subject", "routing key"
_OF_OTHERS = ("google.", "grpc.", "twinlog.")
"""Packages whose messages are kept as they are by those who make them."""


def forms(of: Iterable[FileDescriptor]) -> dict[Named, Form]:
    """The forms of the messages and enums of proto files, such as :func:`twinlog.model.personal.imported_files`.

    Those that methods take or return are no events, and go by the rules of their clients.
    """
    files = [each for each in of if not f"{each.package}.".startswith(_OF_OTHERS)]
    found: dict[Named, Form] = {}
    for file in files:
        found.update(_of_file(file))
    for asked in {name for file in files for name in _of_methods(file)}:
        found.pop((MESSAGE, asked), None)
    return found


@cache
def _of_file(file: FileDescriptor) -> dict[Named, Form]:
    found = {(ENUM, each.full_name): _of_enum(each) for each in file.enum_types_by_name.values()}
    for message in file.message_types_by_name.values():
        found.update(_of_message(message))
    return found


@cache
def _of_methods(file: FileDescriptor) -> frozenset[str]:
    methods = [method for service in file.services_by_name.values() for method in service.methods]
    return frozenset(each.full_name for of in methods for each in (of.input_type, of.output_type))


def _of_message(of: Descriptor) -> Iterator[tuple[Named, Form]]:
    form = {str(field.number): f"{field.name} {kind_of(field)}" for field in of.fields}
    form |= {f"{field.number} {_PERSONAL}": "yes" for field in of.fields if is_personal(field)}
    if (personal := personal_fields(of)) and personal.own:
        form[_SUBJECT] = personal.subject or "the stream's id"
    rule = rule_of(of)
    form[_ROUTING_KEY] = f"field {rule.field}" if rule.field else rule.fixed
    yield (MESSAGE, of.full_name), form
    for enum in of.enum_types:
        yield (ENUM, enum.full_name), _of_enum(enum)
    for nested in of.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _of_message(nested)


def _of_enum(of: EnumDescriptor) -> Form:
    return {value.name: str(value.number) for value in of.values}


def changes(kept: Form, now: Form) -> list[str]:
    """What would be read otherwise than it was stored, in words. What only one of the two has is no change."""
    return [*_of_numbers(kept, now)] if _ROUTING_KEY in kept else [*_of_values(kept, now)]


def _of_numbers(kept: Form, now: Form) -> Iterator[str]:
    place = {now[part].partition(" ")[0]: part for part in now if part.isdigit()}
    for part, before in kept.items():
        after = now.get(part)
        name = before.partition(" ")[0]
        if part.isdigit() and place.get(name, part) != part:
            yield f"field {name} was number {part} and is {place[name]}"
        elif part.isdigit() and after not in (None, before):
            yield f"field {part} was `{before}` and is `{after}`"
        elif part.endswith(f" {_PERSONAL}") and after is None and (number := part.partition(" ")[0]) in now:
            yield (
                f"field {now[number].partition(' ')[0]} was marked as personal and is not, so that its sealed texts "
                f"would be taken for plain ones"
            )
        elif part == _SUBJECT and after not in (None, before):
            yield f"its personal fields were those of `{before}` and are those of `{after}`, whose key opens none"
        elif part == _ROUTING_KEY and after != before:
            yield (
                f"its routing key was `{before}` and is `{after}`, and consumers are sent events by the key that they "
                f"were stored with"
            )


def _of_values(kept: Form, now: Form) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for name, number in now.items():
        names.setdefault(number, []).append(name)
    for name, number in kept.items():
        if now.get(name, number) != number:
            yield f"value {name} was {number} and is {now[name]}"
        elif name not in now and number in names and not any(each in kept for each in names[number]):
            yield f"value {number} was called {name} and is called {names[number][0]}"


def holders(of: str, forms: Mapping[Named, Form]) -> set[str]:
    """The message types that have a message or an enum somewhere inside, and the message itself."""
    found = {of}
    while more := {name for (_, name), form in forms.items() if name not in found and parts(form) & found}:
        found |= more
    return found


def parts(form: Form) -> set[str]:
    """The names of the messages and enums that a message's fields are of, and of its other types."""
    return {text.rpartition(" ")[2] for part, text in form.items() if part.isdigit()}
