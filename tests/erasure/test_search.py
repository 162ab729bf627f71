"""The report: a text is found in whatever form it is stored, and wherever."""

from __future__ import annotations

import io
import json
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import database
from twinlog import Unavailable
from twinlog.audit.erasure import Found, TextTooShort, forms, search
from twinlog.cli import main
from twinlog.jetstream.client import NatsClient
from twinlog.postgres.log import open_log
from twinlog.postgres.urls import database_url

TEXT = "Zephyrine Öhman"


@given(
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    text=st.text(st.characters(codec="utf-8"), min_size=4),
)
def test_a_text_is_found_in_every_form(before: bytes, after: bytes, text: str) -> None:
    around = before + text.encode() + after
    stored = [
        around,
        around.hex().encode(),
        b64encode(around),
        urlsafe_b64encode(around),
        json.dumps({"name": text}).encode(),
    ]
    for each in stored:
        assert any(form in each for form in forms(text))


def test_a_short_text_is_not_looked_for() -> None:
    with pytest.raises(TextTooShort, match="4 or more"):
        forms("Ada")


async def test_every_table_is_searched(postgres_url: str) -> None:
    async with database(postgres_url) as name:
        connection = await asyncpg.connect(database_url(postgres_url, name))
        try:
            await connection.execute(
                'CREATE TABLE plain (id integer, "a ""name" text); CREATE TABLE bytes (data bytea);'
                "CREATE TABLE inside (data jsonb, many bytea[]); CREATE TABLE nothing (id text)"
            )
            await connection.execute("INSERT INTO plain VALUES (1, $1), (2, 'other'), (3, $1)", f"x{TEXT}y")
            await connection.execute("INSERT INTO bytes VALUES ($1)", b"\0\xff" + TEXT.encode())
            await connection.execute("INSERT INTO inside VALUES (NULL, $1)", [b"\1" + TEXT.encode()])
            await connection.execute("INSERT INTO nothing VALUES ('Zephyrine')")
        finally:
            await connection.close()
        done = await search([TEXT], postgres_url, "")
    mine = {each.where.rpartition(".")[2]: each.times for each in done.found if each.where.startswith(name)}
    assert mine == {"plain": 2, "bytes": 1, "inside": 1}


async def test_every_stream_is_searched(nats: NatsClient, nats_url: str, stream: str) -> None:
    await nats.jsm().add_stream(name=stream, subjects=[f"{stream}.>"], allow_direct=True)
    for number in range(1, 8):
        text = TEXT if number in (3, 6) else "nobody"
        await nats.request(f"{stream}.a", f"<{text}>".encode(), timeout=60)  # answered once it is stored
    done = await search([TEXT], "", nats_url)
    assert [each for each in done.found if each.where == stream] == [Found("nats", stream, 2, "3")]
    assert done.messages >= 7


async def test_files_are_searched_packed_ones_too(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "plain").write_bytes(b"." * (2**20 - 5) + TEXT.encode())
    (tmp_path / "packed.zst").write_bytes(zstandard.ZstdCompressor().compress(b"." * 10 + TEXT.encode()))
    (tmp_path / "other").write_bytes(b"Zephyrine")
    done = await search([TEXT], "", "", [tmp_path])
    assert [(Path(each.where).name, each.first) for each in done.found] == [
        ("packed.zst", "10"),
        ("plain", str(2**20 - 5)),
    ]
    assert done.files == 3


async def test_files_that_an_archive_names_are_searched_wherever_they_are(postgres_url: str) -> None:
    fsspec, zstandard = pytest.importorskip("fsspec"), pytest.importorskip("zstandard")
    store = fsspec.filesystem("memory")
    store.pipe_file("/erasure/1", zstandard.ZstdCompressor().compress(b"." * 10 + TEXT.encode()))
    async with database(postgres_url) as name, open_log(postgres_url, name, "guests") as log:
        note = "INSERT INTO archived_ranges VALUES ($1, $1, 1, $2, 1, '', '{}', '{}', '{}')"
        await log.pool.execute(note, 1, "memory://erasure/1")
        done = await search([TEXT], postgres_url, "")
        assert Found("archive", "memory://erasure/1", 1, "10") in done.found
        await log.pool.execute(note, 2, "memory://erasure/2")
        with pytest.raises(Unavailable, match="memory://erasure/2 cannot be searched"):
            await search([TEXT], postgres_url, "")
    store.rm("/erasure", recursive=True)


def test_the_command_looks_for_what_stdin_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text(f"hello {TEXT}")
    for name in ("POSTGRES_URL", "NATS_URL"):
        monkeypatch.delenv(name, raising=False)
    report = ["erasure", "report", "--files", str(tmp_path)]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TEXT}\n\nnobody\n"))
    assert main([*report, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["texts"], told["files"], len(told["found"])) == (2, 1, 1)
    monkeypatch.setattr("sys.stdin", io.StringIO("nobody\n"))
    assert main(report) == 0
    assert "1 texts: in none of 0 tables, 0 messages, 1 files" in capsys.readouterr().out
    for given_texts, why in (("", "on stdin"), ("Ada\n", "4 or more")):
        monkeypatch.setattr("sys.stdin", io.StringIO(given_texts))
        assert main(report) == 2
        assert why in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("nobody\n"))
    assert main(["erasure", "report"]) == 2
    assert "POSTGRES_URL" in capsys.readouterr().err


def test_the_command_wraps_keys_anew(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERSONAL_KEYS_DATABASE", "twinlog_keys_cli")
    monkeypatch.setenv("PERSONAL_WRAPPING_KEYS", "a")
    assert main(["erasure", "rewrap", "--postgres-url", postgres_url]) == 2
    assert "must be name=key" in capsys.readouterr().err
    monkeypatch.setenv("PERSONAL_WRAPPING_KEYS", f"new={b64encode(b'k' * 32).decode()}")
    assert main(["erasure", "rewrap", "--postgres-url", postgres_url]) == 0
    assert "0 keys wrapped anew" in capsys.readouterr().out
    assert main(["erasure", "keys", "--postgres-url", postgres_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"keys": {}, "erased": {}}
