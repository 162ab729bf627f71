"""A persistent map for states: an update gives a new map in O(log n), and the old one stays as it is."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from rpds import HashTrieMap

K = TypeVar("K")
V = TypeVar("V")


class _AsDict:
    """Teaches pydantic to keep the map as a JSON object, so that states can be snapshot."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        keys, values = (handler.generate_schema(argument) for argument in get_args(source))
        return core_schema.no_info_after_validator_function(
            HashTrieMap,
            core_schema.dict_schema(keys, values),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )


Map = Annotated[HashTrieMap[K, V], _AsDict()]
"""``holds: Map[str, int]``; read like any mapping, ``insert`` and ``remove`` give a new one."""

EMPTY: HashTrieMap[Any, Any] = HashTrieMap()
"""The map without entries."""
