"""What a service is, said once: its names, and where its settings are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from twinlog.log.ports import Log
from twinlog.log.view_store import ViewStore
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.forms import NAME, Form, Forms, WrongForm, one, refuse_other
from twinlog.model.schema import Schema
from twinlog.service.settings import Settings

_FORMS: Forms = {
    "name": NAME,
    "log": NAME,
    "database": NAME,
    "domain": NAME,
    "settings": Form(
        lambda given: isinstance(given, type) and issubclass(given, Settings),
        "a class derived from twinlog.Settings, and no instance of it",
    ),
    "address": NAME,
    "views": Form(
        lambda given: given is None or callable(given), "a function of the log that gives their store"
    ),
    "schema": one(Schema, "a Schema, such as Schema([Upcast.drop(Old)])"),
}


@dataclass(frozen=True)
class ServiceSpec:
    """The identity of a service; its wiring, and whatever runs or inspects it, take what they need from here."""

    name: str
    """Goes on the events it causes, and names its consumers; by custom that of its package, such as order_svc."""
    log: str
    """The log that it owns; empty for a service of queries, whose dead letters are then kept under its name."""
    database: str
    """The Postgres database of the log, such as hotel; as hotel/rooms, a schema of its own in one that others share."""
    domain: str
    """The ErrorInfo domain of its errors (google.aip.dev/193)."""
    settings: type[Settings]
    """Its settings."""
    address: str
    """The field of the settings that says where it serves, such as orders_address."""
    aggregates: Sequence[AnyAggregate] = ()
    """The aggregates that its log holds; their timers are fired."""
    schema: Schema = field(default_factory=Schema)
    """Decodes the events of its log and of every log that it follows; it holds the upcasters."""
    migrations: tuple[str, ...] = ()
    """Packages whose migrations its database has, besides those of the log."""
    views: Callable[[Log], ViewStore] | None = None
    """Makes the store of its views, beside its log; :func:`twinlog.run` gives it to ``wire``."""

    def __post_init__(self) -> None:
        if not self.log and not self.aggregates:
            object.__setattr__(self, "log", self.name)
        refuse_other(of := str(self.name), self, _FORMS)
        if self.address not in self.settings.model_fields:
            what = f"{self.settings.__name__} has no field {self.address}; name the one that says where it serves"
            raise WrongForm(of=of, what=what)

    @property
    def address_setting(self) -> str:
        """The environment variable that says where it serves, such as ORDERS_ADDRESS."""
        return self.address.upper()

    @property
    def default_address(self) -> str:
        """Where it serves unless the environment says otherwise, as host:port."""
        return str(self.settings.model_fields[self.address].default)

    def address_in(self, settings: Settings) -> str:
        """Where it serves by these settings, as host:port."""
        return str(getattr(settings, self.address))
