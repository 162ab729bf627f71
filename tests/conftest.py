"""The servers that all tests share, what each test gets of its own on them, and which tests stay together."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings

from tests import chromium, preloaded, servers
from twinlog.dev import EmbeddedNats, EmbeddedPostgres, supervisor, system
from twinlog.jetstream import api
from twinlog.jetstream import connection as jetstream
from twinlog.postgres import connection
from twinlog.testing.internals import NatsClient

pytest_plugins = ["twinlog.testing.plugin"]

# By default an example that takes longer than 200 ms fails, which depends on what else the machine does.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

TOGETHER = (
    "tests/audit/",
    "tests/console/",
    "tests/docs/test_site.py",
    "tests/docs/test_third_service.py",
    "tests/e2e/",
    "tests/erasure/test_shop.py",
    "tests/log/test_faults.py",
    "tests/observe/running/",
    "tests/packaging/",
    "tests/repair/test_failover.py",
    "tests/stack/test_demo.py",
    "tests/stack/test_run.py",
    "tests/tracing/test_shop.py",
    "tests/try_it/",
    "tests/upcasts/",
    "tests/upgrade/test_upgrade.py",
)
"""Tests that share what they start: where several workers share the tests, one of them runs each of these, in order.

Every other test runs alone, wherever there is room. Each worker has servers of its own.
"""

LONGEST_FIRST = (
    "tests/console/",
    "tests/e2e/",
    "tests/audit/",
    "tests/chaos/test_chaos.py::test_nothing_is_lost_doubled_off_or_stuck",
    "tests/neighbors/test_shop.py::test_they_run_beside_each_other_and_the_auditor_passes_both",
    "tests/try_it/",
    "tests/stack/test_demo.py",
    "tests/repair/test_failover.py",
    "tests/erasure/test_shop.py",
    "tests/upgrade/test_upgrade.py",
    "tests/cli/test_projects.py::test_a_new_project_passes_its_checks",
    "tests/packaging/",
    "tests/stack/test_run.py",
    "tests/tracing/test_shop.py",
    "tests/examples/test_hotel.py::test_it_passes_its_checks",
    "tests/log/test_faults.py",
    "tests/twin/test_relay.py::TestWithServers::test_relays_that_are_killed_before_they_hear_the_reply",
    "tests/log/test_positions.py",
    "tests/examples/test_hotel_runs.py",
    "tests/effects/test_crashes.py",
    "tests/docs/test_third_service.py",
    "tests/files/test_shop.py",
    "tests/rebuild/test_crashes.py",
    "tests/rebuild/test_interrupted.py",
    "tests/watches/test_crowds.py",
)
"""What takes longest begins first, so that all workers end at about the same time; `make test` lists what took long."""

COMPUTING = (
    "tests/simulation/",
    "tests/docs/test_site.py",
    "tests/saga/",
    "tests/testing/",
    "tests/watches/test_simulated.py",
)
"""Tests that take seconds of a processor and wait for no server, the longest first.

One worker begins with these and with what is ``fast``, while the others' tests wait for servers half of their time.
"""

SERVERS = {"postgres_url", "nats_url", "own_postgres", "own_nats", "postgres", "jetstream", "servers"}
"""Fixtures that start servers, and parameters that ask for them."""
SLOW = (
    *TOGETHER,
    "tests/bench/test_guard.py",
    "tests/bench/test_load.py",
    "tests/chaos/",
    "tests/cli/test_projects.py",
    "tests/docs/test_console_page.py::test_a_page_of_a_domain_is_served_beside_the_others",
    "tests/domain/test_forgetting.py::test_a_customer_of_many_years_is_no_larger_than_a_new_one",
    "tests/erasure/test_start.py::test_without_personal_fields_nothing_is_loaded",
    "tests/examples/",
    "tests/cli/test_simulate.py",
    "tests/kernel/test_admission.py::test_five_times_the_capacity_costs_little_and_is_over_when_it_is_over",
    "tests/kernel/test_config.py::test_a_process_reads_no_source_to_start",
    "tests/kernel/test_dump.py",
    "tests/kernel/test_relay_recovery.py::test_a_stream_that_was_restored_to_an_older_state_gets_the_rest_again",
    "tests/kernel/test_runtime.py",
    "tests/mutants/test_fresh.py",
    "tests/neighbors/test_clocks.py::test_it_is_measured_again_and_again_whatever_happens",
    "tests/observe/test_scrape.py::test_it_is_off_by_default_and_then_nothing_is_wrapped_or_loaded",
    "tests/public/test_lightness.py",
    "tests/rebuild/test_cost.py::test_memory_does_not_grow_with_the_number_of_events",
    "tests/repair/test_forks.py::test_a_cursor_notices_that_its_database_was_set_back",
    "tests/saga/test_any_process.py::test_also_where_people_decide_before_it_is_their_turn",
    "tests/saga/test_any_process.py::test_a_planted_bug_is_found",
    "tests/saga/test_any_process.py::test_in_the_end_all_is_done_or_all_is_undone",
    "tests/saga/test_model.py::test_in_the_end_all_is_done_or_all_is_undone",
    "tests/simulation/",
    "tests/testing/test_simulate.py",
    "tests/testing/test_world.py",
    "tests/stack/",
    "tests/test_programs.py",
    "tests/test_servers.py::test_each_postgres_is_another_one_whose_data_come_from_it_alone",
    "tests/tracing/test_cost.py",
    "tests/tracing/test_export.py",
    "tests/twin/test_jetstream.py::test_an_event_that_is_larger_than_the_server_takes_is_named_and_holds_up",
    "tests/twin/test_login.py",
    "tests/watches/test_crowds.py::test_a_slow_watcher_is_cut_off_and_goes_on_from_its_token",
    "tests/watches/test_crowds.py::test_a_thousand_watchers_cost_one_read_a_change_and_10_kb_each",
    "tests/watches/test_crowds.py::test_a_watcher_that_is_cut_off_holds_up_nobody",
    "tests/watches/test_simulated.py",
)
"""Tests that take seconds, or start servers of their own. All others that need none are ``fast``, for `make check`."""

# Of the processes that tests start, each would look for plugins of pydantic's in all that is installed.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# An embedded Postgres has no TLS: to ask it takes a third of what a process spends on a connection, and there are
# thousands.
if "POSTGRES_URL" not in os.environ:
    os.environ.setdefault("PGSSLMODE", "disable")

# What is imported and collected stays: to search it for cycles again and again takes a tenth of the tests' time.
gc.disable()


for _signal in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    # Ignored in a script's background or under nohup, which every program would inherit that a test ends by it.
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, lambda *_: None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files and folders without a fast test where only those are asked for: to import them takes seconds."""
    name = collection_path.relative_to(config.rootpath).as_posix()
    if collection_path.is_dir():
        name += "/"
    return True if config.option.markexpr == "fast" and name.startswith(SLOW) else None


def pytest_collection_finish() -> None:
    """From here on the collector looks at what tests make, and less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


# A machine that stands still for some seconds is no outage of its servers; tests of outages set their own bounds.
vars(connection)["_POOL_CONNECT_SECONDS"], vars(connection)["_ACQUIRE_SECONDS"] = 45.0, 50.0
vars(api)["REQUEST_TIMEOUT_SECONDS"] = 20.0

# Shops that tests run in this process do without initdb, too.
vars(system)["EmbeddedPostgres"] = servers.Postgres
# And their services without importing the library each.
vars(supervisor)["spawn"] = preloaded.spawn


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Before workers begin."""
    from tests.workers import fork_workers

    fork_workers(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out groups and single tests in order. (The mark xdist_group has no effect under pytest 9.2.)"""
    from tests.scheduling import FromBothEnds

    config.option.loadscopereorder = False  # which would begin with what has most tests
    return FromBothEnds(config, log, _group)


def _group(nodeid: str) -> str:
    return next((group for group in TOGETHER if nodeid.startswith(group)), "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts them in order and marks what is fast; refuses one that shares a fixture and is in no group."""
    if chromium.left_out():
        without = [item for item in items if "chromium" in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)
    for item in items:
        assert isinstance(item, pytest.Function)
        scopes = {each.scope for fixtures in item._fixtureinfo.name2fixturedefs.values() for each in fixtures}
        if not _group(item.nodeid) and {"module", "package"} & scopes:
            raise pytest.UsageError(f"{item.nodeid} shares a fixture: add it to TOGETHER in {__file__}")
        if not item.nodeid.startswith(SLOW) and not SERVERS & _needs(item):
            item.add_marker("fast")
    items.sort(key=lambda item: (_place(item), item.path))


def _place(item: pytest.Item) -> int:
    """What takes longest comes first, what only computes comes last, and all else between."""
    if (computes := _rank(item, COMPUTING)) is not None:
        return len(LONGEST_FIRST) + 1 + len(COMPUTING) - computes
    if (longest := _rank(item, LONGEST_FIRST)) is not None:
        return longest
    return len(LONGEST_FIRST) + (item.get_closest_marker("fast") is not None)


def _rank(item: pytest.Item, prefixes: tuple[str, ...]) -> int | None:
    """Which of these an item's name begins with."""
    return next((rank for rank, prefix in enumerate(prefixes) if item.nodeid.startswith(prefix)), None)


def _needs(item: pytest.Function) -> set[str]:
    """Its fixtures and the words among its parameters."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {*item.fixturenames, *(value for value in parameters if isinstance(value, str))}


_LOGGING = structlog.get_config()
"""How structlog is set up where no test, and no fixture that outlives a test, has changed it."""
# As installed, with plain tracebacks: rich ones, with the values of all variables, take a third of a second each.
_LOGGING["processors"] = [
    *_LOGGING["processors"][:-1],
    structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
]


@pytest.fixture(autouse=True)
def logging_as_installed() -> Iterator[None]:
    """Undoes what tests, and fixtures shared by several, set up of logging: others look at what is logged."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    structlog.configure(**_LOGGING)
    yield
    structlog.configure(**_LOGGING)
    root.handlers[:], root.level = handlers, level


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """What a test leaves in the environment, others fail for."""
    before = _environment()
    yield
    assert _environment() == before, "it leaves the environment changed"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_url(postgres_url: str) -> AsyncIterator[str]:
    """The plugin's, with a template."""
    async with servers.template(postgres_url):
        yield postgres_url


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[str]:
    """The name of a database of the test's own, which has a log's tables."""
    async with servers.database(postgres_url) as name:
        yield name


@pytest.fixture
async def empty_database(postgres_url: str) -> AsyncIterator[str]:
    """The name of a database of the test's own with nothing in it."""
    async with servers.empty_database(postgres_url) as name:
        yield name


@pytest.fixture
async def nats(nats_url: str) -> AsyncIterator[NatsClient]:
    """A connection of the test's own."""
    client = await jetstream.connect(nats_url, "tests")
    yield client
    await jetstream.close(client)


@pytest.fixture
async def stream(nats: NatsClient) -> AsyncIterator[str]:
    """The name of a stream of the test's own, which is not there yet."""
    async with servers.stream(nats) as name:
        yield name


@pytest.fixture
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that only this test uses, to stop, kill and start again."""
    async with servers.postgres_server() as server:
        yield server


@pytest.fixture
async def own_nats() -> AsyncIterator[EmbeddedNats]:
    """A NATS that only this test uses, to stop, kill and start again."""
    async with servers.nats_server() as server:
        yield server
