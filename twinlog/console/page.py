"""What a page is: where it stands, what it loads and how that is shown; and what may be done on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twinlog.console.answers import Answer
from twinlog.console.looks import Look
from twinlog.console.services import Services


class Gone(Exception):
    """There is nothing at this address; the message says what is missing and where to look. Answers 404, in place."""


class Unanswered(Exception):
    """What is at this address is not known while some services do not answer; the message says which, and why.

    Answers 503, in place, and is replaced by the page as soon as they do.
    """


def missing(look: Look, what: str) -> Gone | Unanswered:
    """To be raised if no service is known to have something: it does not exist, or the service that has it is
    silent."""
    if silent := [said for said in look.services.values() if said.described is None]:
        return Unanswered(f"{what} {_silence(*((each.service, each.problem) for each in silent))}")
    return Gone(what)


def refused(what: str, *answers: Answer[Any]) -> Gone | Unanswered:
    """To be raised for answers without a message: ``what`` is not there, or those who would know do not say."""
    if silent := [(each.service, each.problem) for each in answers if each.silent]:
        return Unanswered(_silence(*silent))
    if unable := [f"{each.service}: {each.problem}." for each in answers if each.unserved]:
        return Gone(" ".join(dict.fromkeys(unable)))
    return Gone(what)


def _silence(*services: tuple[str, str]) -> str:
    each = [
        f"{service} does not answer{f': {problem}' if problem else ' yet'}." for service, problem in services
    ]
    return " ".join(dict.fromkeys(each))


@dataclass(frozen=True)
class Query:
    """What a URL says: the parts of its path, then its parameters. A parameter that is empty counts as not given."""

    path: str
    """As the browser has it, such as /log/orders."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The parts of the path that the page's own path names, such as {log}."""
    parameters: Sequence[tuple[str, str]] = ()
    """Without those that only concern how the page is sent."""

    def get(self, name: str, default: str = "") -> str:
        """The part or the first parameter of a name."""
        if name in self.parts:
            return self.parts[name]
        return next((value for key, value in self.parameters if key == name and value), default)

    def all(self, name: str) -> list[str]:
        """All parameters of a name."""
        return [value for key, value in self.parameters if key == name and value]

    def number(self, name: str, *, most: int = 2**53) -> int:
        """A parameter as a whole number from 0 to ``most``; 0 where it is missing or no such number.

        Raises Gone where it is larger.
        """
        value = self.get(name)
        if not (value.isascii() and value.isdigit()):
            return 0
        if len(value) > len(str(most)) or int(value) > most:
            raise Gone(f"{name} must be a whole number from 0 to {most:,}; it is {value:.40}.")
        return int(value)

    def url(self, **changed: object) -> str:
        """This URL with some parameters set otherwise; None or an empty text takes one away."""
        kept = [(key, value) for key, value in self.parameters if key not in changed and value]
        added = [(key, str(value)) for key, value in changed.items() if value not in (None, "")]
        asked = urlencode(kept + added)
        return f"{self.path}?{asked}" if asked else self.path


@dataclass(frozen=True)
class Outcome:
    """What an action came to; shown above the page, which stays as it is."""

    text: str = ""
    ok: bool = True
    to: str = ""
    """A URL to go to instead, such as that of the thing that was made."""
    template: str = ""
    """Shows it in place of the text; it sees ``model`` and ``query``."""
    model: Any = None
    only_said: bool = False
    """Whether nothing has been done yet: it says what would be."""


@dataclass(frozen=True)
class Form:
    """The fields of a form that was sent."""

    fields: Sequence[tuple[str, str]]

    def get(self, name: str, default: str = "") -> str:
        """The first value of a field, without spaces around it."""
        return next((value.strip() for key, value in self.fields if key == name and value.strip()), default)

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return [value for key, value in self.fields if key == name and value]


Load = Callable[[Services, Query], Awaitable[Any]]
Action = Callable[[Services, Query, Form], Awaitable[Outcome]]
"""What a form of the page does; the form's hidden field ``action`` has its name, its ``action`` URL is the page's."""


@dataclass(frozen=True)
class Page:
    """A page."""

    path: str
    """With parts in braces, such as /log/{log}/{position}; {name:path} takes slashes, too."""
    title: str
    template: str
    load: Load
    """Raises :class:`Gone` where there is nothing at such an address, :class:`Unanswered` where that is not known.

    What it returns is drawn where it is not equal to the last, so it is made anew each time."""
    navigation: str = ""
    """What the navigation calls it; empty: it is not there, and stands below the page whose path it begins with."""
    key: str = ""
    """g and this letter go there."""
    icon: str = ""
    """The name of a symbol in the icons of the base page."""
    invites: str = ""
    """What one does there to have something happen, such as "An order by one click, in either mode." Other pages say so
    while nothing has."""
    actions: Mapping[str, Action] = field(default_factory=dict)
    """By name."""
    templates: Path | None = None
    """The folder of its templates, where it is not the console's own."""
    live: bool = True
    """Whether it is reloaded while somebody watches. Where it is not live, that is so only while ``moves`` says so, or
    while it shows an element with ``data-waits``."""
    moves: Callable[[Any], bool] = lambda model: False
    """Whether a model, as it was loaded last, changes without a word from any service, as a build does while it is
    filled. Others are loaded less often while no service tells of news, and no load finds any."""
