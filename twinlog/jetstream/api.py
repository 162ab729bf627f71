"""Requests to JetStream's API, what its errors mean, and what a stream is labelled with: whose it is."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NotFoundError

from twinlog.jetstream.meaning import unavailable
from twinlog.log.installation import ForeignStream, Identity
from twinlog.log.twin import TwinMissing, TwinState
from twinlog.model.errors import Unavailable, WrongSetting

REQUEST_TIMEOUT_SECONDS = 5.0
STREAM_NOT_FOUND = 10059
_NO_MESSAGE = 10037
INSTALLATION = "twinlog.installation"
"""The label that says whose a stream is."""
_LOG = "twinlog.log"
_COUNTED_NANOSECONDS = 5_000_000_000


@contextmanager
def asking(stream: str) -> Iterator[None]:
    """Raises what goes wrong while a stream's server is asked as TwinMissing or Unavailable."""
    try:
        yield
    except NotFoundError as error:
        raise TwinMissing(stream=stream) from error
    except (NatsError, APIError, TimeoutError, OSError, json.JSONDecodeError) as error:
        raise unavailable(error) from error


class _Answer(dict[str, Any]):
    """An object of an answer. What it lacks and is asked for, an answer of JetStream's has."""

    def __missing__(self, key: str) -> Any:
        raise Unavailable(f"JetStream is out of service (its answer lacks {key})")


def answer_in(data: bytes) -> dict[str, Any]:
    """What an answer says. Anybody may have sent it; raises Unavailable where it is none of JetStream's."""
    answer: Any = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(data, object_hook=_Answer)
    if isinstance(answer, dict) and isinstance(answer.get("error", {}), dict):
        return answer
    raise Unavailable("JetStream is out of service (its answer cannot be read)")


async def _ask(
    client: Client, what: str, stream: str, request: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the server answers to a request about a stream. Raises Unavailable."""
    data = json.dumps(request).encode() if request else b""
    with asking(stream):
        reply = await client.request(f"$JS.API.{what}", data, timeout=REQUEST_TIMEOUT_SECONDS)
    return answer_in(reply.data)


async def stream_info(client: Client, stream: str) -> dict[str, Any]:
    """The server's description of a stream. Raises TwinMissing and Unavailable."""
    info = _accepted(stream, await _ask(client, f"STREAM.INFO.{stream}", stream))
    if isinstance(info.get("config"), dict) and isinstance(info.get("state"), dict):
        return info
    raise Unavailable("JetStream is out of service (its answer is about no stream)")


def _accepted(stream: str, info: dict[str, Any]) -> dict[str, Any]:
    if refusal := info.get("error"):
        if refusal.get("err_code") == STREAM_NOT_FOUND:
            raise TwinMissing(stream=stream)
        raise refused(refusal)
    return info


def refused(refusal: Mapping[str, Any], what: str = "JetStream is out of service ({})") -> Unavailable:
    """The error in an answer of JetStream's as what it means. ``what`` takes the reason of one that passes."""
    code, why = refusal.get("err_code"), refusal.get("description")
    meant = unavailable(NatsError(f"err_code={code} {why}"))
    return meant if isinstance(meant, WrongSetting) else Unavailable(what.format(why))


async def update_stream(client: Client, stream: str, config: Mapping[str, Any]) -> None:
    """Gives a stream another configuration. Raises Unavailable."""
    answer = await _ask(client, f"STREAM.UPDATE.{stream}", stream, config)
    if refusal := answer.get("error"):
        raise refused(refusal, f"JetStream refused to update stream {stream} ({{}})")


async def pending(client: Client, stream: str, start: int, subjects: Sequence[str]) -> int:
    """How many messages of some subjects a stream has from a sequence on. Raises TwinMissing and Unavailable.

    The server counts them for a consumer; this one is never asked for any, and goes by itself.
    """
    name = f"count-{uuid4().hex}"
    config = {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": start,
        "ack_policy": "none",
        "filter_subjects": [*subjects],
        "inactive_threshold": _COUNTED_NANOSECONDS,
        "mem_storage": True,
        "num_replicas": 1,
    }
    request = {"stream_name": stream, "config": config, "action": "create"}
    info = _accepted(stream, await _ask(client, f"CONSUMER.CREATE.{stream}.{name}", stream, request))
    await client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")
    return int(info["num_pending"])


async def next_message(
    client: Client, stream: str, start: int, subject: str
) -> tuple[int, str, bytes] | None:
    """The first message of a subject, which may have wildcards, from a sequence on: its sequence, subject and bytes.

    None where there is none. Raises TwinMissing and Unavailable.
    """
    request = {"seq": start, "next_by_subj": subject}
    answer = await _ask(client, f"STREAM.MSG.GET.{stream}", stream, request)
    if answer.get("error", {}).get("err_code") == _NO_MESSAGE:
        return None
    message = _accepted(stream, answer)["message"]
    return message["seq"], message["subject"], b64decode(message.get("data", ""))


def state_of(info: Mapping[str, Any]) -> TwinState:
    state = info["state"]
    first, last = state["first_seq"], state["last_seq"]
    # What is stored under another subject is sent to nobody, so for those who want it, it is not there; and a queue
    # gives nothing to who does not take it out.
    withheld = "subject_transform" in info["config"] or info["config"].get("retention", "limits") != "limits"
    return TwinState(first, last, last + 1 - first - state["messages"] or int(withheld))


def labels(identity: Identity | None) -> dict[str, str]:
    """What a stream of this log is labelled with."""
    return {INSTALLATION: identity.installation, _LOG: str(identity.log_id)} if identity else {}


def metadata_of(info: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a stream, by the server's description of it."""
    return info["config"].get("metadata") or {}


def refuse_foreign(info: Mapping[str, Any], identity: Identity | None) -> None:
    """Raises ForeignStream where a stream says that it is another installation's; one of before 0.2 says nothing."""
    theirs = metadata_of(info).get(INSTALLATION)
    if identity and theirs and theirs != identity.installation:
        raise ForeignStream(info["config"]["name"], theirs, identity.installation)
