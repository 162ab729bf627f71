from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from pydantic import Field

import customer_svc.app
import order_svc.app
import projector.app
import saga_orchestrator.app
from stack.topology import ROOT
from tests.docs.described import described
from twinlog import Address, ConfigurationError, ServiceSpec, Settings, load
from twinlog.postgres.urls import address_of
from twinlog.service.process import main_of


class ShopSettings(Settings):
    """As a service derives its own."""

    orders_address: Address = "127.0.0.1:50051"
    """Where the orders are."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ShopSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("POSTGRES_URL", "postgresql://me:secret@localhost")
    monkeypatch.setenv("NATS_URL", "nats://localhost:4222")
    return monkeypatch


def refusal() -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(ShopSettings)
    return str(refused.value)


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ORDERS_ADDRESS", "[::1]:0")
    environment.setenv("STREAM_REPLICAS", "3")
    settings = load(ShopSettings)

    assert settings.postgres_url == "postgresql://me:secret@localhost"
    assert settings.orders_address == "[::1]:0"
    assert settings.stream_replicas == 3
    assert settings.log_level == "info"


@pytest.mark.parametrize("namespace", ["", "a", "staging", "eu-1"])
def test_a_namespace_goes_into_names(environment: pytest.MonkeyPatch, namespace: str) -> None:
    environment.setenv("TWINLOG_NAMESPACE", namespace)
    assert load(ShopSettings).twinlog_namespace == namespace


@pytest.mark.parametrize(
    "namespace", ["Staging", "1a", "a_b", "a.b", "a b", "a>", "*", "-a", "ä", "a" * 32, "a\n"]
)
def test_a_namespace_that_no_name_can_begin_with_is_refused(
    environment: pytest.MonkeyPatch, namespace: str
) -> None:
    environment.setenv("TWINLOG_NAMESPACE", namespace)
    assert "is wrong: must be 1 to 31 of a-z, 0-9 and -, the first a letter" in refusal()


def test_every_wrong_setting_is_named_with_what_it_has_to_be(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("NATS_URL")
    environment.setenv("STREAM_REPLICAS", "many")
    environment.setenv("LOG_LEVEL", "loud")
    environment.setenv("ORDERS_ADDRESS", "localhost")
    said = refusal()

    assert "NATS_URL is not set: set it [The NATS server" in said
    assert "STREAM_REPLICAS=many is wrong: input should be a valid integer" in said
    assert "LOG_LEVEL=loud is wrong: input should be 'debug', 'info', 'warning' or 'error'" in said
    assert (
        "ORDERS_ADDRESS=localhost is wrong: must be host:port, such as 127.0.0.1:50051"
        " [Where the orders are.]" in said
    )
    assert "\n" not in said


@pytest.mark.parametrize("address", ["", "localhost", ":80", "h:", "h:65536", "h:x", "http://h:80", "a b:1"])
def test_an_address_is_host_and_port(environment: pytest.MonkeyPatch, address: str) -> None:
    environment.setenv("ORDERS_ADDRESS", address)

    assert "must be host:port" in refusal()


def test_a_password_is_never_shown(environment: pytest.MonkeyPatch) -> None:
    assert "secret" not in repr(load(ShopSettings))
    environment.setenv("POSTGRES_URL", "mysql://me:secret@localhost")
    said = refusal()

    assert "POSTGRES_URL is wrong: must start with postgresql://" in said
    assert "secret" not in said


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://me:{SECRET}@h:x", "must have a port from 1 to 65535"),
        (f"postgresql://me:{SECRET}@h:0", "must have a port"),
        (f"postgresql://me:{SECRET}@h:5432,i:70000", "must have a port"),
        (f"postgresql://me:{SECRET}#5@h:5432", "percent-encoded"),
        (f"postgresql://me:{SECRET}@5@h:5432", "must have its password percent-encoded"),
        (f"postgresql://me:{SECRET}/5@h:5432", "percent-encoded"),
        (f"postgresql://me@h:5432/shop?{SECRET}", "must have name=value"),
        (f"nats://me:{SECRET}@h:x", "must have a port from 1 to 65535"),
        (f"nats://me:{SECRET}@h:4222,nats://me:other@i", "must have one user and password"),
        (f"nats://me:{SECRET}@", "must be nats://host:port"),
        (f"http://me:{SECRET}@h", "must start with nats://"),
        (f"postgresql://me:{SECRET}@h,", "must name hosts"),
        (f"postgresql://me:{SECRET}@,h", "must name hosts"),
        (f"postgresql://me:{SECRET}@:5432", "must name hosts"),
        (f"postgresql://me:{SECRET}@[::1]x:5", "must name hosts"),
        (f"postgresql://me:{SECRET}@h℀", "must name hosts"),
        (f"postgresql://me:{SECRET}@a b", "must name hosts"),
        (f"postgresql://me:{SECRET}@a%00b", "must name hosts"),
        (f"postgresql://me%00:{SECRET}@h", "must have no NUL"),
        (f"postgresql://me:{SECRET}%00@h", "must have no NUL"),
        (f"postgresql://me:{SECRET}@h/x%00", "must have no NUL"),
        (f"postgresql://me:{SECRET}@h?application_name=x%00", "must have no NUL"),
        (f"postgresql://me:{SECRET}@h?port=70000", "must have a port"),
        (f"postgresql://me:{SECRET}@/x?host=h&port=5432,x", "must have a port"),
        (f"postgresql://me:{SECRET}@/x?host=h,,i", "must name hosts"),
        (f"nats://me:{SECRET}@[]:4222", "must name hosts"),
        (f"nats://me:{SECRET}@[zz]:4222", "must name hosts"),
        (f"nats://me:{SECRET}@[h:4222", "must name hosts"),
        (f"nats://me:{SECRET}@[::1]]:4222", "must name hosts"),
        (f"nats://me:{SECRET}@h\t", "must name hosts"),
        (f"nats://me:{SECRET}@h,ws://i", "must have servers of one kind"),
    ],
)
def test_a_url_that_is_none_is_refused_in_one_line_without_its_password(
    environment: pytest.MonkeyPatch, url: str, says: str
) -> None:
    name = "POSTGRES_URL" if url.startswith("postgresql") else "NATS_URL"
    environment.setenv(name, url)
    said = refusal()
    assert said.startswith(f"{name} is wrong: ")
    assert says in said
    assert SECRET not in said
    assert "\n" not in said


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_websocket_is_refused_where_nothing_can_speak_it(
    environment: pytest.MonkeyPatch, scheme: str
) -> None:
    environment.setenv("NATS_URL", f"{scheme}://me:{SECRET}@h:443")
    websockets = ModuleType("aiohttp")
    websockets.__spec__ = ModuleSpec("aiohttp", None)
    environment.setitem(sys.modules, "aiohttp", websockets)
    load(ShopSettings)

    environment.setitem(sys.modules, "aiohttp", None)  # as where it is not installed
    assert refusal().startswith("NATS_URL is wrong: needs aiohttp for ws:// and wss://: install")
    assert SECRET not in refusal()


@pytest.mark.parametrize("services", ["a=h:70000", "a=h:0", "a=h:123456", "a=h", "=h:1", "a"])
def test_a_service_is_where_a_port_can_be(environment: pytest.MonkeyPatch, services: str) -> None:
    """Instead of a port that does not exist, gRPC would call another one."""
    environment.setenv("TWINLOG_SERVICES", services)
    assert "TWINLOG_SERVICES" in (said := refusal())
    assert "must be name=host:port" in said


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://", "localhost:5432"),
        ("postgresql://a:b%40c@h", "h:5432"),
        ("postgres://h:1,i/shop", "h:1,i:5432"),
        ("postgresql://[::1]:7/x", "[::1]:7"),
        ("postgresql:///x?host=h&port=9", "h:9"),
        ("postgresql://me@%2Frun%2Fpostgresql/x", "/run/postgresql:5432"),
        ("postgresql://me@/x?host=/run/a b", "/run/a b:5432"),
        ("postgresql://h/x?port=9", "h:5432"),
    ],
)
def test_the_address_in_a_url_can_be_shown(environment: pytest.MonkeyPatch, url: str, address: str) -> None:
    environment.setenv("POSTGRES_URL", url)
    assert address_of(load(ShopSettings).postgres_url) == address


def test_every_setting_is_documented() -> None:
    settings = described(ShopSettings)

    assert ("ORDERS_ADDRESS", "127.0.0.1:50051", "Where the orders are.") in settings
    assert settings[0][:2] == ("POSTGRES_URL", "required")
    assert all(meaning.endswith(".") for _, _, meaning in settings)


class HotelSettings(ShopSettings):
    """One that says more of a field, of another one in its Field, and of a third nothing."""

    orders_address: Address = "127.0.0.1:50051"
    """Where the rooms
    are."""
    stars: int = Field(3, description="How many it has.")
    """Not this one."""
    beds: int = 1


def test_what_a_setting_means_is_looked_up_where_it_is_nearest() -> None:
    meanings = {name: meaning for name, _, meaning in described(HotelSettings)}

    assert meanings["ORDERS_ADDRESS"] == "Where the rooms\nare."
    assert (meanings["STARS"], meanings["BEDS"]) == ("How many it has.", "")
    assert meanings["LOG_LEVEL"] == "What is logged: debug, info, warning or error."


def test_a_setting_of_a_class_without_source_is_refused_like_any_other(
    environment: pytest.MonkeyPatch,
) -> None:
    made: dict[str, Any] = {"Settings": Settings, "__name__": "made"}
    exec('class Made(Settings):\n    beds: int = 1\n    """How many."""', made)
    environment.setenv("BEDS", "x")

    with pytest.raises(ConfigurationError, match=r"^BEDS=x is wrong: .*integer"):
        load(made["Made"])


def test_a_process_reads_no_source_to_start() -> None:
    """What settings mean is in their source; to find it takes a twentieth of a start, and few starts show it."""
    program = "import linecache, order_svc.app as app; print([*linecache.cache])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_spec_knows_where_its_service_serves(environment: pytest.MonkeyPatch) -> None:
    spec = ServiceSpec(
        name="order_svc",
        log="orders",
        database="orders",
        domain="shop",
        settings=ShopSettings,
        address="orders_address",
    )
    assert (spec.address_setting, spec.default_address) == ("ORDERS_ADDRESS", "127.0.0.1:50051")
    environment.setenv("ORDERS_ADDRESS", "127.0.0.1:7")
    assert spec.address_in(load(ShopSettings)) == "127.0.0.1:7"


def test_a_spec_of_an_address_that_is_no_setting_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="order_svc: ShopSettings has no field order_address"):
        ServiceSpec("order_svc", "orders", "orders", "shop", ShopSettings, "order_address")


APPS = {50051: order_svc.app, 50052: customer_svc.app, 50053: saga_orchestrator.app, 50054: projector.app}


@pytest.mark.parametrize("port", APPS)
def test_the_services_of_the_shop_say_what_they_are(port: int) -> None:
    app: Any = APPS[port]
    spec: ServiceSpec = app.SPEC
    assert spec.default_address == f"127.0.0.1:{port}"
    assert app.__name__ == f"{spec.name}.app", "python -m <name> runs it"


@pytest.mark.parametrize("port", APPS)
async def test_a_service_of_the_shop_looks_at_its_settings_first(
    environment: pytest.MonkeyPatch, port: int
) -> None:
    """tests/e2e/test_stop.py has processes that end with it."""
    app: Any = APPS[port]
    shutdown: Any = None
    environment.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError, match="LOG_LEVEL=loud is wrong"):
        await main_of(app.SPEC, app.wire)(shutdown)


def test_wrapping_keys_that_are_blank_are_not_taken_for_none(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PERSONAL_WRAPPING_KEYS", " \n")
    with pytest.raises(
        ConfigurationError, match=r"PERSONAL_WRAPPING_KEYS is wrong: .*it is blank, so that keys"
    ):
        load(ShopSettings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTGRES_CONNECTIONS", "1"),
        ("POSTGRES_CONNECTIONS", ""),
        ("POSTGRES_CONNECTIONS", "9" * 30),
        ("POSTGRES_DATABASE", "a b"),
        ("PERSONAL_KEYS_DATABASE", ""),
        ("KEEP_REQUESTS_DAYS", "nan"),
        ("STREAM_REPLICAS", "two"),
        ("SHARE_PORT", "perhaps"),
    ],
)
def test_a_pool_or_a_database_that_cannot_be_is_refused_by_name(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}={value} is wrong"):
        load(ShopSettings)
