"""The connection to NATS."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from functools import partial
from logging import DEBUG, WARNING

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from twinlog._aio.retrying import Retrying
from twinlog._aio.tasks import until_it_heeds
from twinlog.jetstream import api
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.meaning import said, unavailable
from twinlog.jetstream.urls import servers
from twinlog.model.errors import ConfigurationError, Unavailable, WrongSetting

_OLDEST_NATS = (2, 12)
_CLOSE_SECONDS = 0.5
_REACH_SECONDS = 5.0
_NOBODY = "no NATS answers at NATS_URL{}; is it up, and is this its address?"
_NO_LEADER = (10008, 10010)
"""Error codes of a cluster that is electing a leader or has too few servers."""


async def connect(url: str, name: str, *, waits: bool = True) -> NatsClient:
    """A connection that always reconnects; waits, and logs it once, until a server answers and a cluster has a leader.

    ``url``: one server, or the servers of a cluster, separated by commas. Raises ConfigurationError where the login is
    refused, the server is too old or runs without JetStream, and where it is no URL. ``waits``: if not, Unavailable is
    raised once every server was tried.
    """
    client = NatsClient()
    try:
        to = servers(url)
    except ValueError as error:
        raise ConfigurationError(f"NATS_URL is wrong: {error}") from None
    heard = _Heard(client, name, None if waits else len(to.urls))
    try:
        connecting = client.connect(
            to.urls,
            name=name,
            user=to.user,
            password=to.password,
            token=to.token,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]  # it is only passed to sleep
            ping_interval=5,
            max_outstanding_pings=2,
            connect_timeout=2,
            allow_reconnect=True,
            error_cb=heard.error,
            disconnected_cb=heard.disconnected,
            reconnected_cb=heard.reconnected,
            pending_size=64 * 1024 * 1024,
            skip_subject_validation=True,  # all subjects are made by this package
        )
        await until_it_heeds(connecting)
        client.fault, heard.connected = None, True
        client.most_told_anew = partial(_most_told, url, name)
        _check_version(client)
        await heard.retrying(lambda: _check_jetstream(client))
    except BaseException:
        await close(client)
        raise
    return client


async def reached(url: str, name: str) -> NatsClient:
    """As :func:`connect`, for a command that somebody waits for. Raises Unavailable, too, where none answers."""
    try:
        async with asyncio.timeout(_REACH_SECONDS):
            return await connect(url, name, waits=False)
    except TimeoutError as error:
        raise Unavailable(_NOBODY.format("")) from error


async def _most_told(url: str, name: str) -> int:
    """How large a message may be, as a new connection is told. Raises Unavailable and ConfigurationError."""
    client = await reached(url, name)
    try:
        return client.max_payload
    finally:
        await close(client)


class _Heard:
    """What nats-py calls back with, in the logs."""

    def __init__(self, client: NatsClient, name: str, tries: int | None) -> None:
        """``tries``: the failures to connect after which it is given up; None: never."""
        self.connected = False
        self._tries = tries
        self.retrying = Retrying(
            say_failing=lambda error: self._log.warning("nats.waiting", why=str(error)),
            say_working=lambda: self._log.info("nats.available", name=name),
            on=(Unavailable,),
        )
        self._client = client
        self._name = name
        self._log = structlog.get_logger()

    async def error(self, error: Exception) -> None:
        """Something went wrong; before the first connection, it is retried. Raises ConfigurationError."""
        client = self._client
        again, client.fault = client.fault is not None and _alike(client.fault, error), error
        if self.connected:
            # nats-py says here whatever goes wrong, at every attempt.
            wrong = isinstance(unavailable(error), WrongSetting) and not again
            self._log.log(WARNING if wrong else DEBUG, "nats.error", name=self._name, why=said(error))
            return
        # It also retries the first connection; this callback is the only sign of it.
        meant = unavailable(_At(f"{said(error)}: {client.addresses}"))
        if isinstance(meant, WrongSetting):
            raise ConfigurationError(str(meant)) from error
        if self._tries is not None:
            self._tries -= 1
            if self._tries <= 0:
                raise Unavailable(_NOBODY.format(f" ({said(error)}: {client.addresses})")) from error
            return
        self.retrying.failed(meant)

    async def disconnected(self) -> None:
        if self._client.is_closed:  # by this process, which is about to end
            return
        fault = self._client.fault
        self._log.warning(
            "nats.disconnected", name=self._name, why=said(fault) if fault else "the connection broke"
        )

    async def reconnected(self) -> None:
        self._client.fault = None
        self._log.warning("nats.reconnected", name=self._name)


_OWN_NAMES = re.compile(r"(cursor|count)-[0-9a-f]+|_inbox\.[\w.*]+| \(sid.*")
"""What a subject has of its own each time, in the lower case that nats-py gives it."""


def _alike(one: BaseException, other: BaseException) -> bool:
    return _OWN_NAMES.sub("", said(one)) == _OWN_NAMES.sub("", said(other))


class _At(Exception):
    """An error with the address that it is about."""


async def close(client: Client) -> None:
    """Closes a connection promptly, also while the server does not answer."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


def _check_version(client: Client) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < _OLDEST_NATS:
        raise ConfigurationError(
            f"NATS_URL: nats-server 2.12 or newer is needed (this one is {version.major}.{version.minor})"
        )


async def _check_jetstream(client: Client) -> None:
    """Raises Unavailable while a cluster elects."""
    try:
        await client.jetstream(timeout=api.REQUEST_TIMEOUT_SECONDS).account_info()
    except (NatsError, APIError) as error:
        meant = unavailable(error)
        if isinstance(meant, WrongSetting):
            raise ConfigurationError(str(meant)) from error
        if isinstance(error, APIError) and error.err_code not in _NO_LEADER:
            raise ConfigurationError(
                f"NATS_URL: this nats-server runs without JetStream ({said(error)}); "
                f"start it with JetStream enabled (-js)"
            ) from error
        raise meant from error
