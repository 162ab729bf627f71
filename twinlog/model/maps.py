"""Persistent maps for states: an update returns a new map in O(log n), and the old one stays as it was."""

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
        """``holds: Map[str, int]``: read like any mapping; ``insert`` and ``remove`` return a new one."""

        def __class_getitem__(cls, of: tuple[Any, Any]) -> Any:
            # The class of rpds cannot be subscripted at run time, and pydantic needs the types.
            return Annotated[HashTrieMap, _AsDict(*of)]


@dataclass(frozen=True)
class _AsDict:
    """Makes pydantic store the map as a JSON object, so that states with maps can have snapshots."""

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
"""The empty map."""
