"""Looks for texts in all stores: that of a person who is erased is in none of them, in whatever form it may be stored.

It reads every table of every database of the server, every message of every stream, the files that it is given and
those of archives. Of Twinlog's tables it knows only the one that names these, so it finds what nobody thought of, too.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import asyncpg

from twinlog.audit.twins import read_messages
from twinlog.jetstream.connection import close, reached
from twinlog.log.archive import filesystem
from twinlog.model.errors import FailedPrecondition, Unavailable
from twinlog.postgres.database import all_databases, connected
from twinlog.postgres.meaning import outages
from twinlog.postgres.urls import database_url
from twinlog.postgres.view_builds import quoted

SHORTEST = 4
"""Characters of a text that can be looked for: shorter ones are found by chance."""
_PIECE_BYTES = 2**20
_BATCH = 500
_FILES = "SELECT file FROM archived_ranges ORDER BY first"
_URLSAFE = bytes.maketrans(b"+/", b"-_")


class TextTooShort(FailedPrecondition):
    """A text of {length} characters is found by chance; give one of 4 or more."""

    reason = "TEXT_TOO_SHORT"


class Found(NamedTuple):
    """A place where a text is."""

    store: str
    """postgres, archive, nats or file."""
    where: str
    """Database, table and columns; stream; or path."""
    times: int
    """Rows, messages, or pieces of a file."""
    first: str
    """The first of them: what its row begins with, its sequence, or where in the file it is, in bytes."""


class Searched(NamedTuple):
    found: Sequence[Found]
    tables: int
    messages: int
    files: int


def forms(text: str) -> list[bytes]:
    """How a text may be stored: as it is, in JSON, in hexadecimal, or inside base64 at any place.

    Raises TextTooShort.
    """
    if len(text) < SHORTEST:
        raise TextTooShort(length=len(text))
    plain = text.encode()
    found = [plain, json.dumps(text)[1:-1].encode(), plain.hex().encode(), plain.hex().upper().encode()]
    for skipped in range(3):
        # Of a longer text around it: only the characters that this text alone decides.
        encoded, end = b64encode(b"\0" * skipped + plain), (skipped + len(plain)) * 8 // 6
        found.append(encoded[-(-skipped * 8 // 6) : end])
    found += [each.translate(_URLSAFE) for each in found[-3:]]
    return list(dict.fromkeys(each for each in found if len(each) >= SHORTEST))


async def search(
    texts: Sequence[str], postgres_url: str, nats_url: str, folders: Sequence[Path] = ()
) -> Searched:
    """Looks for texts in a Postgres server and its archives, a NATS server, and files below folders.

    Empty URLs are left out.

    Raises TextTooShort, Unavailable and WrongSetting.
    """
    wanted = [form for text in texts for form in forms(text)]
    found: list[Found] = []
    tables = messages = files = 0
    if postgres_url:
        async for table in _in_postgres(postgres_url, wanted):
            tables += 1
            found.append(table)
        async for file in _in_archives(postgres_url, wanted):
            files += 1
            found.append(file)
    if nats_url:
        async for stream, read in _in_nats(nats_url, wanted):
            messages += read
            found.append(stream)
    for folder in folders:
        for file in _in_files(folder, wanted):
            files += 1
            found.append(file)
    return Searched([each for each in found if each.times], tables, messages, files)


async def _in_postgres(server_url: str, wanted: Sequence[bytes]) -> AsyncIterator[Found]:
    with outages():
        for database in await all_databases(server_url):
            async with connected(database_url(server_url, database)) as connection:
                for schema, table, columns in await _tables(connection):
                    yield await _in_table(connection, database, schema, table, columns, wanted)


async def _tables(connection: asyncpg.Connection) -> Sequence[Any]:
    """Schema and name of each table, with its columns as pairs of a name and whether it holds bytes."""
    rows = await connection.fetch(
        """
        SELECT n.nspname, c.relname,
               array_agg(a.attname::text ORDER BY a.attnum), array_agg(a.atttypid = 'bytea'::regtype ORDER BY a.attnum)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
         GROUP BY n.nspname, c.relname ORDER BY n.nspname, c.relname
        """
    )
    return [(schema, table, list(zip(names, bytes, strict=True))) for schema, table, names, bytes in rows]


async def _in_table(
    connection: asyncpg.Connection,
    database: str,
    schema: str,
    table: str,
    columns: Sequence[tuple[str, bool]],
    wanted: Sequence[bytes],
) -> Found:
    def holds(name: str, is_bytes: bool) -> str:
        value = f"t.{quoted(name)}" if is_bytes else f"convert_to(t.{quoted(name)}::text, 'UTF8')"
        return f"EXISTS (SELECT FROM unnest($1::bytea[]) AS f WHERE position(f IN {value}) > 0)"

    anywhere = " OR ".join(holds(*column) for column in columns) or "false"
    row = await connection.fetchrow(
        f"SELECT count(*), min(left(t::text, 60)) FROM {quoted(schema)}.{quoted(table)} AS t WHERE {anywhere}",
        list(wanted),
        timeout=None,
    )
    assert row is not None
    return Found("postgres", f"{database}.{schema}.{table}", row[0], row[1] or "")


async def _in_nats(url: str, wanted: Sequence[bytes]) -> AsyncIterator[tuple[Found, int]]:
    client = await reached(url, "erasure")
    try:
        for info in await client.jsm().streams_info():
            state, name = info.state, str(info.config.name)
            matching: list[int] = []
            read, next = 0, state.first_seq
            while next <= state.last_seq:
                batch = await read_messages(client, name, next, _BATCH)
                if not batch:
                    break
                read, next = read + len(batch), max(batch) + 1
                matching += [
                    at
                    for at, message in batch.items()
                    if _any(wanted, message.subject.encode(), message.data)
                ]
            yield Found("nats", name, len(matching), str(min(matching, default=""))), read
    finally:
        await close(client)


async def _in_archives(server_url: str, wanted: Sequence[bytes]) -> AsyncIterator[Found]:
    """The files that the archives of the server's logs name, wherever they are. Raises Unavailable."""
    files: list[str] = []
    with outages():
        for database in await all_databases(server_url):
            async with connected(database_url(server_url, database)) as connection:
                if await connection.fetchval("SELECT to_regclass('archived_ranges') IS NOT NULL"):
                    files += [row[0] for row in await connection.fetch(_FILES)]
    for file in files:
        yield await asyncio.to_thread(_in_archive, file, wanted)


def _in_archive(url: str, wanted: Sequence[bytes]) -> Found:
    files, path = filesystem(url)
    try:
        with files.open(path, "rb") as file:
            places = list(_places(file, wanted))
    except Exception as error:  # a file system may raise anything
        why = f"{url} cannot be searched: {str(error) or type(error).__name__}"
        raise Unavailable(why) from error
    return Found("archive", url, len(places), str(places[0]) if places else "")


def _in_files(folder: Path, wanted: Sequence[bytes]) -> Iterator[Found]:
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if not path.is_file():
            continue
        named = _any(wanted, str(path).encode())
        with path.open("rb") as opened_file:
            places = list(_places(opened_file, wanted))
        yield Found(
            "file", str(path), len(places) + named, str(places[0]) if places else "its name" if named else ""
        )


def _places(file: IO[bytes], wanted: Sequence[bytes]) -> Iterator[int]:
    """Where in a file a text begins, in bytes of what is unpacked; once for each piece of 1 MiB."""
    overlap = max(map(len, wanted), default=1) - 1
    at, kept, read = 0, b"", _unpacked(file)
    while piece := read(_PIECE_BYTES):
        data = kept + piece
        if hits := [found for each in wanted if (found := data.find(each)) >= 0]:
            yield at - len(kept) + min(hits)
        at, kept = at + len(piece), data[-overlap:] if overlap else b""


def _unpacked(file: IO[bytes]) -> Callable[[int], bytes]:
    """Reads a file, unpacked where it is packed by zstd."""
    packed = file.read(4) == b"\x28\xb5\x2f\xfd"
    file.seek(0)
    if not packed:
        return file.read
    from zstandard import ZstdDecompressor  # of the extra that makes such files

    reader = ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return lambda count: bytes(reader.read(count))


def _any(wanted: Sequence[bytes], *data: bytes) -> bool:
    return any(each in one for each in wanted for one in data)
