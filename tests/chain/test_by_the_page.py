"""A program that knows docs/reference/proof.md alone, and neither Twinlog nor its constants, verifies a log."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.chain.history import fill, tamper
from tests.chain.test_gaps import append_without
from tests.chain.test_heads import key_pair
from tests.kernel.batches import grow
from twinlog.log.heads import Heads
from twinlog.log.signing import signer
from twinlog.testing.internals import PostgresLog

EVENTS = """
SELECT version, recorded_at, event_id, stream_type, stream_id, type, metadata, extra, partition_key, tag, payload
  FROM events WHERE position BETWEEN $1 AND $2 ORDER BY position
"""
LINKS = "SELECT kind, first_position, last_position, head, digest, hash FROM chain ORDER BY number"


def signed(number: int, bytes: int) -> bytes:
    return number.to_bytes(bytes, "big", signed=True)


def event_digest(row: Any) -> bytes:
    metadata, extra = row["metadata"], row["extra"] or {}
    texts = [row["stream_type"], row["stream_id"], row["type"]]
    texts += [metadata.get(name, "") for name in ("correlation_id", "causation_id", "traceparent", "actor")]
    texts += [row["partition_key"], row["tag"]]
    for name in sorted(extra):
        texts += [name, extra[name]]
    text = b"\0".join(each.encode() for each in texts)
    since = row["recorded_at"] - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    head = b"\1" + signed(row["version"], 8) + signed(microseconds, 8) + len(text).to_bytes(4, "big")
    return sha256(head + row["event_id"].bytes + text + row["payload"]).digest()


async def first_that_differs(log: PostgresLog) -> int | None:
    before = bytes(32)
    for kind, first, last, head, digest, hash in await log.pool.fetch(LINKS):
        content = signed(kind, 2) + signed(first, 8) + signed(last, 8) + signed(head, 8) + digest
        rows = await log.pool.fetch(EVENTS, first, last)
        digests = b"".join(event_digest(row) for row in rows)
        if hash != sha256(before + content).digest() or sha256(digests).digest() != digest:
            return int(first)
        before = hash
    return None


@pytest.fixture
async def log(postgres_log: PostgresLog) -> AsyncIterator[PostgresLog]:
    await fill(postgres_log)
    await append_without(postgres_log, 7)
    await postgres_log.seal(100)
    await grow(postgres_log, 2, "b")
    yield postgres_log


async def test_links_and_digests_are_as_the_page_says(log: PostgresLog) -> None:
    assert await first_that_differs(log) is None
    await tamper(log, "UPDATE events SET payload = '\\x00' WHERE position = 9")
    assert await first_that_differs(log) == 8, "the first event of its link"


async def test_a_signed_head_is_verified_by_openssl_alone(log: PostgresLog, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    told = str(await Heads(log.name, log, sign=signer(private)).newest())
    name, position, hash, signature = told.split(":")
    newest = (await log.pool.fetch(LINKS))[-1]
    assert (int(position), hash) == (newest["head"], newest["hash"].hex())
    message, sig = tmp_path / "head", tmp_path / "head.sig"
    message.write_text(f"twinlog head 1\n{name}\n{position}\n{hash}\n")
    sig.write_bytes(base64.b64decode(signature))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin"]
    verify += ["-in", str(message), "-sigfile", str(sig)]
    assert verifies(verify)
    message.write_text(message.read_text().replace(f"\n{position}\n", f"\n{int(position) + 1}\n"))
    assert not verifies(verify)


def verifies(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
