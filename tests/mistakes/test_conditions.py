"""Every place where a start may be refused is one that `twinlog doctor` comes by: it runs the same lists."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import twinlog
from twinlog.model.errors import ConfigurationError, WrongSetting

_PACKAGE = Path(twinlog.__file__).parent
_ROOMS = ("service", "log", "consume", "postgres", "jetstream", "memory", "rpc", "observe")

_BY_CONDITION = {
    "consume.kept_views:KeptViews.check",
    "consume.kept_views:KeptViews.check_columns",
    "log.declarations:KeptConsumers.refuse_renamed",
    "log.declarations:check_declarations",
    "log.declarations:refuse",
    "log.keys:require_cipher",
    "log.saga_tables:_compare",
    "log.saga_tables:_needed",
    "log.signing:_loaded",
    "observe.tracing:wanted",
    "postgres.identity:_derived",
    "postgres.identity:whose",
    "rpc.host:_taken",
    "service.feeding:Feeding._refuse_anothers",
    "service.feeding:_refuse_foreign",
    "service.mistakes:refuse",
    "service.process:open_service",
    "service.service:Service.conditions",
    "service.service:Service.refuse_unfinished",
    "service.start:of_program",
}
"""In the lists of ``start.of_program``, ``Start.conditions`` and ``Service.conditions``, which a start runs, too."""
_BY_THE_SAME_CALL = {
    "postgres.declarations:_form": "declarations",
    "jetstream.connection:_Heard.error": "connect",
    "jetstream.connection:_check_jetstream": "connect",
    "jetstream.connection:_check_version": "connect",
    "jetstream.connection:connect": "connect",
    "jetstream.meaning:unavailable": "whatever asks NATS",
    "postgres.database:_opened": "connect",
    "postgres.database:check": "check",
    "postgres.database:connect": "connect",
    "postgres.database:refused_at_start": "what it wraps is raised to a doctor as it is",
    "postgres.identity:_refuse_other": "only",
    "postgres.identity:only.admit": "only",
    "postgres.meaning:translated": "whatever asks Postgres",
    "postgres.migrations:missing": "pending",
    "postgres.migrations:apply": "the trial of migrations",
    "postgres.migrations:refused_tables": "the same, and whether the user may create tables",
    "postgres.named_queries:part_of": "pending, and wiring",
    "postgres.views:PostgresViews.note": "wiring",
    "rpc.read_model:ReadModel.__init__": "wiring",
    "rpc.read_model:ReadModel.subscribe": "wiring",
    "service.service:Service.subscribe": "wiring",
    "service.service:_in_memory": "wiring",
    "service.settings:load": "load",
    "service.subscribing:with_policies_of_sagas": "wiring",
    "service.conditions:waited_for.attempted": "what it wraps is raised to a doctor as it is",
    "service.spec:ServiceSpec.__post_init__": "the import of the program",
    "service.wiring:servicers": "wiring",
}
_BY_A_LOOK = {
    "observe.metrics.serving:serving": "whether METRICS_ADDRESS is free",
    "postgres.database:_create": "whether the user may create the database",
    "postgres.database:_create_schema": "whether it may create the schema",
}
"""A start finds these by doing what a doctor leaves undone."""
_NOT_AT_A_START = {
    "log.archive:ArchiveReader._read": "an archive is read when somebody asks for the past",
    "log.archive:filesystem": "the same",
    "log.archive:refuse_copies": "twinlog archive",
    "log.log_file:zstd": "twinlog export and import",
    "postgres.added:refused": "what somebody added to a table shows when rows are stored",
    "postgres.added:retyped": "what somebody made of a column shows when a row fails",
    "postgres.identity:identity": "twinlog repair, export and archive",
    "postgres.repair:_as_the_owner": "twinlog repair",
    "postgres.named_queries:named": "a problem of the consumer in health, at its first row",
    "postgres.view_writer:_other_columns": "the same, of a column",
    "postgres.view_writer:ViewWriter.store": "the same, of a table",
    "service.archive:archive_log": "twinlog archive",
    "service.export:database_of": "twinlog export",
    "service.rehearsal:_heed_sockets.heed": "what only a doctor and an audit meet",
    "service.rehearsal:rehearse": "the same",
    "service.process:run": "the arguments of run, which no project's app.py calls",
}


def _refusals() -> set[str]:
    """The names of all errors that refuse a start."""
    for file in _PACKAGE.rglob("*.py"):
        if any(room in file.parts for room in (*_ROOMS, "model")) and file.stem != "__main__":
            importlib.import_module(".".join(("twinlog", *file.relative_to(_PACKAGE).with_suffix("").parts)))
    found, new = set[type](), {ConfigurationError, WrongSetting}
    while new:
        found |= new
        new = {each for one in new for each in one.__subclasses__()} - found
    return {each.__name__ for each in found}


def _sites() -> Iterator[str]:
    """Where one is made, or a list of mistakes is refused, as module:function."""
    names = {*_refusals(), "refuse"}
    for room in _ROOMS:
        for file in sorted((_PACKAGE / room).rglob("*.py")):
            module = ".".join(file.relative_to(_PACKAGE).with_suffix("").parts)
            for where, call in _calls(ast.parse(file.read_text()), ()):
                of = call.func
                name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
                if name in names:
                    yield f"{module}:{'.'.join(where)}"


def _calls(node: ast.AST, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield where, child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _calls(child, (*where, child.name))
        else:
            yield from _calls(child, where)


def test_a_doctor_comes_by_every_refusal() -> None:
    """Who adds a refusal puts it among the conditions, and says here how a doctor meets it."""
    told = [_BY_CONDITION, {*_BY_THE_SAME_CALL}, {*_BY_A_LOOK}, {*_NOT_AT_A_START}]
    known, found = set[str]().union(*told), {*_sites()}
    assert found - known == set(), "how does a doctor meet these?"
    assert known - found == set(), "these are gone"
    assert sum(map(len, told)) == len(known), "each is met in one way"
