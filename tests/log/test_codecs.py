"""Values on their way to Postgres and back."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twinlog import Metadata
from twinlog.postgres.codecs import _from_numeric, _to_numeric
from twinlog.testing.internals import PostgresLog

NUMBERS = [
    0,
    1,
    -1,
    9_999,
    10_000,
    -10_000,
    2**63,
    -(2**63) - 1,
    10**30,
    10**30 + 10**8,
    -123_456_789_012_345_678_901,
]


@given(st.integers())
@example(10**40)
def test_every_whole_number_comes_back(number: int) -> None:
    assert _from_numeric(_to_numeric(number)) == number


async def test_postgres_reads_and_writes_the_same_whole_numbers(postgres_log: PostgresLog) -> None:
    texts = await postgres_log.pool.fetchval(
        "SELECT array_agg(n::text) FROM unnest($1::numeric[]) n", NUMBERS
    )
    assert texts == [str(number) for number in NUMBERS]
    numbers = await postgres_log.pool.fetchval(
        "SELECT array_agg(t::numeric) FROM unnest($1::text[]) t", texts
    )
    assert numbers == NUMBERS


async def test_a_fraction_is_not_taken_for_a_whole_number(postgres_log: PostgresLog) -> None:
    assert await postgres_log.pool.fetchval("SELECT 12.00::numeric") == 12
    with pytest.raises(ValueError, match="not whole"):
        await postgres_log.pool.fetchval("SELECT 12.34::numeric")


async def test_metadata_is_an_object_of_what_is_known(postgres_log: PostgresLog) -> None:
    metadata = Metadata('a "quoted" \\ name', "orders/1", "", "Zoë")
    query = "SELECT $1::jsonb->>'actor', $1::jsonb->>'correlation_id', $1::jsonb ? 'traceparent', $1::jsonb"
    row = await postgres_log.pool.fetchrow(query, metadata)
    assert isinstance(row, asyncpg.Record)
    assert tuple(row)[:3] == ("Zoë", 'a "quoted" \\ name', False)
    assert Metadata(**row[3]) == metadata


async def test_json_that_no_parser_reads_comes_back_as_it_stands(postgres_log: PostgresLog) -> None:
    for json in "[" * 999 + "]" * 999, '{"n": ' + "9" * 9_999 + "}":
        read = await postgres_log.pool.fetchval("SELECT $1::text::jsonb", json)
        assert read == json
        assert await postgres_log.pool.fetchval("SELECT $1::jsonb = $2::text::jsonb", read, json)
