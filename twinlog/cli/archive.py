"""``twinlog archive LOG URL``: see :mod:`twinlog.service.archive`."""

from __future__ import annotations

import argparse

from twinlog.cli import log_files
from twinlog.cli.exits import OK, Usage
from twinlog.cli.output import print_json
from twinlog.cli.values import moment, whole_number

_OLD = "90d"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", help="the log, such as orders")
    parser.add_argument("url", help="where the files go: file:///a/folder, s3://bucket/a/folder, …")
    parser.add_argument(
        "--older-than", type=moment, default=_OLD, help="archive what is older, in whole ranges; default: 90d"
    )
    parser.add_argument(
        "--ends",
        action="append",
        default=[],
        metavar="TYPE",
        help="a type of streams that end, such as order; repeatable",
    )
    parser.add_argument(
        "--range",
        type=whole_number(1),
        default=100_000,
        metavar="POSITIONS",
        help="how many in one file; default: 100000",
    )
    stream = parser.add_mutually_exclusive_group()
    stream.add_argument(
        "--trim-stream", action="store_true", help="take out of the stream what is archived and handled, too"
    )
    stream.add_argument("--whole-stream", action="store_true", help="put every event back into the stream")
    log_files.server(parser)


def run(options: argparse.Namespace) -> int:
    from twinlog.service.archive import ArchiveOptions, Stream, archive_log

    if options.url.startswith("memory:"):
        raise Usage(
            f"{options.url} is this command's own memory, and lost when it ends: give a folder, such as "
            "file:///var/lib/archive, or a bucket"
        )
    stream = Stream.WHOLE if options.whole_stream else Stream.AS_IT_IS
    asked = ArchiveOptions(
        options.log,
        options.url,
        options.older_than,
        log_files.postgres_url(options),
        options.database,
        tuple(options.ends),
        options.range,
        Stream.TRIMMED if options.trim_stream else stream,
    )
    done = log_files.done(archive_log, asked, options.json)
    if options.json:
        print_json(done._asdict())
        return OK
    print(
        f"Log {done.log} is archived up to event {done.upto:,}: {done.events:,} events in {done.ranges} new files, "
        f"{done.bytes:,} bytes; {done.removed:,} events left the table; {done.seconds:.1f} s.",
        flush=True,
    )
    return OK
