"""The keys of persons that one process has in memory, and who is known to be erased."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import TypeVar

from twinlog._aio.reasons import reason
from twinlog._aio.retrying import Retrying
from twinlog.log import say
from twinlog.log.keys import Keys, KeysUnavailable, cipher
from twinlog.model.errors import Unavailable
from twinlog.model.personal import Cipher

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""How often a process asks whose keys were destroyed."""
TRUSTED_SECONDS = 5.0
"""Keys are forgotten once the store was out of reach for so long: by then no process has a destroyed one."""
_WITHIN = timedelta(minutes=10)
EVERYBODY = ""
"""Stands for all persons, when it is no longer known who was erased meanwhile."""


class KnownKeys:
    """Reads keys when they are needed, and keeps them for as long as nobody destroys them."""

    def __init__(self, keys: Keys, most: int) -> None:
        """``most``: how many are kept."""
        self._keys = keys
        self._most = most
        self._ciphers: OrderedDict[str, Cipher | None] = OrderedDict()
        """By person; None: erased."""
        self._confirmed = 0.0
        """When it was last known who is erased, by the loop's time."""
        self.on_erased: list[Callable[[str], None]] = []
        """Called with each person whose key turns out to be destroyed, and with EVERYBODY if the store could not be
        asked."""
        self._retrying = Retrying(
            say_failing=say.warning("keys.unavailable"),
            say_working=say.info("keys.available"),
            on=(Unavailable,),
        )

    @property
    def problem(self) -> str | None:
        """Why keys cannot be read at the moment, or None."""
        return self._retrying.problem

    @property
    def cached(self) -> int:
        """How many keys are in memory."""
        return len(self._ciphers)

    async def ciphers(self, subjects: Iterable[str], *, make: bool = False) -> Mapping[str, Cipher | None]:
        """The ciphers of persons; None: erased. A person who never had a key has no entry, unless one is made.

        Raises KeysUnavailable.
        """
        cache, found, missing = self._ciphers, {}, []
        now = asyncio.get_running_loop().time()
        self.doubt()
        for subject in subjects:
            if subject in cache:
                found[subject] = cache[subject]
                cache.move_to_end(subject)
            else:
                missing.append(subject)
        if not missing:
            return found
        if not cache:
            self._confirmed = now
        keys = self._keys
        read = await self._ask(lambda: keys.get_or_make(missing) if make else keys.get(missing))
        for subject, key in read.items():
            # An answer may be older than what became known while it was on its way.
            if key is None or self._is_erased(subject):
                found[subject] = cache[subject] = None
            else:
                found[subject] = cache[subject] = cipher(key)
        while len(cache) > self._most:
            cache.popitem(last=False)
        return found

    @staticmethod
    async def _ask(question: Callable[[], Awaitable[T]]) -> T:
        try:
            return await question()
        except KeysUnavailable:
            raise
        except (Unavailable, TimeoutError) as error:
            raise KeysUnavailable(why=reason(error)) from error

    async def destroy(self, subject: str) -> bool:
        """Destroys a person's key for good; returns whether there was one. Raises KeysUnavailable."""
        was = await self._ask(lambda: self._keys.destroy(subject))
        self._forget(subject)
        return was

    def doubt(self) -> None:
        """Forgets all keys if it could not ask for too long who is erased: some of them may belong to erased
        persons."""
        if self._ciphers and asyncio.get_running_loop().time() - self._confirmed > TRUSTED_SECONDS:
            self._ciphers.clear()
            self._tell(EVERYBODY)

    async def run(self) -> None:
        """Asks who is erased, once a second while keys are in memory, endlessly."""
        loop, known = asyncio.get_running_loop(), frozenset[str]()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.doubt()
            if not (self._ciphers or self.problem):  # who has none asks only whether they are back
                continue
            began = loop.time()
            try:
                gone = await self._ask(self._destroyed_lately)
            except Exception as error:  # until somebody can be asked, nothing is known, which shows
                self._retrying.failed(error)
                continue
            self._retrying.succeeded()
            self._confirmed = began
            # Whose key was asked for meanwhile is known to be erased; states of theirs may be older than that.
            for subject in {*gone} - known:
                self._forget(subject)
            known = frozenset(gone)

    async def _destroyed_lately(self) -> Collection[str]:
        async with asyncio.timeout(TRUSTED_SECONDS / 2):
            return await self._keys.destroyed(_WITHIN)

    def _forget(self, subject: str) -> None:
        self._ciphers[subject] = None
        self._tell(subject)

    def _tell(self, subject: str) -> None:
        for told in self.on_erased:
            told(subject)

    def _is_erased(self, subject: str) -> bool:
        """Whether that is known here already."""
        return subject in self._ciphers and self._ciphers[subject] is None
