"""Settings from the environment: each is typed, bounded and documented, and a wrong one is refused at start."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from twinlog.jetstream.urls import servers
from twinlog.log.hosts import is_port
from twinlog.log.wrapping import wrapping_keys
from twinlog.model.errors import ConfigurationError
from twinlog.model.forms import WrongForm
from twinlog.model.forms import shown as in_words
from twinlog.postgres.urls import address_of, check_url
from twinlog.service import logging as logs
from twinlog.service.meanings import meaning

_ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65535
_NAMESPACE = re.compile(r"([a-z][a-z0-9-]{0,30})?")
_DATABASE = "[A-Za-z_][A-Za-z0-9_-]{0,62}"
_SCHEMA = "(?!pg_)[a-z_][a-z0-9_]{0,62}"
_INSTALLATION = re.compile(r"[A-Za-z0-9._-]{0,64}")


def checked_address(value: str) -> str:
    """The value, which is host:port, such as 127.0.0.1:50051 or [::1]:50051. Raises ValueError."""
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        raise ValueError("must be host:port, such as 127.0.0.1:50051")
    return value


def _optional_address(value: str) -> str:
    return checked_address(value) if value else value


def _text(pattern: re.Pattern[str], meaning: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"must be {meaning}")
        return value

    return AfterValidator(check)


def _url(check: Callable[[str], object]) -> AfterValidator:
    """``check`` raises ValueError, without showing the URL."""

    def checked(value: str) -> str:
        check(value)
        return value

    return AfterValidator(checked)


def services_in(text: str) -> Mapping[str, str]:
    """The addresses of services, by name. Raises ValueError."""
    named = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    for name, _, address in named:
        # Instead of a port that does not exist, gRPC would call another one.
        if not name or not _ADDRESS.fullmatch(address) or not is_port(address.rpartition(":")[2]):
            raise ValueError("must be name=host:port with commas, such as order_svc=127.0.0.1:50051")
    return {name: address for name, _, address in named}


Address = Annotated[str, AfterValidator(checked_address)]
"""A setting that says where to serve, as host:port, such as 127.0.0.1:50051 or [::1]:50051."""
OptionalAddress = Annotated[str, AfterValidator(_optional_address)]
"""The same, or empty."""
PostgresUrl = Annotated[str, _url(check_url), Field(repr=False)]
"""Never shown, since it may hold a password."""
NatsUrl = Annotated[str, _url(servers), Field(repr=False)]
"""Never shown, since it may hold a password."""

OptionalPostgresUrl = Annotated[str, _url(lambda url: url and check_url(url)), Field(repr=False)]
"""The same, or empty."""
WrappingKeys = Annotated[str, _url(wrapping_keys), Field(repr=False)]
"""Never shown: they are keys."""

Namespace = Annotated[
    str, _text(_NAMESPACE, "1 to 31 of a-z, 0-9 and -, the first a letter, such as staging, or empty")
]
"""What the names of streams, databases and subjects begin with."""
Database = Annotated[
    str,
    _text(
        re.compile(f"({_DATABASE}(/{_SCHEMA})?)?"),
        "at most 63 letters, digits, hyphens and underscores, and may end in /schema, of a-z, 0-9 and _, such as hotel "
        "or hotel/rooms",
    ),
]
"""The name of a database, or of a schema of one, or empty."""
NamedDatabase = Annotated[
    str, _text(re.compile(_DATABASE), "1 to 63 letters, digits, hyphens and underscores")
]
"""The name of a database."""
Installation = Annotated[
    str, _text(_INSTALLATION, "at most 64 letters, digits, dots, hyphens and underscores")
]
"""What services that work together are called."""


Services = Annotated[str, _url(services_in)]
"""Where services serve, as name=host:port with commas."""


class Settings(BaseSettings):
    """The settings of every process; a service derives its own. The environment has a field under its upper-case
    name; the field's docstring is its documentation."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    postgres_url: PostgresUrl = Field()
    """The Postgres server, such as postgresql://user:password@127.0.0.1:5432, percent-encoded."""
    nats_url: NatsUrl = Field()
    """The NATS server, 2.12 or later with JetStream, such as nats://127.0.0.1:4222; of a cluster all, with commas."""
    postgres_database: Database = ""
    """The database of this service's log, if not what it declares; hotel/rooms: the schema rooms of database hotel."""
    postgres_connections: int = Field(5, ge=2, le=100)
    """The most connections to Postgres that this process has open at once."""
    twinlog_namespace: Namespace = ""
    """Prefix of streams and databases, such as staging for staging_orders; for installations that share servers."""
    twinlog_installation: Installation = ""
    """One name for all services that work together; by default derived from the Postgres server and the namespace."""
    twinlog_services: Services = ""
    """Where other services serve, as name=host:port with commas; they are asked about answers that sagas wait for."""
    personal_keys_url: OptionalPostgresUrl = ""
    """The Postgres server of the keys of personal data, where it is not that of POSTGRES_URL."""
    personal_keys_database: NamedDatabase = "twinlog_keys"
    """The database of the keys of personal data; all services of an installation share it."""
    personal_wrapping_keys: WrappingKeys = ""
    """What encrypts those keys, the newest first, as name=key with commas, each key 32 bytes in base64."""
    stream_replicas: int = Field(1, ge=1, le=5)
    """On how many servers of a NATS cluster each stream is kept, at least; on 1, it is away while that server is."""
    keep_requests_days: float = Field(7.0, gt=0, le=36_500)
    """How many days the outcome of a command with a request_id is kept, so that its retries get the same answer."""
    chain_key_file: str = ""
    """A file with an Ed25519 key in PEM, which signs the heads of the log's chain; empty: they are not signed."""
    share_port: bool = False
    """Whether replicas listen on the same address, each with this set; the system shares out connections among them."""
    metrics_address: OptionalAddress = ""
    """Where Prometheus gets metrics, as host:port, such as 127.0.0.1:9461; empty: there are none."""
    log_level: logs.Level = "info"
    """What is logged: debug, info, warning or error."""
    log_format: logs.Format = "auto"
    """How it is logged: pretty, json, or auto, which is pretty on a terminal."""


SettingsType = TypeVar("SettingsType", bound=BaseSettings)


def load(kind: type[SettingsType], **known: Any) -> SettingsType:
    """The settings in the environment, except for those that are ``known``.

    Raises one :class:`ConfigurationError` that names every wrong or missing setting and says what it must be.
    """
    if not isinstance(kind, type) or not issubclass(kind, BaseSettings):
        raise WrongForm(
            of="load", what=f"it is given {in_words(kind)}; give the class of the settings, as SPEC.settings"
        )
    try:
        return kind(**known)
    except ValidationError as invalid:
        raise ConfigurationError("; ".join(_complaint(kind, one) for one in invalid.errors())) from None


def shown(settings: BaseSettings) -> dict[str, str]:
    """The settings by environment variable, without secrets: who may ask a process may not know its passwords.

    Of Postgres it is host and port, of NATS the URLs without the login. A text of a service's own is shown where it is
    the default, which is in the code; another one may be a key.
    """
    return {
        name.upper(): _shown(field, name, getattr(settings, name))
        for name, field in type(settings).model_fields.items()
    }


def _shown(field: FieldInfo, name: str, value: Any) -> str:
    if name == "postgres_url":
        return address_of(str(value))
    if name == "nats_url":
        return ",".join(servers(str(value)).urls)
    plain = name in Settings.model_fields or isinstance(value, bool | int | float) or is_address(value)
    if field.repr and (plain or value == field.default):
        return str(value)
    return "(set)" if value else "(not set)"


def is_address(value: Any) -> bool:
    """Whether it is host:port."""
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def _complaint(kind: type[BaseSettings], error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    field = kind.model_fields.get(name)
    known = "" if field is None else field.description or meaning(kind, name)
    remark = f" [{known}]" if known else ""
    if error["type"] == "missing":
        return f"{name.upper()} is not set: set it{remark}"
    what = error["msg"].removeprefix("Value error, ")
    shown = f"={error['input']}" if field is None or field.repr else ""
    return f"{name.upper()}{shown} is wrong: {what[:1].lower()}{what[1:]}{remark}"
