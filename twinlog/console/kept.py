"""What a page knew last, for as long as a service is silent; a few of them, and lost with the console."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from twinlog.console.services import Services

T = TypeVar("T")
_MOST = 50


class Kept(Generic[T]):
    """Models of one page, by their paths."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Services, OrderedDict[str, T]] = WeakKeyDictionary()

    def keep(self, services: Services, path: str, model: T) -> T:
        """Keeps a model, and gives it back."""
        kept = self._kept.setdefault(services, OrderedDict())
        kept[path] = model
        kept.move_to_end(path)
        while len(kept) > _MOST:
            kept.popitem(last=False)
        return model

    def get(self, services: Services, path: str) -> T | None:
        """The model that was kept last; None: there is none."""
        return self._kept.get(services, OrderedDict()).get(path)
