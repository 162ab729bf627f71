"""Heads are told at a bounded rate, and can be signed; what came without a link is sealed by the way."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.chain.test_gaps import append_without
from tests.kernel.batches import grow
from tests.waiting import until
from twinlog import ConfigurationError, Unavailable
from twinlog.audit import chain_options
from twinlog.log.chain import Head
from twinlog.log.heads import Heads
from twinlog.log.signing import is_signed, public_key, signed, signer
from twinlog.testing import MemoryLog


@asynccontextmanager
async def running(heads: Heads) -> AsyncIterator[None]:
    task = asyncio.create_task(heads.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def key_pair(folder: Path, algorithm: str = "ed25519") -> tuple[str, str]:
    """The files of a private and of its public key, as the way out of the messages makes them."""
    private, public = folder / f"{algorithm}.pem", folder / f"{algorithm}.pub.pem"
    make = ["openssl", "genpkey", "-algorithm", algorithm, "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    give = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(give, check=True, capture_output=True)
    return str(private), str(public)


async def test_a_head_is_told_when_there_is_another_one() -> None:
    log = MemoryLog("counters")
    heads = Heads(log.name, log, interval_seconds=0.01)
    assert await heads.newest() is None
    await grow(log, 2)
    with capture_logs() as said:
        async with running(heads):
            await until(lambda: len(said) == 1)
            await grow(log, 1)
            await until(lambda: len(said) == 2)
            await asyncio.sleep(0.05)
    first, second = [Head.of("counters", link) for link in await log.links(0, 10)]
    assert [one["event"] for one in said] == ["chain.head", "chain.head"]
    assert [one["head"] for one in said] == [str(first), str(second)]
    assert await heads.newest() == second


async def test_what_came_without_a_link_is_sealed_before() -> None:
    log = MemoryLog("counters")
    await append_without(log, 1200)
    heads = Heads(log.name, log)
    with capture_logs() as said:
        await heads.note()
    assert [(one["event"], one.get("count", 1200)) for one in said] == [
        ("chain.sealed", 1200),
        ("chain.head", 1200),
    ]
    assert [link.last for link in await log.links(0, 10)] == [500, 1000, 1200]


async def test_an_outage_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log, down = MemoryLog("counters"), True
    await grow(log, 1)
    seal = log.seal

    async def sealed(limit: int) -> int:
        if down:
            raise Unavailable("down")
        return await seal(limit)

    monkeypatch.setattr(log, "seal", sealed)
    heads = Heads(log.name, log, interval_seconds=0.01)
    with capture_logs() as said:
        async with running(heads):
            await until(lambda: bool(said))
            down = False
            await until(lambda: len(said) == 3)
    assert [one["event"] for one in said] == ["chain.not_noted", "chain.head", "chain.noting"]


async def test_a_head_is_signed_and_the_signature_is_of_it_alone(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    log = MemoryLog("counters")
    await grow(log, 1)
    head = await Heads(log.name, log, sign=signer(private)).newest()
    assert head
    key = public_key(public)
    assert Head.parse(str(head)) == head
    assert is_signed(head, key)
    others: list[dict[str, Any]] = [{"log": "bills"}, {"position": 2}, {"hash": "0" * 64}, {"signature": ""}]
    for other in [*others, {"signature": "no base64"}, {"signature": "AAAA"}]:
        assert not is_signed(head._replace(**other), key)
    assert signed(head) == f"twinlog head 1\ncounters\n1\n{head.hash}\n".encode()


async def test_a_key_that_will_not_do_is_refused_with_a_way_out(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    other, other_public = key_pair(tmp_path, "x25519")
    refused = {
        str(
            tmp_path / "none.pem"
        ): r"CHAIN_KEY_FILE: .*none.pem cannot be read \(No such file or directory\)",
        public: "CHAIN_KEY_FILE: .* is no such key; make one: openssl genpkey -algorithm ed25519",
        other: "CHAIN_KEY_FILE: the key in .* is not of Ed25519; make one",
    }
    for path, says in refused.items():
        with pytest.raises(ConfigurationError, match=says):
            signer(path)
    for path in (private, other_public):
        with pytest.raises(
            ConfigurationError, match=r"--key: .*; take it from the private key: openssl pkey"
        ):
            public_key(path)


def test_what_is_said_of_heads_has_chains_verified() -> None:
    """Taken without a word and compared with nothing, it would look proved."""
    parser = argparse.ArgumentParser()
    chain_options(parser)
    head = f"counters:2:{'4f' * 32}"
    given = [[], ["--chain"], ["--head", head], ["--head", head, "--head", head], ["--key", "heads.pub.pem"]]
    found = [parser.parse_args(words) for words in given]
    assert [(each.chain, len(each.heads), each.key) for each in found] == [
        (False, 0, None),
        (True, 0, None),
        (True, 1, None),
        (True, 2, None),
        (True, 0, "heads.pub.pem"),
    ]
