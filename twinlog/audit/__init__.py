"""Audits a system: that logs, twins, views, consumers and states agree, event by event. A domain adds what it knows."""

from twinlog.audit.auditor import GRACE, Auditor
from twinlog.audit.chain import ChainAudit
from twinlog.audit.database_snapshots import TableRows
from twinlog.audit.dead_letters import DeadLetter, DeadLetters, DeadLettersByConsumer
from twinlog.audit.domain import Domain, Round
from twinlog.audit.followers import Follower, set_checkpoint
from twinlog.audit.history import Change
from twinlog.audit.options import chain_options
from twinlog.audit.renderer import report as report_lines
from twinlog.audit.renderer import violation as violation_lines
from twinlog.audit.report import Figures, Findings, Report, Violation
from twinlog.audit.system import AuditedLog, System
from twinlog.audit.views import EQUAL as VIEW_EQUAL
from twinlog.audit.views import Decoded, RowsAudit, ViewAudit, difference

__all__ = [
    "GRACE",
    "VIEW_EQUAL",
    "AuditedLog",
    "Auditor",
    "ChainAudit",
    "Change",
    "DeadLetter",
    "DeadLetters",
    "DeadLettersByConsumer",
    "Decoded",
    "Domain",
    "Figures",
    "Findings",
    "Follower",
    "Report",
    "Round",
    "RowsAudit",
    "System",
    "TableRows",
    "ViewAudit",
    "Violation",
    "chain_options",
    "difference",
    "report_lines",
    "set_checkpoint",
    "violation_lines",
]
