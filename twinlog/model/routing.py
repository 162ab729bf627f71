"""Routing keys: what consumers can filter events by, besides their type.

A routing key is declared in the event's proto: on one field of an enum type, or once for all events of the type.

    SagaMode saga_mode = 3 [(twinlog.v1.tag) = true];
    option (twinlog.v1.tagged) = "customer_svc";

It is stored with the event, and is the last token of the twin's subject: a consumer that wants one routing key is sent
only events that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from twinlog.v1 import options_pb2

NO_ROUTING_KEY = "-"
"""The routing key of an event that declares none."""


def routing_key_of(message: Message) -> str:
    """The routing key of a message."""
    rule = rule_of(message.DESCRIPTOR)
    return rule.names[getattr(message, rule.field)] if rule.field else rule.fixed


def has_routing_key(of: type[Message]) -> bool:
    """Whether a message type declares a routing key."""
    rule = rule_of(of.DESCRIPTOR)
    return bool(rule.field) or rule.fixed != NO_ROUTING_KEY


def may_have_routing_key(of: type[Message], routing_key: str) -> bool:
    """Whether messages of a type can have this routing key."""
    rule = rule_of(of.DESCRIPTOR)
    return routing_key in rule.names.values() if rule.field else rule.fixed == routing_key


class RoutingRule(NamedTuple):
    """Where the routing key of a type's messages comes from."""

    type: str
    """The full name of the type."""
    field: str = ""
    """The enum field; empty if all messages of the type have the same key."""
    names: Mapping[int, str] = {}
    """The names of the enum's values."""
    decided: Mapping[int, str] = {}
    """The same for an event that is decided here."""
    fixed: str = NO_ROUTING_KEY


class _Names(dict[int, str]):
    """The names of an enum's values; a value that only a newer version knows is named by its number."""

    def __missing__(self, number: int) -> str:
        return str(number)


class _DecidedNames(dict[int, str]):
    """The names of an enum's values. An event under a number would reach nobody: a newer consumer asks by name."""

    def __missing__(self, number: int) -> str:
        raise ValueError(f"a value of its routing key, {number}, is unknown to this program")


@cache
def rule_of(of: Descriptor) -> RoutingRule:
    """The rule of a type; looked up for every event that is decided, so it is kept."""
    for field in of.fields:
        if field.GetOptions().Extensions[options_pb2.tag]:
            assert field.enum_type is not None, f"{field.full_name}: a routing key is an enum"
            names = _Names((value.number, value.name) for value in field.enum_type.values)
            return RoutingRule(of.full_name, field.name, names, _DecidedNames(names))
    return RoutingRule(of.full_name, fixed=of.GetOptions().Extensions[options_pb2.tagged] or NO_ROUTING_KEY)
