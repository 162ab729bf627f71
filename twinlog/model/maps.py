"""Persistent maps for states: an update gives a new map in O(log n), and the old one stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from rpds import HashTrieMap

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    Map = HashTrieMap
else:

    class Map:
        """``holds: Map[str, int]``; read like any mapping, ``insert`` and ``remove`` give a new one."""

        def __class_getitem__(cls, of: tuple[Any, Any]) -> Any:
            # rpds' class cannot be subscripted at run time, and pydantic has to know the types.
            return Annotated[HashTrieMap, _AsDict(*of)]


@dataclass(frozen=True)
class _AsDict:
    """Teaches pydantic to keep the map as a JSON object, so that states can be snapshot."""

    key: Any
    value: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # only snapshots need it

        return core_schema.no_info_after_validator_function(
            HashTrieMap,
            core_schema.dict_schema(handler.generate_schema(self.key), handler.generate_schema(self.value)),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )


EMPTY: HashTrieMap[Any, Any] = HashTrieMap()
"""The map without entries."""
